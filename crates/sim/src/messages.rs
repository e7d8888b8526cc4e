//! Messages between the actors of one run, as the daemon's threads exchange them.

use std::collections::VecDeque;

use onceflow_protocol::coordinator::{Effect, Event, Failure, Firing};
use onceflow_protocol::{Claim, Decision, Epoch, ErrorKind, Frontiers};

use crate::row::Row;
use crate::task::{Changed, Frozen, Part};
use crate::worker::WorkerThread;

/// To the sink.
#[derive(Clone, Debug)]
pub enum ToSink {
    /// `init_transactions`.
    Init,
    /// Commit a claim.
    Claim(Box<Claim>),
    /// Commit start offsets.
    Start(Box<Decision>),
    /// Output of a worker.
    Output(usize, Vec<Row>),
    /// A worker's output of the epoch is complete.
    Barrier(usize, Epoch),
    /// Produce the decision and commit.
    Decide(Box<Decision>),
    /// Begin the next transaction, let out what was held.
    Release,
}

/// To the keeper.
#[derive(Debug)]
pub enum ToKeeper {
    /// Something to do.
    Effect(Effect),
    /// A worker's changes.
    Frozen(usize, Frozen),
}

/// To a worker.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// Stand still and report.
    Barrier,
    /// Close a window.
    Fire(Firing),
    /// What a worker has changed of the window that is emitted again.
    Changed(usize, Changed),
    /// A worker's part of the window that fires.
    Part(usize, Part),
    /// Purge, copy out, go on unless told to stand.
    Freeze(Epoch, Vec<Frontiers>, bool),
    /// Write a pane whole at the next freeze.
    Rewrite(u32, i64),
    /// Where each partition stands is its end.
    StopReading,
    /// Go on.
    Resume,
}

/// A message under way.
pub enum Mail {
    /// To the driver.
    Driver(Event),
    /// To the sink.
    Sink(ToSink),
    /// To the keeper.
    Keeper(ToKeeper),
    /// To a worker.
    Worker(usize, ToWorker),
    /// The run's workers, from the keeper.
    Workers(Vec<WorkerThread>),
}

impl Mail {
    /// To the driver: a thread's failure.
    pub fn failed(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Driver(Event::Failed(Failure { kind, message: message.into() }))
    }
}

/// Messages in the order in which they were sent.
pub type Outbox = VecDeque<Mail>;
