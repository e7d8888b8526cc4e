//! The story of a pipeline in logs, in metrics and for the API: a line for each start, commit and recovery. It watches what the
//! coordinator hears and never acts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceflow_engine::plan::Source;
use onceflow_protocol::coordinator::{
    BarrierReport, Coordinator, Effect, Emit, Event, Outcome, Phase, TimeInput,
};
use onceflow_protocol::{Counts, ErrorKind, Position};

use super::checkpoint_timer::CheckpointTimer;
use super::context::{Context, wall_clock_ms};
use super::load::Load;
use super::view::OpenStep;

/// What is remembered between two events, to tell how long things took.
pub struct Story {
    context: Arc<Context>,
    /// When the newest run began.
    run_began: Instant,
    barrier: Instant,
    fired: Instant,
    frozen: Instant,
    prepared: Instant,
    in_transaction_since: Option<Instant>,
    runs: u64,
    heard: Heard,
    timer: CheckpointTimer,
    /// Counts of the newest commit.
    counts: Counts,
    at_barrier: AtBarrier,
    /// Ends of the windows that are next to fire, by worker and windowed step.
    next_ends: Vec<Vec<Option<i64>>>,
    /// Whether this run has said that a partition holds all windows back.
    said_who_holds: bool,
}

/// What the workers that have come to the barrier reported of their active partitions.
#[derive(Default)]
struct AtBarrier {
    reports: usize,
    /// The smallest watermark, milliseconds.
    slowest: Option<i64>,
    /// Place of a position that has no watermark, since its partition has had no record yet.
    unknown: Option<usize>,
}

/// A partition that holds all windows back for so long is worth a line in the log.
const HOLDS_FOR_LONG: Duration = Duration::from_secs(60);

/// The newest event, as far as it may be why the coordinator gives a run up.
enum Heard {
    /// A failure that was told when it came.
    Failure,
    /// That time has passed.
    Time,
    /// A snapshot that could not be written, and why.
    NoSnapshot(String),
    /// An answer.
    Answer,
}

impl Story {
    /// Before the first event.
    pub fn new(context: &Arc<Context>) -> Story {
        let now = Instant::now();
        Story {
            context: context.clone(),
            run_began: now,
            barrier: now,
            fired: now,
            frozen: now,
            prepared: now,
            in_transaction_since: None,
            runs: 0,
            heard: Heard::Answer,
            timer: CheckpointTimer::new(),
            counts: Counts::default(),
            at_barrier: AtBarrier::default(),
            next_ends: vec![],
            said_who_holds: false,
        }
    }

    /// An event is about to reach the coordinator.
    pub fn hears(&mut self, event: &Event, coordinator: &Coordinator) {
        self.heard = match event {
            Event::Failed(_) => Heard::Failure,
            Event::Tick(_) => Heard::Time,
            Event::SnapshotFailed(reason) => Heard::NoSnapshot(reason.clone()),
            _ => Heard::Answer,
        };
        let pipeline = self.context.plan.pipeline.as_str();
        match event {
            Event::Failed(failure) if !matches!(coordinator.phase(), Phase::BackingOff | Phase::Fenced) => {
                self.failed(failure.kind, coordinator.phase(), &failure.message);
            }
            Event::SnapshotFailed(reason) => {
                tracing::warn!(pipeline, reason, "the snapshot could not be written")
            }
            Event::Initialised(claim) => {
                tracing::info!(pipeline, claim = %claim.claim, "older instances are fenced")
            }
            Event::AtBarrier(report) => self.at_barrier(report, coordinator),
            Event::Fired(report) => {
                self.is_open(report.worker, report.windows.iter().map(|windows| windows.next_end));
            }
            Event::Durable { manifest, .. } => {
                // The keeper set these before it said so.
                let (written, full) = (
                    self.context.metrics.checkpoint_written_bytes.get(),
                    self.context.metrics.checkpoint_full_bytes.get(),
                );
                self.timer.durable(&manifest.file, written as u64, full as u64);
            }
            _ => {}
        }
    }

