//! A worker: batches of source records go in, output records come out, and the state of windows stays.
//!
//! A worker is a value, `Send` and without threads, clocks or I/O; the shell gives it a thread, the simulator calls it in turn.
//! The same calls in the same order give the same output.
//!
//! [`process`](Worker::process) takes records of one partition from bytes to the end of every branch: decode, then each step in
//! order (`where`, `select`, window), then sinks. Between barriers rows end in a window or in the output, or wait. At a barrier windows
//! close: [`barrier`].
//!
//! **Errors.** A record that fails follows the `on_error` of where it fails; it is dead-lettered once, whatever number of branches
//! it fails in. A call that returns an error has done part of its work: nothing of this epoch may be committed then, and the worker
//! must be thrown away.

pub mod barrier;
mod deduplicate;
mod error;
mod graph;
mod stopwatch;
mod trouble;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use onceflow_protocol::{Delay, Frontiers};

use self::deduplicate::{Candidates, HeldRecords};
pub use self::error::WorkerError;
use self::graph::{Graph, Stage};
use self::stopwatch::Stopwatch;
use self::trouble::Subject;
use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::errors_stream::{self, Failure};
use crate::expr::Expr;
use crate::formats::decode::Decoder;
use crate::message::MessageBatch;
pub use crate::operators::counts::{Counts, StageCounts, WorkerCounts};
use crate::operators::fate::{Fate, Fates};
use crate::operators::order::{order_of, ordered};
use crate::operators::rows::{
    evaluate_all, first_columns, held_back_by, keep_where, project, remove_kept, unnest,
};
pub use crate::operators::sink::TopicLimits;
use crate::output::Output;
use crate::plan::{Late, Plan, Stream, Tombstones, Window};
use crate::state::cold::ColdStore;
use crate::state::table::StateColumn;
use crate::state::window_state::WindowState;

/// Where a windowed step begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepStart {
    /// Durable number of the step's state.
    pub state_id: u32,
    /// How far its windows had got.
    pub frontiers: Frontiers,
    /// Its aggregates, in the order of the state's bytes.
    pub columns: Vec<StateColumn>,
}

impl StepStart {
    /// Where a new step with this window begins.
    pub fn fresh(state_id: u32, window: &Window) -> StepStart {
        let columns = StateColumn::planned(window.aggregates.len());
        StepStart { state_id, frontiers: Frontiers::START, columns }
    }
}

/// What a call to [`Worker::process`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processed {
    /// Largest event time of the records that could be decoded, milliseconds.
    pub max_event_time: Option<i64>,
    /// All of their event times in order, where the source's watermark follows how far they are out of order.
    pub event_times: Vec<Int64Array>,
}

/// All operators of a pipeline, with the state of one worker.
pub struct Worker {
    graph: Arc<Graph>,
    index: usize,
    workers: usize,
    cold: Arc<dyn ColdStore>,
    decoders: Vec<Decoder>,
    windows: Vec<StepWindow>,
    limits: Vec<TopicLimits>,
    counts: WorkerCounts,
    fates: Fates,
    /// Records of the call that go to the errors stream of their source.
    failures: Vec<Failure>,
    /// Records of earlier calls of the epoch, of which rows wait for the barrier.
    held: Vec<HeldRecords>,
    waiting_bytes: usize,
    stopwatch: Stopwatch,
}

struct StepWindow {
    step: usize,
    frontiers: Frontiers,
    /// `None` only while the step is being merged.
    state: Option<WindowState>,
    /// Rows that wait for the barrier, where the step deduplicates.
    candidates: Candidates,
}

/// What is around the rows of one call.
struct Call<'a> {
    graph: &'a Graph,
    /// Where the messages come from; `None` for rows that windows emit.
    origin: Option<Origin<'a>>,
    messages: &'a dyn MessageBatch,
    /// Number that the messages have among the held records, or will have where rows of them are held.
    records: usize,
    /// The rows replace what was emitted before: those that a condition holds back take it away.
    again: bool,
    out: &'a mut Output,
}

