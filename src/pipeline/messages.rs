//! What the threads of a run say to each other: one closed set for each receiver.

use std::sync::Arc;

use crossbeam_channel::Sender;
use onceflow_engine::lookup::{Found, Key};
use onceflow_engine::output::Output;
use onceflow_engine::state::window_state::{self, Partials};
use onceflow_engine::worker::barrier::FrozenStep;
use onceflow_protocol::coordinator::{Effect, Event, Failure, Firing};
use onceflow_protocol::{Claim, Decision, Epoch, ErrorKind, Frontiers};
use tokio::sync::mpsc::UnboundedSender;

use super::savepoint::Savepoint;

/// To the driver, from every thread of a run.
pub enum ToDriver {
    /// For the coordinator.
    Event(Event),
    /// The workers have begun; this is how they are reached. Comes before [`Event::WorkersStarted`].
    Workers(Vec<Sender<ToWorker>>),
}

/// To a worker: from the driver, and from the other workers.
pub enum ToWorker {
    /// Stop at a batch boundary and report.
    Barrier,
    /// Hand your part of a window to its owners.
    Fire(Firing),
    /// What has changed at another worker of what is emitted again, or may be a duplicate there.
    Changed {
        /// The worker that it comes from.
        from: usize,
        /// What it has told.
        changed: Arc<window_state::Changed>,
    },
    /// Another worker's part of the window that fires, for the lanes that this one owns.
    Partials {
        /// The worker that it comes from.
        from: usize,
        /// Its part.
        partials: Partials,
    },
    /// Purge, copy out what changed, close the epoch.
    Freeze {
        /// The epoch that ends.
        epoch: Epoch,
        /// New frontiers.
        frontiers: Vec<Frontiers>,
        /// Wait for [`ToWorker::Resume`].
        hold: bool,
    },
    /// Read no further: where each partition stands is its end.
    StopReading,
    /// Go on.
    Resume,
    /// Say what there is of a key; nothing changes by it.
    Find(Question),
    /// Write this pane whole at the next barrier, so that the segments go that hold little else.
    Rewrite {
        /// Number of the step's state.
        state_id: u32,
        /// Start of the pane, milliseconds.
        pane: i64,
    },
}

/// What is asked about a key.
#[derive(Clone, Debug)]
pub struct Question {
    /// The key of each windowed step; none where the step has no such keys.
    pub keys: Arc<Vec<Option<Key>>>,
    /// Where each worker's answer goes.
    pub reply: UnboundedSender<Result<FoundByStep, String>>,
}

/// What a worker has of a key, by windowed step.
pub type FoundByStep = Vec<Option<Found>>;

/// To the thread that owns the producer.
pub enum ToSink {
    /// `init_transactions`, then make a claim.
    InitTransactions,
    /// Commit the claim in a transaction of its own.
    CommitClaim(Box<Claim>),
    /// Commit start offsets.
    CommitStart(Box<Decision>),
    /// Workers begin: open the first transaction.
    Begin,
    /// Output of a worker, in order.
    Output {
        /// Which worker.
        worker: usize,
        /// Records.
        output: Output,
    },
    /// A worker's output of the epoch is complete; what it sends after this belongs to the next.
    Barrier {
        /// Which worker.
        worker: usize,
        /// The epoch.
        epoch: Epoch,
    },
    /// Produce the decision and commit.
    Decide(Box<Decision>),
    /// The commit is confirmed: open the next transaction and let out what was held.
    Release,
}

/// Where the answer to a request for a savepoint goes: what was made, or why nothing was.
pub type SavepointReply = tokio::sync::oneshot::Sender<Result<Savepoint, String>>;

/// To the thread that owns the checkpoint storage and the reader.
pub enum ToKeeper {
    /// An effect of the coordinator.
    Effect(Effect),
    /// Copy a committed snapshot, and tell whoever asked.
    Savepoint {
        /// Name of the savepoint.
        name: String,
        /// What to copy.
        decision: Box<Decision>,
        /// Who asked, if anybody waits.
        reply: Option<SavepointReply>,
    },
    /// A worker's changes at a barrier.
    Frozen {
        /// Which worker.
        worker: usize,
        /// Its changes.
        frozen: Vec<FrozenStep>,
    },
    /// The run is over: note the last commit, then end.
    End,
}

/// Tells the driver about a failure; that nobody listens any more is no failure.
pub fn fail(driver: &DriverSender, kind: ErrorKind, message: impl Into<String>) {
    driver.event(Event::Failed(Failure { kind, message: message.into() }));
}

/// Reaches the driver from one run. What comes from an earlier run, left behind in a call that did not return, is dropped there.
#[derive(Clone)]
pub struct DriverSender {
    run: u64,
    sender: Sender<(u64, ToDriver)>,
}

impl DriverSender {
    /// A sender for the threads of run `run`.
    pub fn new(run: u64, sender: Sender<(u64, ToDriver)>) -> DriverSender {
        DriverSender { run, sender }
    }

    /// Sends an event to the coordinator.
    pub fn event(&self, event: Event) {
        self.send(ToDriver::Event(event));
    }

    /// Sends to the driver; if it has gone, the process is ending.
    pub fn send(&self, message: ToDriver) {
        let _ = self.sender.send((self.run, message));
    }
}
