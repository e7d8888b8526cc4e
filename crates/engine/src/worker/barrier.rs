//! Windows at the barrier. For every windowed step, in the order of the steps, the shell (or the simulator) calls on all workers:
//!
//! 1. for each window end that fires, in ascending order ([`next_end`](Worker::next_end)): [`close`](Worker::close) on every
//!    worker, then [`merge`](Worker::merge) on every worker with what all of them handed over for it. Before them, where the step emits
//!    updates, the same for each window of which something has changed since it fired ([`changed_ends`](Worker::changed_ends)), restricted
//!    to the groups that any worker names ([`changed`](Worker::changed)). In the same way a deduplication decides about the rows that wait;
//! 2. then [`advance`](Worker::advance) on every worker. Not earlier on any: others merge what it would purge.
//!
//! After the last step [`freeze`](Worker::freeze), before the next batch.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::compute::kernels::arity::unary;
use arrow::datatypes::{DataType, SchemaRef, TimestampMillisecondType};
use onceflow_protocol::{EventTime, Frontiers};

use super::graph::{Graph, Stage};
use super::trouble::Subject;
use super::{Call, Kept, StepWindow, Worker, WorkerError};
use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::lookup::{Found, Key};
use crate::message::NoMessages;
use crate::output::Output;
use crate::plan::{Emits, Stream};
use crate::state::StateError;
use crate::state::cold::Run;
use crate::state::key::lanes_of;
use crate::state::rows::EncodedRows;
use crate::state::window_state::{
    Bounds, Changed, ChangedGroups, EVERYTHING, FrozenPane, Origin, Partials, WindowRows, WindowState,
};

/// Output of a firing window is passed on when it exceeds this, so that a window of any size takes little memory.
pub(super) const EMIT_BYTES: usize = 256 << 10;

/// The state of one windowed step of one worker at a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenStep {
    /// Durable number of the step's state.
    pub state_id: u32,
    /// Its panes, ascending.
    pub panes: Vec<FrozenPane>,
}

impl Worker {
    /// Number of windowed steps; they are numbered in the order of the steps.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// The step that windowed step `window` is.
    pub fn step_of(&self, window: usize) -> Option<usize> {
        self.windows.get(window).map(|window| window.step)
    }