/// What a condition leaves of rows.
struct Kept {
    /// Those for which it is true.
    rows: Batch,
    /// The others, where what was emitted of them before is to be taken away.
    taken_away: Option<Batch>,
}

/// Where the messages of a call come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    source: usize,
    topic: &'a str,
    partition: i32,
}

impl WorkerCounts {
    fn stage(&mut self, stage: Stage) -> &mut StageCounts {
        match stage {
            Stage::Source(i) => &mut self.sources[i],
            Stage::Step(i) => &mut self.steps[i],
            Stage::Sink(i) => &mut self.sinks[i],
        }
    }
}

impl Worker {
    /// Worker `index` of `workers`, without any state yet. `starts` holds one entry for each windowed step, in their order.
    ///
    /// # Errors
    /// `Bug` if the plan or `starts` are inconsistent.
    pub fn new(
        plan: Arc<Plan>,
        index: usize,
        workers: usize,
        starts: &[StepStart],
        cold: Arc<dyn ColdStore>,
    ) -> Result<Worker, WorkerError> {
        let windowed = plan.steps.iter().enumerate().filter_map(|(i, step)| Some((i, step.window.as_ref()?)));
        if index >= workers || windowed.clone().count() != starts.len() {
            return Err(WorkerError::bug(format!(
                "worker {index} of {workers} with {} windowed steps does not fit the plan",
                starts.len()
            )));
        }
        let window = |((step, window), start): ((usize, &Window), &StepStart)| {
            let state = Some(WindowState::new(start.state_id, window, start.columns.clone())?);
            let (frontiers, candidates) = (start.frontiers, Candidates::default());
            Ok::<_, WorkerError>(StepWindow { step, frontiers, state, candidates })
        };
        let stages = |count: usize| vec![StageCounts::default(); count];
        Ok(Worker {
            index,
            workers,
            cold,
            decoders: plan
                .sources
                .iter()
                .map(|source| Decoder::new(source).map_err(WorkerError::bug))
                .collect::<Result<_, _>>()?,
            windows: windowed.zip(starts).map(window).collect::<Result<_, _>>()?,
            limits: vec![TopicLimits::default(); plan.output_topics.len()],
            counts: WorkerCounts {
                sources: stages(plan.sources.len()),
                steps: stages(plan.steps.len()),
                sinks: stages(plan.sinks.len()),
                ..WorkerCounts::default()
            },
            fates: Fates::default(),
            failures: vec![],
            held: vec![],
            waiting_bytes: 0,
            stopwatch: Stopwatch::default(),
            graph: Arc::new(Graph::new(plan)?),
        })
    }

    /// Sets what output topic `topic` takes; without it, everything with a timestamp after the epoch.
    pub fn set_limits(&mut self, topic: usize, limits: TopicLimits) {
        if let Some(known) = self.limits.get_mut(topic) {
            *known = limits;
        }
    }

    /// Has the time that each stage takes counted by this clock: nanoseconds since any instant, never less than before. Without one, no time
    /// is counted.
    pub fn set_clock(&mut self, now_ns: fn() -> u64) {
        self.stopwatch = Stopwatch::new(now_ns);
    }

    /// What this worker has done since it was made.
    pub fn counts(&self) -> &WorkerCounts {
        &self.counts
    }

