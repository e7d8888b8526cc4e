//! How busy a run is: counters that workers and the sink write, and the driver reads. Relaxed atomics: each is a figure of its
//! own, and a reading that is a moment old only delays a trigger.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use onceflow_protocol::coordinator;

/// Shared by the threads of one run.
#[derive(Debug, Default)]
pub struct Load {
    /// Set when the run is over: every loop of its threads ends on seeing it.
    pub cancelled: AtomicBool,
    /// Records read since the last barrier.
    pub records: AtomicU64,
    /// Output bytes since the last barrier.
    pub output_bytes: AtomicU64,
    /// Bytes of output handed to the sink and not yet to the producer.
    pub held_bytes: AtomicUsize,
    /// A worker's state has outgrown its share.
    pub pressure: AtomicBool,
    /// Partitions that have not reached the end of a bounded run.
    pub unfinished: AtomicUsize,
}

impl Load {
    /// Counters of a run over `partitions` partitions.
    pub fn new(partitions: usize) -> Load {
        let load = Load::default();
        load.unfinished.store(partitions, Relaxed);
        load
    }

    /// Whether the run is over.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// A reading for the coordinator.
    pub fn read(&self) -> coordinator::Load {
        coordinator::Load {
            records: self.records.load(Relaxed),
            output_bytes: self.output_bytes.load(Relaxed),
            pressure: self.pressure.load(Relaxed),
            finished: self.unfinished.load(Relaxed) == 0,
        }
    }

    /// A barrier: what counts "since the last barrier" starts anew.
    pub fn barrier(&self) {
        self.records.store(0, Relaxed);
        self.output_bytes.store(0, Relaxed);
        self.pressure.store(false, Relaxed);
    }
}
