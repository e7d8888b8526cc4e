//! What the coordinator hears and what it asks for: closed sets, one effect ↔ one answer.

use crate::disorder::Disorder;
use crate::error::ErrorKind;
use crate::ids::{ClaimId, Epoch, NextOffset};
use crate::records::{Claim, Counts, Decision, ManifestRef, Position, TopicIdentity};
use crate::time::{Frontiers, Watermark};

use super::firing::{Firing, OpenWindows};
use super::requests::Savepoint;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Begin. Once.
    Start,
    /// Time has passed; also carries how busy the workers are.
    Tick(Load),
    /// End with a final checkpoint (SIGTERM, `stop`).
    Stop,
    /// End where the workers stand: every window closes, as at the end of a bounded run.
    Drain,
    /// End at once, without a checkpoint: what was read since the last one will be read again.
    Abandon,
    /// Take a checkpoint now.
    Trigger,
    /// A source has partitions that this run does not read: finish a checkpoint, then begin a new run, whose start finds them.
    SourcesChanged,
    /// Take a checkpoint now, and keep a copy of it under this name.
    Savepoint(String),
    /// Answer to [`Effect::EnsureControlTopic`].
    ControlTopicReady,
    /// Answer to [`Effect::ReadNewest`]: the newest committed claim and decision.
    Newest {
        /// Newest claim.
        claim: Option<Box<Claim>>,
        /// Newest decision.
        decision: Option<Box<Decision>>,
    },
    /// Answer to [`Effect::ReadSavepoint`]: the savepoint, or why there is none to be read.
    SavepointRead(Result<Savepoint, String>),
    /// Answer to [`Effect::CheckRestorable`]: what stands in the way, if anything does.
    Checked(Result<(), String>),
    /// Answer to [`Effect::ListFiles`].
    Listed(Vec<String>),
    /// Answer to [`Effect::InitTransactions`], with a claim made afresh for this initialisation.
    Initialised(Box<Claim>),
    /// Answer to [`Effect::CommitClaim`].
    ClaimCommitted,
    /// Answer to [`Effect::ReadUntilClaim`]: the committed records in order; the claim asked for is among them.
    ControlRead(Vec<ControlRecord>),
    /// Answer to [`Effect::ReadTraces`].
    Traces(Traces),
    /// Answer to [`Effect::ImportSavepoint`]: where its manifest is now, if it has one; durable.
    Imported(Option<ManifestRef>),
    /// Answer to [`Effect::ResolveStart`].
    StartResolved {
        /// Source and topic of the known positions that no source reads any more.
        let_go: Vec<(String, String)>,
        /// One position for each partition of the sources that had none.
        positions: Vec<Position>,
        /// The topics of all sources.
        topics: Vec<TopicIdentity>,
    },
    /// Answer to [`Effect::CommitStart`].
    StartCommitted,
    /// Answer to [`Effect::Restore`].
    Restored(Box<Restored>),
    /// Answer to [`Effect::StartWorkers`].
    WorkersStarted,
    /// Answer of one worker to [`Effect::Barrier`].
    AtBarrier(BarrierReport),
    /// Answer of one worker to [`Effect::Fire`].
    Fired(FiredReport),
    /// Answer of one worker to [`Effect::Freeze`].
    Frozen(FrozenReport),
    /// Answer to [`Effect::SnapshotCold`].
    ColdSnapshotTaken,
    /// All output of the epoch has been acknowledged by the brokers.
    Flushed(Epoch),
    /// Answer to [`Effect::WriteSnapshot`]: it is durable.
    Durable {
        /// Where, and its hash.
        manifest: ManifestRef,
        /// Every file that the manifest names, its own included.
        files: Vec<String>,
    },
    /// Answer to [`Effect::WriteSnapshot`]: it is not, for now.
    SnapshotFailed(String),
    /// Answer to [`Effect::Decide`]: the transaction is committed.
    Committed(Epoch),
    /// Answer to [`Effect::ListClaims`].
    ClaimsListed(Vec<ClaimId>),
    /// Answer to [`Effect::LookForClaims`].
    ClaimsSeen {
        /// Those up to the newest known one.
        before: Vec<ClaimId>,
        /// Those that follow it.
        after: Vec<SeenClaim>,
    },
    /// An effect, or anything in the run, failed.
    Failed(Failure),
    /// A start that cannot succeed: nothing that restarting could mend.
    Refused(String),
}