    /// Takes records of a partition of source `source` through the pipeline; their output is appended to `out`.
    ///
    /// # Errors
    /// `Data` for a record that fails under `on_error: fail`, naming it; otherwise those of the state.
    pub fn process(
        &mut self,
        source: usize,
        topic: &str,
        partition: i32,
        messages: &dyn MessageBatch,
        out: &mut Output,
    ) -> Result<Processed, WorkerError> {
        let graph = self.graph.clone();
        let stage = Stage::Source(source);
        if source >= self.decoders.len() {
            return Err(WorkerError::bug(format!("the plan has no source {source}")));
        }
        let origin = Some(Origin { source, topic, partition });
        let records = self.held.len();
        let mut call = Call { graph: &graph, origin, messages, records, again: false, out };
        self.enter(Some(stage));
        self.fates.reset(messages.len());
        let mut processed = Processed::default();
        let mut next = 0;
        while next < messages.len() {
            let mut end = messages.len();
            if graph.plan.sources[source].tombstones == Tombstones::Pass {
                // A null value must not overtake the rows before it, which have the same key perhaps.
                end = (next..end).find(|i| messages.value(*i).is_none()).unwrap_or(end);
                if end == next {
                    self.pass_tombstone(&mut call, source, next)?;
                    next += 1;
                    continue;
                }
            }
            let decoded = self.decoders[source].decode(messages, next..end)?;
            next = decoded.next;
            for (record, reason, error) in &decoded.failed {
                self.fail(&mut call, stage, *reason, Subject::Record(*record), error)?;
            }
            for record in &decoded.skipped {
                self.counts.stage(stage).dropped[Reason::Tombstone as usize] += 1;
                self.fates.mark(*record, Fate::Dropped);
            }
            let max = decoded.batch.event_time.values().iter().copied().max();
            processed.max_event_time = processed.max_event_time.max(max);
            if matches!(graph.plan.sources[source].delay, Delay::Percentile { .. }) {
                processed.event_times.push(decoded.batch.event_time.clone());
            }
            self.counts.stage(stage).rows_out += decoded.batch.len() as u64;
            self.push(&mut call, Stream::Source(source), decoded.batch)?;
        }
        self.push_failures(&mut call)?;
        self.hold_records(&call);
        self.counts.stage(stage).rows_in += messages.len() as u64;
        self.counts.total += self.fates.count();
        self.enter(None);
        Ok(processed)
    }

    /// Hands what failed of a call to the readers of its source's errors.
    fn push_failures(&mut self, call: &mut Call) -> Result<(), WorkerError> {
        let (false, Some(origin)) = (self.failures.is_empty(), call.origin) else { return Ok(()) };
        let mut failures = std::mem::take(&mut self.failures);
        failures.sort_by_key(|failure| failure.record);
        let rows = errors_stream::rows(&failures, origin.topic, origin.partition, call.messages)?;
        self.push(call, Stream::Errors(origin.source), rows)
    }

    /// From here on time is spent by `stage`. Returns who spent it until now.
    fn enter(&mut self, stage: Option<Stage>) -> Option<Stage> {
        let (before, ns) = self.stopwatch.switch(stage);
        if let Some(before) = before {
            self.counts.stage(before).ns += ns;
        }
        before
    }

    /// Writes a null value to every sink of its source.
    fn pass_tombstone(&mut self, call: &mut Call, source: usize, record: usize) -> Result<(), WorkerError> {
        let graph = call.graph;
        self.counts.stage(Stage::Source(source)).rows_out += 1;
        for &sink in &graph.tombstone_sinks[source] {
            let stage = Stage::Sink(sink);
            self.counts.stage(stage).rows_in += 1;
            match graph.sinks[sink].write_tombstone(record, call.messages, &self.limits, call.out) {
                Ok(()) => {
                    self.counts.stage(stage).rows_out += 1;
                    self.counts.total.out += 1;
                    self.fates.mark(record as u32, Fate::Used);
                }
                Err((reason, error)) => {
                    self.fail(call, stage, reason, Subject::Record(record as u32), &error)?;
                }
            }
        }
        Ok(())
    }

