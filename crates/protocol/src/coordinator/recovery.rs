//! The one recovery path: throw everything away and start again, but look first whether somebody else has taken over.
//!
//! Without that look, a zombie that resumes and finds its transaction gone would shoot its healthy successor.

use crate::error::ErrorKind;
use crate::ids::ClaimId;

use super::{Coordinator, Effect, Failure, Fate, Outcome, Phase, Restart, SeenClaim};

/// How long to wait before looking again at a claim whose transaction is undecided, milliseconds.
const LOOK_AGAIN_MS: u64 = 500;

/// How long a fenced instance waits at least before it looks who fenced it, milliseconds: from `init_transactions` to a visible
/// claim a successor needs several round trips. Looking too early is safe, but the two would fence each other in turn.
const FENCED_PAUSE_MS: u64 = 2000;

/// What outlives a run.
#[derive(Debug)]
pub(super) struct Recovery {
    restart: Restart,
    /// The delay that the next failure costs.
    delay_ms: u64,
    run_began_ms: Option<u64>,
    /// The newest claim at the first pre-flight, and every claim of this process since. A claim that follows all of them is
    /// another's. `None` before the first pre-flight has read the control topic.
    known: Option<Vec<ClaimId>>,
}

impl Recovery {
    pub fn new(restart: Restart) -> Recovery {
        Recovery { restart, delay_ms: restart.initial_ms, run_began_ms: None, known: None }
    }

    /// Notes the newest claim of the first pre-flight. Later ones tell whether that is still so: a claim that is neither it nor
    /// ours is another's, who took over between our look at the claims and now.
    pub fn is_anothers(&mut self, newest: Option<&ClaimId>) -> bool {
        match &self.known {
            None => {
                self.known = Some(newest.into_iter().cloned().collect());
                false
            }
            Some(known) => newest.is_some_and(|claim| !known.contains(claim)),
        }
    }

    pub fn claims(&mut self, claim: ClaimId) {
        self.known.get_or_insert_default().push(claim);
    }

    pub fn run_began(&mut self, now_ms: u64) {
        self.run_began_ms = Some(now_ms);
    }

    /// The delay for a failure now. It doubles from failure to failure, and starts anew after a run that outlasted the longest.
    fn next_delay_ms(&mut self, now_ms: u64) -> u64 {
        let quiet =
            self.run_began_ms.take().is_some_and(|began| now_ms.saturating_sub(began) >= self.restart.max_ms);
        let delay = if quiet { self.restart.initial_ms } else { self.delay_ms };
        self.delay_ms = delay.saturating_mul(2).clamp(1, self.restart.max_ms.max(1));
        delay
    }
}

impl Coordinator {
    /// Something failed: the kind decides. Nothing that is in memory is kept.
    pub(super) fn fail(&mut self, now_ms: u64, failure: Failure, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::BackingOff | Phase::Fenced) {
            // What is being torn down may still complain.
            return;
        }
        if !failure.kind.restartable() {
            return self.end(Outcome::Failed(failure), effects);
        }
        if self.stopping {
            return self.end(Outcome::StoppedWithoutCheckpoint, effects);
        }
        let mut delay = self.recovery.next_delay_ms(now_ms);
        if failure.kind == ErrorKind::Fenced {
            // Whoever fenced us needs a moment until its claim can be seen.
            delay = delay.max(FENCED_PAUSE_MS);
        }
        // A lone failed look at the control topic has no run to tear down, but tearing down twice does no harm.
        effects.push(Effect::TearDown);
        self.enter(Phase::BackingOff, now_ms, Some(delay));
    }

    pub(super) fn backed_off(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.recovery.known.clone() {
            None => self.begin(now_ms, effects),
            Some(known) => {
                self.enter(Phase::Looking, now_ms, Some(self.settings.start_limit_ms()));
                effects.push(Effect::LookForClaims(known));
            }
        }
    }

    /// Claims that follow our own last one: if all of them were aborted, nobody has taken over.
    pub(super) fn claims_after(&mut self, now_ms: u64, claims: &[SeenClaim], effects: &mut Vec<Effect>) {
        if let Some(other) = claims.iter().rev().find(|claim| claim.fate == Fate::Committed) {
            self.fenced_by = Some(other.instance.clone());
            self.enter(Phase::Fenced, now_ms, None);
        } else if claims.iter().any(|claim| claim.fate == Fate::Open) {
            self.enter(Phase::BackingOff, now_ms, Some(LOOK_AGAIN_MS));
        } else {
            self.begin(now_ms, effects);
        }
    }
}