/// Why a checkpoint was begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trigger {
    /// The interval has passed.
    #[default]
    Interval,
    /// So many records were read.
    Records,
    /// So much output was written.
    Bytes,
    /// State has outgrown its memory.
    Memory,
    /// Someone asked for it.
    Request,
    /// The last one left windows unfired, as they would have outlasted its transaction.
    Continuation,
    /// The sources have changed, and a new run is to find what was added.
    Renewal,
    /// A bounded run, or a drain, has come to its end.
    End,
    /// The pipeline stops.
    Stop,
}

impl Trigger {
    /// Its name, as operators see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Interval => "interval",
            Trigger::Records => "records",
            Trigger::Bytes => "bytes",
            Trigger::Memory => "memory",
            Trigger::Request => "request",
            Trigger::Continuation => "continuation",
            Trigger::Renewal => "renewal",
            Trigger::End => "end",
            Trigger::Stop => "stop",
        }
    }
}

/// How busy the workers are since the last barrier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Records read.
    pub records: u64,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Whether a worker's state has outgrown its share of the memory budget.
    pub pressure: bool,
    /// Whether every partition has reached the end of a bounded run.
    pub finished: bool,
}

/// A record of the control topic.
#[derive(Clone, Debug, PartialEq)]
pub enum ControlRecord {
    /// Someone took the shard.
    Claim(Claim),
    /// An epoch ended.
    Decision(Box<Decision>),
}

/// What else says that this pipeline has run before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Epoch of the `confirmed` object in the checkpoint storage.
    pub confirmed: Option<Epoch>,
    /// Requests that had been applied by then, according to it.
    pub requests: Vec<String>,
    /// Whether the consumer group has committed offsets.
    pub group_offsets: bool,
}

/// What a restore found in the snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Frontiers of the windowed steps, in the plan's order.
    pub frontiers: Vec<Frontiers>,
    /// Kept snapshots, oldest first, the restored one last; empty where there is none.
    pub kept: Vec<KeptSnapshot>,
}

/// A snapshot that is not to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    /// Its epoch.
    pub epoch: Epoch,
    /// Where it is.
    pub manifest: ManifestRef,
    /// Every file it names, its own included.
    pub files: Vec<String>,
}

/// A worker stands at the barrier.
#[derive(Clone, Debug, PartialEq)]
pub struct BarrierReport {
    /// Which worker.
    pub worker: usize,
    /// Its partitions.
    pub partitions: Vec<PartitionReport>,
    /// For each windowed step, the windows that have something to emit.
    pub windows: Vec<OpenWindows>,
    /// Whether it has state in the cold store, or changed that since the last barrier.
    pub cold: bool,
}

/// One partition at the barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionReport {
    /// Index into the run's positions.
    pub partition: usize,
    /// Position.
    pub next_offset: NextOffset,
    /// Watermark.
    pub watermark: Option<Watermark>,
    /// The disorder that was observed, where the watermark's delay follows it.
    pub disorder: Option<Disorder>,
    /// At its end and silent for long enough not to count.
    pub idle: bool,
    /// At the end of a bounded run.
    pub finished: bool,
}

/// A worker has emitted its share of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct FiredReport {
    /// Which worker.
    pub worker: usize,
    /// Its windows by windowed step, as they are now: the firing may have brought rows to later steps.
    pub windows: Vec<OpenWindows>,
    /// Bytes of output that the firing added.
    pub output_bytes: u64,
}

/// A worker has copied out what changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenReport {
    /// Which worker.
    pub worker: usize,
    /// Its counts since the run began.
    pub counts: Counts,
}

/// A claim in the control topic after our own last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenClaim {
    /// Whose, for people.
    pub instance: String,
    /// What became of its transaction.
    pub fate: Fate,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not decided yet.
    Open,
    /// Committed.
    Committed,
    /// Aborted.
    Aborted,
}

/// Something failed; the kind says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do.
    pub kind: ErrorKind,
    /// What happened, for people.
    pub message: String,
}

