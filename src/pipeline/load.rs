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
    /// Partitions that have not reached the end of a bounded run, or of a drain.
    pub unfinished: AtomicUsize,
    /// Records that the workers wrote to each sink in the epoch that is being committed.
    sink_records: Vec<AtomicU64>,
}

impl Load {
    /// Counters of a run of a pipeline with so many sinks. Until its workers start, a run is not finished.
    pub fn new(sinks: usize) -> Load {
        let sink_records = (0..sinks).map(|_| AtomicU64::new(0)).collect();
        Load { unfinished: AtomicUsize::new(usize::MAX), sink_records, ..Load::default() }
    }

    /// A worker wrote records to a sink in the epoch that it closes.
    pub fn add_sink_records(&self, sink: usize, records: u64) {
        if let Some(counter) = self.sink_records.get(sink) {
            counter.fetch_add(records, Relaxed);
        }
    }

    /// Records by sink of the epoch that was committed.
    pub fn take_sink_records(&self) -> impl Iterator<Item = u64> {
        self.sink_records.iter().map(|counter| counter.swap(0, Relaxed))
    }

    /// Bytes of output that wait.
    pub fn held(&self) -> usize {
        self.held_bytes.load(Relaxed)
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