    /// How far the windows of windowed step `window` have got.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn frontiers(&self, window: usize) -> Result<Frontiers, WorkerError> {
        self.windows.get(window).map(|window| window.frontiers).ok_or_else(|| no_window(window))
    }

    /// The first window end after the fired frontier, of windows that hold a row of this worker.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn next_end(&self, window: usize) -> Result<Option<i64>, WorkerError> {
        let fired = self.frontiers(window)?.fired;
        Ok(self.state(window)?.next_end(fired))
    }

    /// The same, counted from another instant: for a pass that fires one end after the other.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn next_end_after(&self, window: usize, fired: i64) -> Result<Option<i64>, WorkerError> {
        Ok(self.state(window)?.next_end(fired))
    }

    /// The ends of windows that have fired and of which this worker has changed something since; none where results are final.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn changed_ends(&self, window: usize) -> Result<Vec<i64>, WorkerError> {
        match self.emits(window)? {
            Emits::Final => Ok(vec![]),
            Emits::Rows if self.windows[window].candidates.is_empty() => Ok(vec![]),
            Emits::Rows => Ok(vec![EVERYTHING]),
            Emits::Updates { .. } | Emits::Totals => {
                Ok(self.state(window)?.changed_ends(self.frontiers(window)?))
            }
        }
    }

    /// What this worker has changed of the window that ends at `end` since it was last emitted; of a deduplication, the rows that wait.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn changed(&self, window: usize, end: i64) -> Result<Arc<Changed>, WorkerError> {
        if self.emits(window)? == Emits::Rows {
            return Ok(self.windows[window].candidates.told.clone());
        }
        let fired = self.frontiers(window)?.fired;
        Ok(Arc::new(Changed { keys: self.state(window)?.changed_keys(end, fired), places: vec![] }))
    }

    fn emits(&self, window: usize) -> Result<Emits, WorkerError> {
        let plan = self.step_of(window).and_then(|step| self.graph.plan.steps[step].window.as_ref());
        plan.map(|window| window.emits).ok_or_else(|| no_window(window))
    }

    /// What this worker contributes to the window that ends at `end`, by owner: everything, or what it has of the groups in `only`.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn close(
        &mut self,
        window: usize,
        end: i64,
        only: Option<&ChangedGroups>,
    ) -> Result<Vec<Partials>, WorkerError> {
        let (worker, workers) = (self.index, self.workers);
        Ok(self.state_mut(window)?.close(end, only, worker, workers)?)
    }

    /// Puts together this worker's groups of the window that ends at `end`, from what every worker's [`close`](Self::close) has for
    /// it (in the order of the workers), and carries them through `having` and all that follows. `emit` gets the output, in pieces. With
    /// `only`, or where there are early results, the window's rows replace earlier ones, and what a condition holds back now takes those away.
    ///
    /// # Errors
    /// Those of `emit`; `Data` for a row under `on_error: fail`; those of the state.
    pub fn merge(
        &mut self,
        window: usize,
        end: i64,
        partials: &[Partials],
        only: Option<&ChangedGroups>,
        emit: &mut dyn FnMut(Output) -> Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        let graph = self.graph.clone();
        let cold = self.cold.clone();
        let step = self.step_of(window).ok_or_else(|| no_window(window))?;
        let emits = self.emits(window)?;
        if let (Emits::Rows, Some(told)) = (emits, only) {
            return self.release(window, partials, told, emit);
        }
        let again = only.is_some() || emits.early_ms().is_some();
        // The window's rows may only reach later steps: nobody asks for this state meanwhile.
        let mut state = self.windows[window].state.take().ok_or_else(|| no_window(window))?;
        let stage = Some(Stage::Step(step));
        self.enter(stage);
        let mut out = Output::default();
        let mut stopped = None;
        let lanes = lanes_of(self.index, self.workers);
        let merged = state.merge(end, only, partials, lanes, cold.as_ref(), &mut |rows| {
            let pass_on = || {
                self.emit_rows(&graph, step, rows, again, &mut out)?;
                if out.size_bytes() > EMIT_BYTES {
                    // Waiting for whoever takes it is nothing that the step does.
                    self.enter(None);
                    emit(std::mem::take(&mut out))?;
                    self.enter(stage);
                }
                Ok(())
            };
            pass_on().map_err(|error: WorkerError| {
                stopped = Some(error);
                StateError::Bug("stopped by its reader".into())
            })
        });
        self.windows[window].state = Some(state);
        match (stopped, merged) {
            (Some(error), _) => return Err(error),
            (None, merged) => merged?,
        }
        self.enter(None);
        if out.is_empty() { Ok(()) } else { emit(out) }
    }

    /// Carries results of a windowed step on.
    fn emit_rows(
        &mut self,
        graph: &Graph,
        step: usize,
        rows: WindowRows,
        again: bool,
        out: &mut Output,
    ) -> Result<(), WorkerError> {
        let mut call = Call { graph, origin: None, messages: &NoMessages, records: 0, again, out };
        let stage = Stage::Step(step);
        let plan = &graph.plan.steps[step];
        let failed = rows.failed.clone();
        let mut rows = results(&plan.output_schema, rows)?;
        if !failed.is_empty() {
            for (row, error) in &failed {
                self.fail(&mut call, stage, Reason::Overflow, Subject::of(&rows, *row), error)?;
            }
            let others = without(&rows, &failed)?;
            let all = std::mem::replace(&mut rows, others);
            if again {
                let failed: Vec<u32> = failed.iter().map(|(row, _)| *row).collect();
                self.push(&mut call, Stream::Step(step), all.only(&failed)?.retracted())?;
            }
        }
        if let Some(having) = plan.window.as_ref().and_then(|window| window.having.as_ref()) {
            let Kept { rows: kept, taken_away } = self.keep_where(&mut call, stage, having, rows)?;
            if let Some(taken_away) = taken_away {
                self.push(&mut call, Stream::Step(step), taken_away)?;
            }
            rows = kept;
        }
        self.counts.stage(stage).rows_out += rows.len() as u64;
        self.push(&mut call, Stream::Step(step), rows)
    }

    /// Moves the frontiers of windowed step `window`, and drops what is purged by them.
    ///
    /// # Errors
    /// `Bug` if a frontier would go back; `EpochFailed` if the cold store fails.
    pub fn advance(&mut self, window: usize, frontiers: Frontiers) -> Result<(), WorkerError> {
        let before = self.frontiers(window)?;
        if frontiers.fired < before.fired || frontiers.purged < before.purged {
            return Err(WorkerError::bug(format!("frontiers go back from {before:?} to {frontiers:?}")));
        }
        let cold = self.cold.clone();
        self.windows[window].frontiers = frontiers;
        self.state_mut(window)?.pass_over(before.fired);
        Ok(self.state_mut(window)?.purge(frontiers.purged, cold.as_ref())?)
    }

    /// Copies out what changed since the last freeze, by windowed step.
    ///
    /// # Errors
    /// `Bug` within [`merge`](Self::merge), or if rows wait.
    pub fn freeze(&mut self) -> Result<Vec<FrozenStep>, WorkerError> {
        if self.windows.iter().any(|window| !window.candidates.is_empty()) {
            return Err(WorkerError::bug("an epoch ends, and rows wait still"));
        }
        self.count_held();
        let mut steps = vec![];
        for window in 0..self.windows.len() {
            let state = self.state_mut(window)?;
            steps.push(FrozenStep { state_id: state.state_id(), panes: state.freeze() });
        }
        Ok(steps)
    }

    /// Brings back what one former worker had of a pane of windowed step `window`: the live extents, newest first, and the cold
    /// runs. Call it before the first batch.
    ///
    /// # Errors
    /// Those of `extents`; `Data` for bytes that are no rows of this step.
    pub fn restore(
        &mut self,
        window: usize,
        pane: i64,
        extents: &mut dyn Iterator<Item = Result<EncodedRows, WorkerError>>,
        runs: &[Run],
        origin: Origin,
    ) -> Result<(), WorkerError> {
        let state = self.state_mut(window)?;
        let mut restore = state.begin_restore(pane)?;
        for rows in extents {
            restore.add(&rows?)?;
        }
        state.finish_restore(restore, origin)?;
        Ok(state.restore_cold(pane, runs)?)
    }

    /// Makes the next freeze write a pane whole, so that its older extents die.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn rewrite(&mut self, window: usize, pane: i64) -> Result<(), WorkerError> {
        self.state_mut(window)?.rewrite(pane);
        Ok(())
    }

    /// Windows of windowed step `window` that are open and hold a row of this worker.
    ///
    /// # Errors
    /// `Bug` if there is no such step.
    pub fn open_windows(&self, window: usize) -> Result<u64, WorkerError> {
        Ok(self.state(window)?.open_windows(self.frontiers(window)?.fired))
    }

    /// What this worker has of a key of windowed step `window`. What waits for the barrier is not in it.
    ///
    /// # Errors
    /// `Bug` if there is no such step; those of the cold store.
    pub fn find(&self, window: usize, key: &Key) -> Result<Found, WorkerError> {
        let traces = self.state(window)?.traces(&key.groups(), self.cold.as_ref())?;
        Ok(Found { frontiers: self.frontiers(window)?, traces })
    }

    /// Whether some of the state is in the cold store.
    pub fn has_cold(&self) -> bool {
        self.windows.iter().filter_map(|window| window.state.as_ref()).any(WindowState::has_runs)
    }

    /// Bytes that the state takes in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.windows.iter().filter_map(|window| window.state.as_ref()).map(WindowState::memory_bytes).sum()
    }

    /// Lets go of what takes memory and can be computed again.
    pub fn let_go(&mut self) {
        for state in self.windows.iter_mut().filter_map(|window| window.state.as_mut()) {
            state.let_go();
        }
    }

    /// Moves the largest pane of the step that takes most memory to the cold store; returns the bytes freed, 0 if no row is
    /// in memory. `next_generation` gives numbers that were never given before in this shard.
    ///
    /// # Errors
    /// `EpochFailed` if the cold store fails, `Data` if a run that it read is damaged.
    pub fn evict_one(&mut self, next_generation: &mut dyn FnMut() -> u64) -> Result<u64, WorkerError> {
        let cold = self.cold.clone();
        let graph = self.graph.clone();
        let emitted = |window: &StepWindow| {
            let plan = graph.plan.steps[window.step].window.as_ref()?;
            match plan.emits {
                // What a deduplication remembers is emitted nowhere.
                Emits::Final | Emits::Rows => None,
                Emits::Updates { early_ms: None } => Some(window.frontiers.fired),
                Emits::Updates { early_ms: Some(_) } | Emits::Totals => Some(EVERYTHING),
            }
        };
        let windows = self.windows.iter_mut();
        let mut states: Vec<_> =
            windows.filter_map(|window| Some((emitted(window), window.state.as_mut()?))).collect();
        states.sort_by_key(|(_, state)| std::cmp::Reverse(state.memory_bytes()));
        for (emitted, state) in states {
            let freed = state.evict(cold.as_ref(), emitted, next_generation)?;
            if freed > 0 {
                return Ok(freed);
            }
        }
        Ok(0)
    }

    pub(super) fn state(&self, window: usize) -> Result<&WindowState, WorkerError> {
        self.windows.get(window).and_then(|window| window.state.as_ref()).ok_or_else(|| no_window(window))
    }

    pub(super) fn state_mut(&mut self, window: usize) -> Result<&mut WindowState, WorkerError> {
        self.windows.get_mut(window).and_then(|window| window.state.as_mut()).ok_or_else(|| no_window(window))
    }
}