/// Something to be done. All but the last group are answered by an [`Event`].
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Create the control topic, or verify it.
    EnsureControlTopic,
    /// List the claims that are there, whatever became of their transactions.
    ListClaims,
    /// Read the newest committed claim and decision, without fencing anyone.
    ReadNewest,
    /// Read what a savepoint of this name says of itself.
    ReadSavepoint(String),
    /// Check that what the decision names is there (manifest, offsets, the same topics), and that the pipeline can go on from it.
    CheckRestorable {
        /// The decision, with the state that would be discarded.
        decision: Box<Decision>,
        /// The savepoint that holds its files; `None` if they are where checkpoints are.
        savepoint: Option<String>,
    },
    /// List the files of the checkpoint storage.
    ListFiles,
    /// `init_transactions`: fences every older instance and ends what it had open.
    InitTransactions,
    /// Commit the claim in a transaction of its own.
    CommitClaim(Box<Claim>),
    /// Read the control partition, committed records only, until this claim arrives.
    ReadUntilClaim(ClaimId),
    /// Look for the `confirmed` object and for group offsets.
    ReadTraces,
    /// Copy a savepoint's files to where checkpoints are, under names that nobody has used before: an older instance may still
    /// delete files by the names that it knows.
    ImportSavepoint {
        /// The savepoint; refused if it is not the same any more.
        savepoint: Savepoint,
        /// The epoch that its restore will be.
        epoch: Epoch,
        /// Names the attempt; unique.
        attempt: String,
        /// The snapshot of the newest decision: it is kept beside the new one, with those that it keeps, as far as it can be read.
        keeps: Option<ManifestRef>,
    },
    /// Turn `start:` into offsets, for the partitions of sources that these positions do not name, and say which of these are of
    /// topics that the sources read no more.
    ResolveStart(Vec<Position>),
    /// Commit start offsets as a decision, before anything is consumed.
    CommitStart(Box<Decision>),
    /// Load what the decision names into new workers.
    Restore(Box<Decision>),
    /// Let the workers begin at these positions.
    StartWorkers(Vec<Position>),
    /// Every worker: stop at a batch boundary and report.
    Barrier,
    /// Every worker: hand this window, or what has changed of it, to its owners, who emit it.
    Fire(Firing),
    /// Every worker: purge, copy out what changed, close the epoch, and go on unless `hold`.
    Freeze {
        /// The epoch that ends.
        epoch: Epoch,
        /// New frontiers of the windowed steps.
        frontiers: Vec<Frontiers>,
        /// Wait for [`Effect::Resume`], so that cold state is not changed while it is snapshotted.
        hold: bool,
    },
    /// Take a snapshot of the cold store; every worker stands still.
    SnapshotCold(Epoch),
    /// Write the snapshot and make it durable.
    WriteSnapshot(Box<SnapshotDraft>),
    /// Produce the decision and commit the transaction.
    Decide(Box<Decision>),
    /// Find all claims, whatever became of their transactions, and what became of those that follow the newest of these.
    LookForClaims(Vec<ClaimId>),

    /// Every worker: take where each partition stands for its end. Not answered.
    StopReading,
    /// Every worker: go on. Not answered.
    Resume,
    /// The commit is confirmed: begin the next transaction and let out the output held since the barrier. Not answered.
    Release,
    /// Note a committed decision in the `confirmed` object and in the group's offsets, as far as that works. Not answered.
    Confirm(Box<Decision>),
    /// Copy the snapshot of this decision, which is committed, to a savepoint of this name. Comes before any of its files is retired.
    /// Not answered.
    MakeSavepoint {
        /// Name of the savepoint.
        name: String,
        /// What it is a copy of.
        decision: Box<Decision>,
    },
    /// Delete these files. Not answered.
    DeleteFiles(Vec<String>),
    /// Throw away producer, consumers, workers and their channels; what is stuck is leaked. Not answered.
    TearDown,
    /// The coordinator has come to its end. Not answered.
    End(Outcome),
}

/// What a snapshot is made of, apart from the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotDraft {
    /// The epoch it ends.
    pub epoch: Epoch,
    /// Names the attempt; unique.
    pub attempt: String,
    /// Positions and watermarks.
    pub positions: Vec<Position>,
    /// Cumulative over the life of the pipeline, the epoch included.
    pub counts: Counts,
    /// Frontiers of the windowed steps.
    pub frontiers: Vec<Frontiers>,
    /// Snapshots that stay beside this one, oldest first.
    pub kept: Vec<KeptSnapshot>,
    /// Topics of the sources.
    pub topics: Vec<TopicIdentity>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A bounded run is complete, or a stop was asked for and everything is committed.
    Done,
    /// A stop was asked for, but the last records could not be committed; they are read again at the next start.
    StoppedWithoutCheckpoint,
    /// It was asked to end at once, and did.
    Abandoned,
    /// It could not go on, and would fail again.
    Failed(Failure),
    /// The start was refused: someone has to look.
    Refused(String),
}
