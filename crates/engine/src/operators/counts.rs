//! What a worker has done, in numbers that only grow.

use std::ops::AddAssign;

use crate::dead_letter::Reason;

/// What became of source records. Each is counted once:
/// `records_in = used + filtered + late + dead + dropped`, whatever the pipeline's graph.
///
/// Where a record takes several branches, trouble counts before success: dead, else dropped, else late, else used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Records that were read.
    pub records_in: u64,
    /// Records that entered a window or, without one, were written to a sink.
    pub used: u64,
    /// Records that no `where` let through to a window or a sink, duplicates among them.
    pub filtered: u64,
    /// Records that were too late for all their windows (dead letters or not).
    pub late: u64,
    /// Rows of source records that entered windows although they were too late for some others; counted beside the rest.
    pub partly_late: u64,
    /// Records that went to the dead letter topic or to the errors stream of their source, for a reason other than lateness.
    pub dead: u64,
    /// Records that failed and were dropped, as `on_error: drop` demands, and null values that `tombstones: skip` dropped.
    pub dropped: u64,
    /// Records written to sinks, dead letters not among them.
    pub out: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.records_in += other.records_in;
        self.used += other.used;
        self.filtered += other.filtered;
        self.late += other.late;
        self.partly_late += other.partly_late;
        self.dead += other.dead;
        self.dropped += other.dropped;
        self.out += other.out;
    }
}

/// Rows of one source, step or sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// Rows (of a source: records) that came in.
    pub rows_in: u64,
    /// Rows that `where` or `having` held back.
    pub filtered: u64,
    /// Rows that a deduplication held back.
    pub duplicates: u64,
    /// Rows too late for all their windows.
    pub late: u64,
    /// Rows too late for some of their windows.
    pub partly_late: u64,
    /// Rows that were dropped, by [`Reason`].
    pub dropped: [u64; Reason::ALL.len()],
    /// Rows that went on; of a sink: records written.
    pub rows_out: u64,
    /// Time spent on them, that of later stages not included, nanoseconds; 0 without a clock.
    pub ns: u64,
}

/// Everything that a worker counts, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Of source records, and of what was written.
    pub total: Counts,
    /// By source.
    pub sources: Vec<StageCounts>,
    /// By step.
    pub steps: Vec<StageCounts>,
    /// By sink.
    pub sinks: Vec<StageCounts>,
    /// Dead letters written, by [`Reason`]; those of windows' results too.
    pub dead_letters: [u64; Reason::ALL.len()],
}