    fn failed(&mut self, kind: ErrorKind, phase: Phase, reason: &str) {
        let pipeline = self.context.plan.pipeline.as_str();
        tracing::warn!(pipeline, %kind, ?phase, reason, "this run has failed");
        self.context.view.failed(kind.as_str(), reason);
        if let Some(record) = self.timer.failed(reason) {
            self.context.history.add(record);
        }
        self.context.metrics.restarts.with_label_values(&[kind.as_str()]).inc();
        if phase.has_workers() {
            self.context.metrics.checkpoints.with_label_values(&["failed"]).inc();
            self.context.metrics.transactions.with_label_values(&["abandoned"]).inc();
        }
    }

    /// The coordinator has asked for something.
    pub fn asks(&mut self, effect: &Effect, load: Option<&Load>) {
        let metrics = &self.context.metrics;
        let pipeline = self.context.plan.pipeline.as_str();
        let took = |phase: &str, since: Instant| {
            let took = since.elapsed();
            metrics.checkpoint_duration_seconds.with_label_values(&[phase]).observe(took.as_secs_f64());
        };
        match effect {
            Effect::EnsureControlTopic => {
                self.runs += 1;
                self.run_began = Instant::now();
                self.said_who_holds = false;
                tracing::info!(pipeline, run = self.runs, "starting");
            }
            Effect::CommitStart(decision) => {
                tracing::info!(pipeline, epoch = %decision.epoch, "committing start offsets, before anything is read")
            }
            Effect::Restore(decision) => {
                let file = decision.manifest.as_ref().map_or("none", |manifest| manifest.file.as_str());
                tracing::info!(pipeline, epoch = %decision.epoch, snapshot = file, "restoring");
            }
            Effect::DeleteFiles(files) => {
                tracing::debug!(pipeline, files = files.len(), "deleting files no longer named")
            }
            Effect::Barrier => {
                self.barrier = Instant::now();
                self.at_barrier = AtBarrier::default();
            }
            Effect::Freeze { .. } => {
                took("fire", self.barrier);
                self.fired = Instant::now();
            }
            Effect::WriteSnapshot(_) => {
                took("freeze", self.fired);
                self.frozen = Instant::now();
            }
            Effect::Decide(_) => {
                took("prepare", self.fired);
                self.prepared = Instant::now();
            }
            Effect::Confirm(decision) => {
                if self.in_transaction_since.is_none() {
                    return;
                }
                took("commit", self.prepared);
                took("total", self.barrier);
                if let Some(record) = self.timer.committed(decision, self.counts) {
                    self.context.history.add(record);
                }
                self.counts = decision.counts;
                self.context.view.committed(decision, true);
                metrics.checkpoints.with_label_values(&["completed"]).inc();
                metrics.transactions.with_label_values(&["committed"]).inc();
                metrics.checkpoint_last_success_timestamp_seconds.set(wall_clock_ms() as f64 / 1000.0);
                if let Some(load) = load {
                    for (sink, records) in self.context.plan.sinks.iter().zip(load.take_sink_records()) {
                        metrics.records_committed.with_label_values(&[&sink.name]).inc_by(records);
                    }
                }
                tracing::debug!(
                    pipeline,
                    epoch = %decision.epoch,
                    ms = self.barrier.elapsed().as_millis() as u64,
                    records_in = decision.counts.read,
                    records_out = decision.counts.out,
                    "committed"
                );
            }
            Effect::Release => self.in_transaction_since = Some(Instant::now()),
            Effect::LookForClaims(_) => {
                tracing::info!(pipeline, "looking whether another instance has taken over")
            }
            Effect::TearDown => self.in_transaction_since = None,
            _ => {}
        }
    }

