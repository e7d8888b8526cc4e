//! The one recovery path: throw everything away and start again, but look first whether somebody else has taken over.
//!
//! Without that look, a zombie that resumes and finds its transaction gone would shoot its healthy successor. That holds for giving up,
//! too: whoever manages the process may start it again.

use std::collections::VecDeque;

use crate::error::ErrorKind;
use crate::ids::ClaimId;
use crate::planted::{Planted, is_planted};

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
    /// Exponential: the delay that the next failure costs.
    delay_ms: u64,
    /// Fixed: starts after failures since the last commit.
    attempts: u32,
    /// Failure rate: when the last failures came.
    failures: VecDeque<u64>,
    run_began_ms: Option<u64>,
    /// Every claim that was there when this process began, every claim of its own since, and those in between. A claim that follows
    /// all of them is another's. `None` before the first pre-flight has looked.
    known: Option<Vec<ClaimId>>,
}

impl Recovery {
    pub fn new(restart: Restart) -> Recovery {
        Recovery {
            restart,
            delay_ms: 0,
            attempts: 0,
            failures: VecDeque::new(),
            run_began_ms: None,
            known: None,
        }
    }

    /// Whether the newest claim is another's, who took over between our look at the claims and now.
    pub fn is_anothers(&self, newest: Option<&ClaimId>) -> bool {
        let known = self.known.as_deref().unwrap_or_default();
        newest.is_some_and(|claim| !known.contains(claim)) && !is_planted(Planted::NoLookAtNewestClaim)
    }

    pub fn knows_claims(&self) -> bool {
        self.known.is_some()
    }

    /// These claims, perhaps none, came before ours.
    pub fn looked(&mut self, before: Vec<ClaimId>) {
        self.known.get_or_insert_default();
        before.into_iter().for_each(|claim| self.knows(claim));
    }

    /// A claim that is ours, or came before one that is.
    pub fn knows(&mut self, claim: ClaimId) {
        let known = self.known.get_or_insert_default();
        if !known.contains(&claim) {
            known.push(claim);
        }
    }

    pub fn run_began(&mut self, now_ms: u64) {
        self.run_began_ms = Some(now_ms);
    }

    /// A decision was committed.
    pub fn committed(&mut self) {
        self.attempts = 0;
    }

    /// The delay for a failure now; `None` where the strategy gives up.
    fn next_delay_ms(&mut self, now_ms: u64) -> Option<u64> {
        match self.restart {
            Restart::None => None,
            Restart::Fixed { attempts, delay_ms } => {
                self.attempts = self.attempts.saturating_add(1);
                (self.attempts <= attempts).then_some(delay_ms)
            }
            Restart::Exponential { initial_ms, max_ms } => {
                let began = self.run_began_ms.take();
                let quiet = began.is_some_and(|began| now_ms.saturating_sub(began) >= max_ms);
                let delay = if quiet { initial_ms } else { self.delay_ms.max(initial_ms) };
                self.delay_ms = delay.saturating_mul(2).clamp(1, max_ms.max(1));
                Some(delay)
            }
            Restart::FailureRate { failures, per_ms, delay_ms } => {
                self.failures.push_back(now_ms);
                while self.failures.front().is_some_and(|at| now_ms.saturating_sub(*at) >= per_ms) {
                    self.failures.pop_front();
                }
                (self.failures.len() <= failures as usize).then_some(delay_ms)
            }
        }
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
        // Whoever asked for a savepoint hears that there is none, and may ask again.
        self.savepoints.clear();
        let mut delay = match self.recovery.next_delay_ms(now_ms) {
            Some(delay) => delay,
            None if self.may_give_up_unseen() => {
                let verdict = self.start.verdict.take().unwrap_or(Outcome::Failed(failure));
                return self.end(verdict, effects);
            }
            None => {
                self.start.verdict.get_or_insert_with(|| Outcome::Failed(failure.clone()));
                0
            }
        };
        if failure.kind == ErrorKind::Fenced || self.gives_up_fenced() {
            // Whoever fenced us needs a moment until its claim can be seen.
            delay = delay.max(FENCED_PAUSE_MS);
        }
        // A lone failed look at the control topic has no run to tear down, but tearing down twice does no harm.
        effects.push(Effect::TearDown);
        self.enter(Phase::BackingOff, now_ms, Some(delay));
    }

    /// Whether the checkpoint under way, or the next one, is this run's last because its sources have changed. What ends for good has
    /// no use for more.
    pub(super) fn renews(&self) -> bool {
        self.renewing && !self.stopping && !self.bounded
    }

    /// Everything is committed, and the run ends so that another one finds what has been added to the sources. It ends as one that
    /// failed does, but for the delay: there is one way from a run to the next.
    pub(super) fn renew(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        effects.push(Effect::TearDown);
        self.enter(Phase::BackingOff, now_ms, Some(0));
    }

    /// Whether the end needs no (further) look at the claims: there are none that are known, or the look is what failed. Who was fenced
    /// looks until there is an answer.
    fn may_give_up_unseen(&self) -> bool {
        let looked = self.phase == Phase::Looking && self.start.verdict.is_some();
        !self.recovery.knows_claims() || (looked && !self.gives_up_fenced())
    }

    fn gives_up_fenced(&self) -> bool {
        matches!(&self.start.verdict, Some(Outcome::Failed(failure)) if failure.kind == ErrorKind::Fenced)
    }

    /// Whether the restart strategy has given up, and the end waits only for a look at the claims.
    pub fn gives_up(&self) -> bool {
        matches!(self.start.verdict, Some(Outcome::Failed(_)))
    }

    /// A start that cannot succeed. After the claim it may look like that because a successor has gone on and tidied up: then it is
    /// fenced, and nobody has to come and look.
    pub(super) fn refuse(&mut self, now_ms: u64, reason: String, effects: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Tracing | Phase::Importing | Phase::Resolving | Phase::Restoring) {
            return self.end(Outcome::Refused(reason), effects);
        }
        self.start.verdict = Some(Outcome::Refused(reason));
        effects.push(Effect::TearDown);
        self.look(now_ms, effects);
    }

    fn look(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.enter(Phase::Looking, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::LookForClaims(self.recovery.known.clone().unwrap_or_default()));
    }

    pub(super) fn backed_off(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.recovery.knows_claims() && !is_planted(Planted::NoLookAtNewestClaim) {
            true => self.look(now_ms, effects),
            false => self.begin(now_ms, effects),
        }
    }

    /// If all claims that follow our own last one were aborted, nobody has taken over.
    pub(super) fn claims_seen(
        &mut self,
        now_ms: u64,
        before: Vec<ClaimId>,
        after: &[SeenClaim],
        effects: &mut Vec<Effect>,
    ) {
        self.recovery.looked(before);
        if let Some(other) = after.iter().rev().find(|claim| claim.fate == Fate::Committed) {
            self.fenced_by = Some(other.instance.clone());
            self.enter(Phase::Fenced, now_ms, None);
        } else if after.iter().any(|claim| claim.fate == Fate::Open) {
            self.enter(Phase::BackingOff, now_ms, Some(LOOK_AGAIN_MS));
        } else if let Some(verdict) = self.start.verdict.take() {
            self.end(verdict, effects);
        } else {
            self.begin(now_ms, effects);
        }
    }
}
