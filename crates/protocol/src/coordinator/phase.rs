//! The coordinator's phases and which may follow which. This is the only place that says so.

/// Where the coordinator stands. See the drawing in the parent module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the drawing explains them together")]
pub enum Phase {
    New,
    Preflight,
    Listing,
    Fencing,
    Claiming,
    Reading,
    Tracing,
    Importing,
    Resolving,
    CommittingStart,
    Restoring,
    StartingWorkers,
    Running,
    Aligning,
    Firing,
    Freezing,
    SnapshottingCold,
    Preparing,
    Deciding,
    BackingOff,
    Looking,
    Fenced,
    Ended,
}

use Phase::*;

/// The legal transitions, apart from those to [`BackingOff`] (any failure of a run) and [`Ended`] (any phase but itself).
pub const TRANSITIONS: &[(Phase, &[Phase])] = &[
    (New, &[Preflight]),
    (Preflight, &[Preflight, Listing, Fenced]),
    (Listing, &[Fencing]),
    (Fencing, &[Claiming]),
    (Claiming, &[Reading]),
    (Reading, &[Tracing, Fenced]),
    (Tracing, &[Importing, Resolving, Looking]),
    (Importing, &[Resolving, Looking]),
    (Resolving, &[CommittingStart, Restoring, Looking]),
    (CommittingStart, &[Restoring]),
    (Restoring, &[StartingWorkers, Looking]),
    (StartingWorkers, &[Running]),
    (Running, &[Aligning]),
    (Aligning, &[Running, Firing, Freezing]),
    (Firing, &[Firing, Freezing]),
    (Freezing, &[SnapshottingCold, Preparing]),
    (SnapshottingCold, &[Preparing]),
    (Preparing, &[Deciding]),
    (Deciding, &[Running]),
    (BackingOff, &[Looking, Preflight]),
    (Looking, &[BackingOff, Preflight, Fenced]),
];

impl Phase {
    /// Whether `next` may follow.
    pub fn may_become(self, next: Phase) -> bool {
        match next {
            Ended => self != Ended,
            BackingOff => !matches!(self, New | Fenced | Ended | BackingOff),
            _ => TRANSITIONS.iter().any(|(from, to)| *from == self && to.contains(&next)),
        }
    }

    /// Whether workers are at work, so that a checkpoint can be asked of them.
    pub fn has_workers(self) -> bool {
        matches!(self, Running | Aligning | Firing | Freezing | SnapshottingCold | Preparing | Deciding)
    }
}