    /// The coordinator has entered another phase.
    pub fn entered(&mut self, phase: Phase, before: Phase, coordinator: &Coordinator) {
        self.timer.entered(phase, before, coordinator);
        let context = self.context.clone();
        let pipeline = context.plan.pipeline.as_str();
        if phase == Phase::Running {
            let steps = context.windowed.iter().map(|step| context.plan.steps[*step].name.as_str());
            context.view.steps(steps.zip(coordinator.frontiers().iter().copied()));
        }
        match phase {
            Phase::Running if before == Phase::StartingWorkers => {
                let took = self.run_began.elapsed();
                self.in_transaction_since = Some(Instant::now());
                self.context.metrics.recovery_duration_seconds.set(took.as_secs_f64());
                if let Some(decision) = coordinator.committed() {
                    self.counts = decision.counts;
                    context.view.committed(decision, false);
                }
                context.view.running();
                let epoch = coordinator.committed().map(|decision| decision.epoch.0);
                tracing::info!(pipeline, epoch, ms = took.as_millis() as u64, "running");
            }
            Phase::Fenced => {
                let by = coordinator.fenced_by().unwrap_or("another instance");
                context.view.fenced(by);
                tracing::error!(
                    pipeline,
                    by,
                    "fenced: another instance has taken over; staying up, doing nothing"
                );
            }
            Phase::BackingOff => {
                match std::mem::replace(&mut self.heard, Heard::Answer) {
                    Heard::Failure => {}
                    Heard::Time => {
                        self.failed(ErrorKind::EpochFailed, before, "it took longer than its time limit")
                    }
                    Heard::NoSnapshot(reason) => self.failed(ErrorKind::EpochFailed, before, &reason),
                    // Another's claim is undecided: nothing has failed, it looks again.
                    Heard::Answer if before == Phase::Looking => {}
                    Heard::Answer if before.has_workers() => {
                        let why = "the sources have changed: everything is committed, and a new run finds what was added";
                        tracing::info!(pipeline, "{why}");
                        return;
                    }
                    Heard::Answer => {
                        self.failed(ErrorKind::Retry, before, "it did not find what was just committed")
                    }
                }
                if coordinator.gives_up() {
                    tracing::warn!(pipeline, "the restart strategy gives up");
                } else if before != Phase::Looking {
                    context.view.restarts();
                    tracing::info!(
                        pipeline,
                        "everything of this run is thrown away; starting again after a pause"
                    );
                }
            }
            _ => {}
        }
    }

    /// Time has passed.
    pub fn ticks(&self, load: Option<&Load>) {
        let open = self.in_transaction_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        self.context.metrics.transaction_open_seconds.set(open);
        if let Some(load) = load {
            self.context.metrics.output_buffer_bytes.set(load.held() as i64);
        }
    }

    /// It is over.
    pub fn ended(&mut self, outcome: &Outcome) {
        self.context.view.ended();
        if let Some(record) = self.timer.failed("the pipeline ended before it was committed") {
            self.context.history.add(record);
        }
        let pipeline = self.context.plan.pipeline.as_str();
        match outcome {
            Outcome::Done => tracing::info!(pipeline, "ended; everything that was read is committed"),
            Outcome::StoppedWithoutCheckpoint => {
                tracing::warn!(
                    pipeline,
                    "stopped without a final checkpoint; the last records will be read again"
                )
            }
            Outcome::Abandoned => {
                tracing::warn!(
                    pipeline,
                    "abandoned, as asked; what was read since the last checkpoint will be read again"
                )
            }
            Outcome::Failed(failure) => {
                let why = match failure.kind.restartable() {
                    true => "its restart strategy gives up",
                    false => "a restart would fail again",
                };
                tracing::error!(pipeline, kind = %failure.kind, reason = failure.message, "failed; {why}")
            }
            Outcome::Refused(reason) => tracing::error!(pipeline, reason, "refused to start"),
        }
    }