    /// Hands rows to all readers of their stream, and to theirs.
    fn push(&mut self, call: &mut Call, stream: Stream, rows: Batch) -> Result<(), WorkerError> {
        if rows.is_empty() {
            return Ok(());
        }
        for reader in call.graph.readers(stream) {
            let before = self.enter(Some(reader.stage));
            self.counts.stage(reader.stage).rows_in += rows.len() as u64;
            let (read, failed) = reader.rows(&rows, call.origin, call.messages)?;
            self.fail_all(call, reader.stage, &rows, &failed)?;
            let rows = read;
            match reader.stage {
                Stage::Step(step) => self.run_step(call, step, rows)?,
                Stage::Sink(sink) => self.run_sink(call, sink, rows)?,
                Stage::Source(_) => return Err(WorkerError::bug("a source that reads a stream")),
            }
            self.enter(before);
        }
        Ok(())
    }

    fn keep_where(
        &mut self,
        call: &mut Call,
        stage: Stage,
        filter: &Expr,
        rows: Batch,
    ) -> Result<Kept, WorkerError> {
        if rows.retracted {
            return Ok(Kept { rows, taken_away: None });
        }
        let (kept, failed) = keep_where(filter, &rows)?;
        let held_back = rows.len() - kept.len() - failed.len();
        self.counts.stage(stage).filtered += held_back as u64;
        self.fail_all(call, stage, &rows, &failed)?;
        let taken_away = match call.again && held_back > 0 {
            true => Some(held_back_by(filter, &rows)?.retracted()),
            false => None,
        };
        Ok(Kept { rows: kept, taken_away })
    }

    fn run_step(&mut self, call: &mut Call, step: usize, mut rows: Batch) -> Result<(), WorkerError> {
        if let Some(filter) = &call.graph.plan.steps[step].filter {
            let kept = self.keep_where(call, Stage::Step(step), filter, rows)?;
            rows = kept.rows;
            if let Some(taken_away) = kept.taken_away {
                self.transform(call, step, taken_away)?;
            }
        }
        self.transform(call, step, rows)
    }

    /// What a step does to the rows that its `where` has let through.
    fn transform(&mut self, call: &mut Call, step: usize, mut rows: Batch) -> Result<(), WorkerError> {
        let stage = Stage::Step(step);
        let graph = call.graph;
        let plan = &graph.plan.steps[step];
        if let Some(exprs) = &plan.project {
            let (projected, failed) = project(exprs, &plan.projected_schema, rows.clone())?;
            self.fail_all(call, stage, &rows, &failed)?;
            rows = projected;
        }
        if rows.columns.num_columns() > plan.projected_schema.fields().len() {
            // What `where` has read of the records goes no further.
            rows = first_columns(rows, &plan.projected_schema)?;
        }
        if !plan.removed.is_empty() {
            rows = remove_kept(rows, &plan.removed)?;
        }
        if let Some(column) = plan.unnest {
            let (unnested, empty) = unnest(rows, column, &plan.output_schema)?;
            self.counts.stage(stage).filtered += empty as u64;
            rows = unnested;
        }
        match (&plan.window, graph.window_of[step]) {
            (Some(plan), Some(window)) if plan.deduplicates() => self.hold(call, step, window, plan, rows),
            (Some(plan), Some(window)) => self.update_window(call, step, window, plan, rows),
            _ => {
                self.counts.stage(stage).rows_out += rows.len() as u64;
                self.push(call, Stream::Step(step), rows)
            }
        }
    }

