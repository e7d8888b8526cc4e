//! What the coordinator is told once.

use crate::records::Decision;

use super::firing::WindowedStep;
use super::requests::Requests;

/// Settings of one pipeline instance.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `{namespace}.{pipeline}.{shard}`: the one id of the shard, for ever.
    pub transactional_id: String,
    /// Names of the sources, in the plan's order.
    pub sources: Vec<String>,
    /// Sources that had another name, under which a decision may still know their positions: before, now.
    pub renamed: Vec<(String, String)>,
    /// Windowed steps, in the plan's order.
    pub steps: Vec<WindowedStep>,
    /// Worker threads.
    pub workers: usize,
    /// Time between triggers, milliseconds.
    pub interval_ms: u64,
    /// Least time between the end of a checkpoint and the next trigger, milliseconds.
    pub min_pause_ms: u64,
    /// Records that trigger a barrier.
    pub max_records: u64,
    /// Output bytes that trigger a barrier, and after which a firing pass stops until the next epoch.
    pub max_bytes: u64,
    /// Longest time from a barrier to the commit, milliseconds, for each attempt at a snapshot.
    pub timeout_ms: u64,
    /// How often writing one snapshot may fail before the epoch is given up.
    pub tolerable_failures: u32,
    /// Snapshots kept, at least 2: the newest, and the one that a start would restore while the newest commit is not visible yet.
    pub retained: usize,
    /// Whether to end once every partition has reached its end.
    pub until_end: bool,
    /// What follows a failure.
    pub restart: Restart,
    /// What the command line asks of a start, once.
    pub requests: Requests,
}

impl Settings {
    /// A transaction must outlast an interval (or a longer pause) and every attempt at its checkpoint; milliseconds.
    pub fn transaction_timeout_ms(&self) -> u64 {
        self.interval_ms.max(self.min_pause_ms) + self.checkpoint_limit_ms() + 30_000
    }

    /// Whether there is any state to snapshot.
    pub fn stateful(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Offsets belong to a source's name: what a decision knows under a former name goes on under the one of now, unless that is known
    /// already.
    pub(super) fn rename_sources(&self, decision: &mut Decision) {
        for (before, now) in &self.renamed {
            if decision.positions.iter().any(|at| at.source == *now) {
                continue;
            }
            let positions = decision.positions.iter_mut().map(|at| &mut at.source);
            let topics = decision.topics.iter_mut().map(|topic| &mut topic.source);
            for name in positions.chain(topics).filter(|name| *name == before) {
                name.clone_from(now);
            }
        }
    }

    pub(super) fn checkpoint_limit_ms(&self) -> u64 {
        self.timeout_ms * (1 + u64::from(self.tolerable_failures))
    }

    /// For a step of the start. Longer than a transaction: an older instance's may have to time out first.
    pub(super) fn start_limit_ms(&self) -> u64 {
        self.transaction_timeout_ms() + 60_000
    }
}

/// Which failures are followed by another start, and after which delay. Those that would repeat never are, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// None is.
    None,
    /// So many in a row, counted anew from each commit on.
    Fixed {
        /// Starts after failures, without a commit in between.
        attempts: u32,
        /// Before each of them, milliseconds.
        delay_ms: u64,
    },
    /// Every one. The delay doubles from failure to failure, and starts anew after a run that outlasted the longest.
    Exponential {
        /// First delay, milliseconds.
        initial_ms: u64,
        /// Longest delay, milliseconds.
        max_ms: u64,
    },
    /// As long as there are not more than so many within a time.
    FailureRate {
        /// Failures that are tolerated within `per_ms`.
        failures: u32,
        /// Length of the time looked back on, milliseconds.
        per_ms: u64,
        /// Before each start, milliseconds.
        delay_ms: u64,
    },
}