    /// A worker tells the ends of the windows that are next to fire, by windowed step.
    fn is_open(&mut self, worker: usize, next_ends: impl Iterator<Item = Option<i64>>) {
        let context = &self.context;
        self.next_ends.resize_with(context.settings.workers, Vec::new);
        self.next_ends[worker] = next_ends.collect();
        let step = |number: usize| &context.plan.steps[context.windowed[number]];
        let open = context.settings.steps.iter().enumerate().map(|(number, rules)| {
            let of_worker = |ends: &Vec<Option<i64>>| ends.get(number).copied().flatten();
            let next_end_ms = self.next_ends.iter().filter_map(of_worker).min();
            // Without windows nothing waits for an end.
            let next_end_ms = next_end_ms.filter(|_| rules.emit != Emit::Running);
            let after_ms = if rules.emit == Emit::Updates { 0 } else { rules.lateness_ms };
            let (mut sources, mut steps) = (vec![], vec![]);
            for input in &rules.inputs {
                match input {
                    TimeInput::Source(source) => sources.push(context.plan.sources[*source].name.clone()),
                    TimeInput::Step(earlier) => steps.push(step(*earlier).name.clone()),
                }
            }
            let fires_at_ms = next_end_ms.map(|end| end.saturating_add(after_ms));
            OpenStep { name: &step(number).name, next_end_ms, fires_at_ms, sources, steps }
        });
        context.view.open(open);
    }

    fn at_barrier(&mut self, report: &BarrierReport, coordinator: &Coordinator) {
        self.is_open(report.worker, report.windows.iter().map(|windows| windows.next_end));
        let metrics = &self.context.metrics;
        let at = &mut self.at_barrier;
        for partition in &report.partitions {
            let Some(position) = coordinator.positions().get(partition.partition) else { continue };
            let labels = [&position.source, &position.topic, &position.partition.to_string()];
            metrics.partition_idle.with_label_values(&labels).set(i64::from(partition.idle));
            let now = Position {
                next_offset: partition.next_offset,
                watermark: partition.watermark,
                disorder: None,
                ..position.clone()
            };
            self.context.view.at_barrier(partition.partition, &now, partition.idle);
            let watermark = partition.watermark.map(|watermark| watermark.0);
            if let Some(watermark) = watermark {
                let seconds = watermark as f64 / 1000.0;
                metrics.watermark_timestamp_seconds.with_label_values(&labels).set(seconds);
            }
            match watermark {
                _ if partition.idle || partition.finished => {}
                Some(watermark) => {
                    at.slowest = Some(at.slowest.map_or(watermark, |slowest| slowest.min(watermark)))
                }
                None => at.unknown = at.unknown.or(Some(partition.partition)),
            }
        }
        at.reports += 1;
        if at.reports == self.context.settings.workers {
            self.all_at_barrier(coordinator);
        }
    }

    fn all_at_barrier(&mut self, coordinator: &Coordinator) {
        let AtBarrier { slowest, unknown, .. } = self.at_barrier;
        // Without windows there is nothing to hold back.
        let unknown = unknown.filter(|_| !self.context.windowed.is_empty());
        let holds = unknown.and_then(|place| coordinator.positions().get(place));
        self.context.view.watermark(slowest.filter(|_| holds.is_none()), holds);
        if let Some(slowest) = slowest {
            self.context.metrics.watermark_lag_seconds.set((wall_clock_ms() - slowest) as f64 / 1000.0);
        }
        let Some(holds) = holds.filter(|_| slowest.is_some()) else { return };
        let for_ever = |source: &Source| source.name == holds.source && source.idle_after.is_none();
        if !self.said_who_holds
            && self.run_began.elapsed() >= HOLDS_FOR_LONG
            && self.context.plan.sources.iter().any(for_ever)
        {
            self.said_who_holds = true;
            tracing::warn!(
                pipeline = self.context.plan.pipeline,
                source = holds.source,
                "no window can close: {}-{} has had no record yet, and its source has no `watermark.idle_after`",
                holds.topic,
                holds.partition
            );
        }
    }
}
