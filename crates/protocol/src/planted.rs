//! Faults that are planted on purpose, so that the simulator can show that it would find them.
//!
//! Without the feature `planted-faults` nothing of this is compiled in: [`is_planted`] is the constant `false`. With it, a thread may
//! turn one fault on at a time.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Planted {
    /// The decision is produced after the transaction's end, outside of it.
    DecisionOutsideTransaction,
    /// What to restore is read before the claim, so that a predecessor may still decide.
    StoreReadBeforeClaim,
    /// A commit whose outcome is unknown is taken as committed.
    UnknownTakenAsCommitted,
    /// A commit whose outcome is unknown is taken as aborted: the run before it is repeated.
    UnknownTakenAsAborted,
    /// After a restart the frontiers begin anew.
    FrontierNotRestored,
    /// A window fires as soon as the watermark passes it, between barriers.
    FiredBetweenBarriers,
    /// A process uses one claim id for every initialisation.
    ClaimIdUsedTwice,
    /// A restart does not look whether somebody else has claimed.
    NoLookAtNewestClaim,
    /// Orphans are looked for when they are deleted, not before fencing.
    OrphansWithoutList,
    /// A partition counts as idle although its end was not reached.
    IdleBeforeTheEnd,
    /// Rows of the next epoch get into a snapshot.
    NextEpochInSnapshot,
    /// Workers go on before the cold store is snapshotted.
    NoHoldForColdState,
    /// An eviction replaces the pane's older runs instead of adding to them.
    OlderGenerationLost,
    /// A file is deleted although a kept snapshot names it.
    LiveSegmentDropped,
    /// The client refuses to take the decision, and nobody notices.
    RefusedDecisionIgnored,
    /// The start offsets are not committed before reading.
    StartResolvedTwice,
    /// An eviction in the middle of an epoch forgets the rows that it moved.
    RowsLostByEviction,
    /// An eviction in the middle of an epoch leaves the rows that it moved in the segments, too.
    RowsDoubledByEviction,
    /// A restore at another parallelism leaves the old extents alive.
    OldExtentsKept,
    /// A file is reported durable before it is.
    DurableBeforeFsync,
    /// What the command line asks of a start is applied although a decision says that it was.
    RequestAppliedTwice,
    /// A decision forgets which state it discards, and the snapshot that it names still holds it.
    DiscardForgotten,
    /// A savepoint is restored in place: its files keep the names that an older instance may still delete.
    SavepointInPlace,
    /// A pass of windows that is cut short leaves what has changed of others for the next epoch, whose barrier no longer knows of it.
    CorrectionsPutOff,
    /// An eviction forgets what has changed of a window that is emitted again.
    ChangesLostByEviction,
    /// A session ends with the pane that it is in.
    SessionCutAtPane,
    /// The row of a session that goes on does not get into the snapshot.
    SessionMovedUnwritten,
    /// Rows that were evicted of the panes behind a session are not looked at.
    SessionBlindToRuns,
    /// A worker looks for duplicates only among what it remembers itself.
    DuplicateBlindToOthers,
    /// What was evicted of what is remembered of rows is not looked at.
    DuplicateBlindToRuns,
    /// What is remembered of a row does not get into the snapshot.
    DuplicateUnwritten,
    /// What panes were added up to stays as it is when one of them changes.
    SumsKept,
}

impl Planted {
    /// All of them.
    pub const ALL: &[Planted] = &[
        Planted::DecisionOutsideTransaction,
        Planted::StoreReadBeforeClaim,
        Planted::UnknownTakenAsCommitted,
        Planted::UnknownTakenAsAborted,
        Planted::FrontierNotRestored,
        Planted::FiredBetweenBarriers,
        Planted::ClaimIdUsedTwice,
        Planted::NoLookAtNewestClaim,
        Planted::OrphansWithoutList,
        Planted::IdleBeforeTheEnd,
        Planted::NextEpochInSnapshot,
        Planted::NoHoldForColdState,
        Planted::OlderGenerationLost,
        Planted::LiveSegmentDropped,
        Planted::RefusedDecisionIgnored,
        Planted::StartResolvedTwice,
        Planted::RowsLostByEviction,
        Planted::RowsDoubledByEviction,
        Planted::OldExtentsKept,
        Planted::DurableBeforeFsync,
        Planted::RequestAppliedTwice,
        Planted::DiscardForgotten,
        Planted::SavepointInPlace,
        Planted::CorrectionsPutOff,
        Planted::ChangesLostByEviction,
        Planted::SessionCutAtPane,
        Planted::SessionMovedUnwritten,
        Planted::SessionBlindToRuns,
        Planted::DuplicateBlindToOthers,
        Planted::DuplicateBlindToRuns,
        Planted::DuplicateUnwritten,
        Planted::SumsKept,
    ];
}

/// Whether the fault is turned on in this thread.
#[cfg(not(feature = "planted-faults"))]
#[inline(always)]
pub const fn is_planted(_: Planted) -> bool {
    false
}

#[cfg(feature = "planted-faults")]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static ON: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether the fault is turned on in this thread.
    pub fn is_planted(fault: Planted) -> bool {
        ON.get() == Some(fault)
    }

    /// Turns one fault on in this thread, or all off.
    pub fn plant(fault: Option<Planted>) {
        ON.set(fault);
    }
}

#[cfg(feature = "planted-faults")]
pub use switch::{is_planted, plant};
