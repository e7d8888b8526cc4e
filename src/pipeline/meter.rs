//! A worker's figures for `/metrics`: counted without sharing on the hot path, handed over at barriers.

use std::sync::Arc;
use std::time::Duration;

use onceflow_engine::dead_letter::Reason;
use onceflow_engine::worker::WorkerCounts;
use prometheus::{Counter, IntCounter};

use super::context::Context;
use super::worker::{Assigned, WorkerThread};
use crate::metrics::PipelineMetrics;

/// What a worker does with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Processing records.
    Records,
    /// Closing windows and merging what belongs to one.
    Windows,
    /// Its part of a checkpoint: above all, copying out what has changed.
    Checkpoint,
    /// Waiting for records.
    Idle,
    /// Held back by output that waits for the sink.
    BlockedBySink,
    /// Standing at a barrier.
    BlockedByCheckpoint,
}

impl Spent {
    const ALL: [Spent; 6] = [
        Spent::Records,
        Spent::Windows,
        Spent::Checkpoint,
        Spent::Idle,
        Spent::BlockedBySink,
        Spent::BlockedByCheckpoint,
    ];

    /// Values of the labels `state` and `by`.
    fn labels(self) -> [&'static str; 2] {
        match self {
            Spent::Records => ["busy", "records"],
            Spent::Windows => ["busy", "windows"],
            Spent::Checkpoint => ["busy", "checkpoint"],
            Spent::Idle => ["idle", ""],
            Spent::BlockedBySink => ["blocked", "sink"],
            Spent::BlockedByCheckpoint => ["blocked", "checkpoint"],
        }
    }
}

/// What one worker has counted.
pub struct Meter {
    metrics: Arc<PipelineMetrics>,
    partitions: Vec<IntCounter>,
    bytes: IntCounter,
    /// In the order of [`Spent::ALL`].
    spent: [Counter; Spent::ALL.len()],
    /// What was handed over so far.
    reported: WorkerCounts,
    windows_open: i64,
    state_bytes: i64,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.metrics.windows_open.sub(self.windows_open);
        self.metrics.state_bytes.sub(self.state_bytes);
    }
}

impl Meter {
    /// A meter for a worker with these partitions.
    pub fn new(context: &Context, partitions: &[Assigned]) -> Meter {
        let metrics = &context.metrics;
        let counter = |partition: &Assigned| {
            let source = context.plan.sources[partition.source].name.as_str();
            let number = partition.queue.partition().to_string();
            metrics.records_in.with_label_values(&[source, partition.queue.topic(), &number])
        };
        Meter {
            partitions: partitions.iter().map(counter).collect(),
            bytes: metrics.bytes_in.clone(),
            spent: Spent::ALL.map(|spent| metrics.worker_seconds.with_label_values(&spent.labels())),
            reported: WorkerCounts::default(),
            windows_open: 0,
            state_bytes: 0,
            metrics: metrics.clone(),
        }
    }

    /// Records were read from partition `partition` of this worker.
    pub fn records(&self, partition: usize, records: usize, bytes: usize) {
        self.partitions[partition].inc_by(records as u64);
        self.bytes.inc_by(bytes as u64);
    }

    /// Time was spent.
    pub fn spent(&self, how: Spent, time: Duration) {
        self.spent[how as usize].inc_by(time.as_secs_f64());
    }

    /// Hands over what was counted since the last barrier.
    pub fn report(&mut self, thread: &WorkerThread) {
        let (plan, metrics) = (&thread.context.plan, &thread.context.metrics);
        let counts = thread.engine.counts();
        for (i, step) in plan.steps.iter().enumerate() {
            let (now, then) = (&counts.steps[i], self.reported.steps.get(i).copied().unwrap_or_default());
            metrics.records_filtered.with_label_values(&[&step.name]).inc_by(now.filtered - then.filtered);
            metrics.late_records.with_label_values(&[&step.name]).inc_by(now.late - then.late);
            if step.deduplicates() {
                let duplicates = now.duplicates - then.duplicates;
                metrics.duplicates.with_label_values(&[&step.name]).inc_by(duplicates);
            }
            self.report_dropped(thread, &step.name, &now.dropped, &then.dropped);
        }
        for (i, source) in plan.sources.iter().enumerate() {
            let (now, then) = (&counts.sources[i], self.reported.sources.get(i).copied().unwrap_or_default());
            self.report_dropped(thread, &source.name, &now.dropped, &then.dropped);
        }
        for (i, sink) in plan.sinks.iter().enumerate() {
            let (now, then) = (&counts.sinks[i], self.reported.sinks.get(i).copied().unwrap_or_default());
            let records = now.rows_out - then.rows_out;
            metrics.records_out.with_label_values(&[&sink.name]).inc_by(records);
            thread.load.add_sink_records(i, records);
        }
        self.report_time(thread);
        for (i, reason) in Reason::ALL.iter().enumerate() {
            let more = counts.dead_letters[i] - self.reported.dead_letters[i];
            if more > 0 {
                metrics.dead_letters.with_label_values(&[reason.as_str()]).inc_by(more);
            }
        }
        self.reported = counts.clone();
        let windows = (0..thread.engine.windows()).filter_map(|step| thread.engine.open_windows(step).ok());
        let (windows, bytes) = (windows.sum::<u64>() as i64, thread.engine.memory_bytes() as i64);
        // Each worker adds what its own part has changed by.
        metrics.windows_open.add(windows - self.windows_open);
        metrics.state_bytes.add(bytes - self.state_bytes);
        (self.windows_open, self.state_bytes) = (windows, bytes);
    }

    fn report_time(&self, thread: &WorkerThread) {
        let (plan, counts) = (&thread.context.plan, thread.engine.counts());
        let kinds = [
            (
                "source",
                plan.sources.iter().map(|source| &source.name).collect::<Vec<_>>(),
                &counts.sources,
                &self.reported.sources,
            ),
            ("step", plan.steps.iter().map(|step| &step.name).collect(), &counts.steps, &self.reported.steps),
            ("sink", plan.sinks.iter().map(|sink| &sink.name).collect(), &counts.sinks, &self.reported.sinks),
        ];
        for (kind, names, now, then) in kinds {
            for (i, name) in names.into_iter().enumerate() {
                let ns = now[i].ns - then.get(i).map_or(0, |then| then.ns);
                let counter = self.metrics.stage_seconds.with_label_values(&[kind, name]);
                counter.inc_by(Duration::from_nanos(ns).as_secs_f64());
            }
        }
    }

    fn report_dropped(&self, thread: &WorkerThread, stage: &str, now: &[u64], then: &[u64]) {
        for ((now, then), reason) in now.iter().zip(then).zip(Reason::ALL) {
            if now > then {
                let counter =
                    thread.context.metrics.records_dropped.with_label_values(&[stage, reason.as_str()]);
                counter.inc_by(now - then);
            }
        }
    }
}