fn no_window(window: usize) -> WorkerError {
    WorkerError::bug(format!("windowed step {window} does not exist or is being merged"))
}

/// Group columns, `window_start` and `window_end` where there are windows, aggregates. The rows' event time is the last instant of their
/// window: of a session its end, as an event at that very instant would belong to it. Without a window it is that of the last event.
fn results(schema: &SchemaRef, rows: WindowRows) -> Result<Batch, WorkerError> {
    let groups = rows.groups.len();
    let count = rows.groups.first().or(rows.aggregates.first()).map_or(0, |column| column.len());
    let (bounds, last_instants) = match rows.bounds {
        Bounds::One { start, end } => {
            let all = |ms: i64| Int64Array::from(vec![ms; count]);
            (vec![all(start), all(end)], all(end - 1))
        }
        Bounds::Sessions { starts, ends } => (vec![starts, ends.clone()], ends),
        Bounds::None { last_events } => (vec![], last_events),
    };
    let bound = |column: usize, ms: &Int64Array| -> ArrayRef {
        let zone = match schema.fields().get(column).map(|field| field.data_type()) {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            _ => None,
        };
        Arc::new(ms.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone))
    };
    let bounds = bounds.iter().enumerate().map(|(place, ms)| bound(groups + place, ms));
    let columns = rows.groups.into_iter().chain(bounds).chain(rows.aggregates).collect();
    Ok(Batch {
        columns: RecordBatch::try_new(schema.clone(), columns)?,
        // A window may end after the last event time; its rows must not, for they may enter other windows.
        event_time: unary(&last_instants, |instant| instant.min(EventTime::MAX.ms())),
        origin: None,
        retracted: false,
    })
}

/// The rows that did not fail.
fn without(rows: &Batch, failed: &[(u32, String)]) -> Result<Batch, WorkerError> {
    let mut keep = vec![true; rows.len()];
    for (row, _) in failed {
        if let Some(keep) = keep.get_mut(*row as usize) {
            *keep = false;
        }
    }
    Ok(rows.filter(&keep.into())?)
}