    fn update_window(
        &mut self,
        call: &mut Call,
        step: usize,
        window: usize,
        plan: &Window,
        rows: Batch,
    ) -> Result<(), WorkerError> {
        let stage = Stage::Step(step);
        let groups = plan.group_by.iter().map(|group| &group.expr);
        let arguments = plan.aggregates.iter().filter_map(|aggregate| aggregate.argument.as_ref());
        let (kept, mut columns, failed) = evaluate_all(groups.chain(arguments), rows.clone())?;
        self.fail_all(call, stage, &rows, &failed)?;
        let mut arguments = columns.split_off(plan.group_by.len()).into_iter();
        let mut arguments: Vec<_> = plan
            .aggregates
            .iter()
            .map(|aggregate| aggregate.argument.as_ref().and_then(|_| arguments.next()))
            .collect();
        let event_time: ArrayRef = Arc::new(kept.event_time.clone());
        let own = arguments.iter_mut().take(plan.own_aggregates());
        own.for_each(|argument| *argument = Some(event_time.clone()));
        let mut order = None;
        for (aggregate, argument) in plan.aggregates.iter().zip(&mut arguments) {
            if let Some(value) = argument.take_if(|_| aggregate.function.is_ordered()) {
                let origin = call.origin.map(|origin| (origin.topic, origin.partition));
                let order = order.get_or_insert_with(|| order_of(&kept, origin, call.messages));
                *argument = Some(ordered(order, value)?);
            }
        }

        let purged = self.windows[window].frontiers.purged;
        let updated = self.state_mut(window)?.update(&columns, &arguments, &kept.event_time, purged)?;
        self.counts.stage(stage).partly_late += updated.partly_late;
        if kept.origin.is_some() {
            self.counts.total.partly_late += updated.partly_late;
        }
        self.mark_used(&kept, updated.late.iter().copied());
        self.turn_away(call, step, plan, purged, &kept, &updated.late)
    }

    /// Rows that are too late go where the step says.
    fn turn_away(
        &mut self,
        call: &mut Call,
        step: usize,
        plan: &Window,
        purged: i64,
        rows: &Batch,
        late: &[u32],
    ) -> Result<(), WorkerError> {
        self.late(call, Stage::Step(step), plan, purged, rows, late)?;
        if plan.late == Late::Stream && !late.is_empty() {
            self.push(call, Stream::Late(step), rows.only(late)?)?;
        }
        Ok(())
    }

    fn run_sink(&mut self, call: &mut Call, sink: usize, mut rows: Batch) -> Result<(), WorkerError> {
        if let Some(filter) = &call.graph.plan.sinks[sink].filter {
            let kept = self.keep_where(call, Stage::Sink(sink), filter, rows)?;
            rows = kept.rows;
            if let Some(taken_away) = kept.taken_away {
                self.write(call, sink, taken_away)?;
            }
        }
        self.write(call, sink, rows)
    }

    fn write(&mut self, call: &mut Call, sink: usize, mut rows: Batch) -> Result<(), WorkerError> {
        let stage = Stage::Sink(sink);
        let graph = call.graph;
        let writer = &graph.sinks[sink];
        let (kept, values, failed) = evaluate_all(writer.exprs().iter(), rows.clone())?;
        self.fail_all(call, stage, &rows, &failed)?;
        rows = kept;
        let not_written =
            writer.write(&rows, &values, call.messages, &self.limits, call.out).map_err(WorkerError::bug)?;
        let written = (rows.len() - not_written.len()) as u64;
        self.counts.stage(stage).rows_out += written;
        self.counts.total.out += written;
        self.mark_used(&rows, not_written.iter().map(|(row, ..)| *row));
        for (row, reason, error) in &not_written {
            self.fail(call, stage, *reason, Subject::of(&rows, *row), error)?;
        }
        Ok(())
    }

    /// Marks the source records of all rows but `except` (ascending) as used.
    fn mark_used(&mut self, rows: &Batch, except: impl Iterator<Item = u32>) {
        let Some(origin) = &rows.origin else { return };
        let mut except = except.peekable();
        for (row, record) in origin.values().iter().enumerate() {
            if except.next_if_eq(&(row as u32)).is_none() {
                self.fates.mark(*record, Fate::Used);
            }
        }
    }

    fn fail_all(
        &mut self,
        call: &mut Call,
        stage: Stage,
        rows: &Batch,
        failed: &[(u32, String)],
    ) -> Result<(), WorkerError> {
        for (row, error) in failed {
            self.fail(call, stage, Reason::Evaluate, Subject::of(rows, *row), error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
