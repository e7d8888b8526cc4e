//! What can be asked of a running pipeline from outside, and who waits for an answer.

use tokio::sync::oneshot;

use super::history::CheckpointRecord;
use super::messages::{Question, SavepointReply};

/// Asks of the pipeline from outside.
#[derive(Debug)]
pub enum Request {
    /// Final checkpoint, then end.
    Stop,
    /// Read no further, close all windows, commit, then end.
    Drain,
    /// End at once: what was read since the last checkpoint will be read again.
    Abandon,
    /// Take a checkpoint now, and say what became of it.
    Checkpoint(oneshot::Sender<Answer>),
    /// Take a checkpoint, and keep a copy of it.
    Savepoint {
        /// Name of the copy.
        name: String,
        /// Dropped, without an answer, if the run fails or ends before.
        reply: SavepointReply,
    },
    /// Ask the workers about a key. Dropped, without an answer, while there are none.
    Find(Question),
}

/// What became of a checkpoint that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is committed.
    Completed(Box<CheckpointRecord>),
    /// Nothing has changed since the newest one, which ended this epoch.
    Unchanged(u64),
    /// It is not committed, as far as is known.
    Failed(String),
    /// The pipeline does not run.
    NotRunning,
}

/// Who waits for a checkpoint. One that is under way does not answer those that asked after its barrier.
#[derive(Debug, Default)]
pub struct Waiters {
    asked: Vec<oneshot::Sender<Answer>>,
    under_way: Vec<oneshot::Sender<Answer>>,
}

impl Waiters {
    /// Someone asks.
    pub fn asks(&mut self, waiter: oneshot::Sender<Answer>) {
        self.asked.push(waiter);
    }

    /// A barrier was asked for: its checkpoint is theirs.
    pub fn begins(&mut self) {
        self.under_way.append(&mut self.asked);
    }

    /// Whether anyone waits for the checkpoint under way.
    pub fn wait(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether nobody waits for any.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.under_way.is_empty()
    }

    /// The checkpoint under way has ended.
    pub fn answers(&mut self, answer: &Answer) {
        for waiter in self.under_way.drain(..) {
            // One that has gone away needs no answer.
            let _ = waiter.send(answer.clone());
        }
    }

    /// The run is over, and with it the checkpoint under way and those that did not begin.
    pub fn give_up(&mut self, reason: &str) {
        self.begins();
        self.answers(&Answer::Failed(reason.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_answers_those_that_asked_before_its_barrier() {
        let mut waiters = Waiters::default();
        let (early, mut early_answer) = oneshot::channel();
        let (late, mut late_answer) = oneshot::channel();
        waiters.asks(early);
        waiters.begins();
        waiters.asks(late);
        assert!(waiters.wait());
        waiters.answers(&Answer::Unchanged(7));
        assert_eq!(early_answer.try_recv(), Ok(Answer::Unchanged(7)));
        assert!(late_answer.try_recv().is_err() && !waiters.wait());
        waiters.give_up("the broker is gone");
        assert_eq!(late_answer.try_recv(), Ok(Answer::Failed("the broker is gone".to_owned())));
    }
}
