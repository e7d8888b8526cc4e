//! What the command line asks of a start: to go on from a savepoint, to discard a step's state. Each is a decision like any other,
//! made once: the start's decision carries the request's id, and every later decision carries it on. So a service manager may repeat
//! the command line for ever, and of two instances that were started with it only one applies it.
//!
//! An id holds what was asked for: a savepoint's name and hash (another savepoint of the same name is another request) or a step's
//! name, and a number, so that somebody who really wants it again can say so.

use crate::planted::{Planted, is_planted};
use crate::records::{Counts, Decision};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Go on from the savepoint of this name.
    pub savepoint: Option<String>,
    /// Discard the state of these steps.
    pub discard: Vec<String>,
    /// How often this was asked for, counting from 1: a request with another number is another one.
    pub again: u32,
    /// Whether a savepoint may lie behind committed output, which then comes again.
    pub accept_repeats: bool,
}

impl Default for Requests {
    fn default() -> Requests {
        Requests { savepoint: None, discard: vec![], again: 1, accept_repeats: false }
    }
}

/// What a savepoint says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Savepoint {
    /// Its name.
    pub name: String,
    /// Hash of what it says.
    pub hash: String,
    /// The decision whose snapshot it is a copy of.
    pub decision: Box<Decision>,
}

/// What a start goes on from.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// The newest decision, or a savepoint's, with everything that it is to discard; `None` at a first start.
    pub decision: Option<Decision>,
    /// The savepoint, if it is one.
    pub savepoint: Option<Savepoint>,
    /// Ids of the requests that this start applies.
    pub applies: Vec<String>,
}

impl Requests {
    /// Whether anything is asked for.
    pub fn asks(&self) -> bool {
        self.savepoint.is_some() || !self.discard.is_empty()
    }

    /// What to go on from, where `newest` is the newest decision, `confirmed` holds the requests that the `confirmed` object knows,
    /// and `found` is the savepoint asked for, if that is still there.
    ///
    /// # Errors
    /// Says why this must not be, or not without a word more.
    pub(super) fn target(
        &self,
        newest: Option<&Decision>,
        confirmed: &[String],
        found: Option<&Savepoint>,
    ) -> Result<Target, String> {
        // Decisions that are lost may have applied more: a command line that stands in a service's file must not undo that unasked.
        let mut applied = newest.map_or(vec![], |newest| newest.requests.clone());
        applied.extend(confirmed.iter().filter(|id| !applied.contains(id)).cloned().collect::<Vec<_>>());
        let is_new = |id: &String| !applied.contains(id) || is_planted(Planted::RequestAppliedTwice);
        let mut target = Target { decision: newest.cloned(), ..Target::default() };
        if let Some(savepoint) = found {
            let id = format!("savepoint:{}:{}:{}", savepoint.name, savepoint.hash, self.again);
            if is_new(&id) {
                self.may_go_back(newest, savepoint)?;
                target.decision =
                    Some(Decision { requests: applied.clone(), ..(*savepoint.decision).clone() });
                target.savepoint = Some(savepoint.clone());
                target.applies.push(id);
            }
        }
        for step in &self.discard {
            let id = format!("discard-state:{step}:{}", self.again);
            if is_new(&id) && !target.applies.contains(&id) {
                if let Some(decision) = &mut target.decision
                    && !decision.discarded.contains(step)
                {
                    decision.discarded.push(step.clone());
                }
                target.applies.push(id);
            }
        }
        Ok(target)
    }

    /// Whether this savepoint was applied according to `newest`, whatever its hash: it may have been deleted since.
    pub(super) fn was_applied(&self, name: &str, newest: Option<&Decision>) -> bool {
        let (begin, end) = (format!("savepoint:{name}:"), format!(":{}", self.again));
        let requests = newest.map_or(&[][..], |newest| &newest.requests);
        requests.iter().any(|id| id.starts_with(&begin) && id.ends_with(&end))
    }

    /// Output that was committed after a savepoint comes again when it is restored.
    fn may_go_back(&self, newest: Option<&Decision>, savepoint: &Savepoint) -> Result<(), String> {
        let Some(newest) =
            newest.filter(|newest| !self.accept_repeats && repeats(newest, &savepoint.decision))
        else {
            return Ok(());
        };
        Err(format!(
            "savepoint `{}` is of epoch {}, the newest decision of epoch {}: what was committed in between would come again \
             ({} records to sinks and {} dead letters by now, {} and {} then); add `--accept-repeats` if that is wanted",
            savepoint.name,
            savepoint.decision.epoch,
            newest.epoch,
            newest.counts.out,
            newest.counts.dead + newest.counts.late,
            savepoint.decision.counts.out,
            savepoint.decision.counts.dead + savepoint.decision.counts.late,
        ))
    }
}

/// Whether going from `newest` back to `then` repeats output. Only where no request came in between do the counts continue each other.
fn repeats(newest: &Decision, then: &Decision) -> bool {
    let output = |counts: Counts| (counts.out, counts.dead, counts.late);
    newest.requests != then.requests || output(newest.counts) != output(then.counts)
}
