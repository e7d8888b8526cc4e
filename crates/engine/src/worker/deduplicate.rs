//! Deduplication: rows wait for the barrier, where it is decided which of them go on.
//!
//! The state decides ([`duplicates`](crate::state::window_state)). Here is what has to be kept of a row until then: its columns, and the
//! record that it came with, for sinks may forward its headers and dead letters quote it. What becomes of such a record is counted when
//! the epoch ends, after all of its rows have gone their way.

use std::sync::Arc;

use arrow::array::{AsArray, UInt32Array};
use arrow::datatypes::{Int32Type, Int64Type};
use onceflow_protocol::EventTime;

use super::barrier::EMIT_BYTES;
use super::graph::{Graph, Stage};
use super::{Call, Origin, Worker, WorkerError};
use crate::batch::Batch;
use crate::message::{CopiedMessages, MessageBatch, NoMessages};
use crate::operators::fate::Fates;
use crate::operators::order::order_of;
use crate::operators::rows::{evaluate_all, first_columns};
use crate::output::Output;
use crate::plan::{Stream, Window};
use crate::state::key::Keys;
use crate::state::window_state::{Changed, ChangedGroups, Partials, Place};

/// Rows of one deduplication that wait.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Their keys, and where they belong, row by row: what other workers are told of them.
    pub told: Arc<Changed>,
    batches: Vec<Waiting>,
}

/// Rows that came in one call.
#[derive(Debug)]
struct Waiting {
    /// Which of the [`HeldRecords`] they came with; `None` for rows that windows emitted.
    records: Option<usize>,
    rows: Batch,
}

/// Records of one call, of which rows wait.
#[derive(Debug, Default)]
pub(super) struct HeldRecords {
    source: usize,
    topic: String,
    partition: i32,
    messages: CopiedMessages,
    fates: Fates,
}

impl Candidates {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

impl Worker {
    /// Takes in rows that may be duplicates; those that are too old for what is remembered are late.
    pub(super) fn hold(
        &mut self,
        call: &mut Call,
        step: usize,
        window: usize,
        plan: &Window,
        rows: Batch,
    ) -> Result<(), WorkerError> {
        let (kept, columns, failed) =
            evaluate_all(plan.group_by.iter().map(|group| &group.expr), rows.clone())?;
        self.fail_all(call, Stage::Step(step), &rows, &failed)?;
        let purged = self.windows[window].frontiers.purged;
        let is_late = |time: &i64| match EventTime::new(*time) {
            Some(time) => Ok(plan.spec.pane_end(plan.spec.pane_of(time)) <= purged),
            None => Err(WorkerError::bug(format!("event time {time} is out of range"))),
        };
        let is_late = kept.event_time.values().iter().map(is_late).collect::<Result<Vec<bool>, _>>()?;
        let late: Vec<u32> = (0..kept.len() as u32).filter(|row| is_late[*row as usize]).collect();
        self.turn_away(call, step, plan, purged, &kept, &late)?;
        if late.len() == kept.len() {
            return Ok(());
        }
        let mut keys = Keys::default();
        keys.encode(&columns, kept.len())?;
        let origin = call.origin.map(|origin| (origin.topic, origin.partition));
        let order = order_of(&kept, origin, call.messages);
        let candidates = &mut self.windows[window].candidates;
        // Nobody else has it between barriers.
        let told = Arc::make_mut(&mut candidates.told);
        let before = told.keys.memory_bytes();
        for row in (0..kept.len()).filter(|row| !is_late[*row]) {
            told.keys.push_hashed(keys.get(row), keys.hash(row));
            told.places.push(Place {
                time: order[0].as_primitive::<Int64Type>().value(row),
                partition: order[1].as_primitive::<Int32Type>().value(row),
                offset: order[2].as_primitive::<Int64Type>().value(row),
                topic: order[3].as_primitive::<Int64Type>().value(row),
            });
        }
        let told_bytes = told.keys.memory_bytes() - before;
        let on_time = is_late.iter().map(|is_late| Some(!is_late)).collect();
        let rows = first_columns(kept.filter(&on_time)?, &call.graph.plan.steps[step].output_schema)?;
        let of_row = size_of::<Place>() + size_of::<i64>() + size_of::<u32>();
        self.waiting_bytes += rows.columns.get_array_memory_size() + rows.len() * of_row + told_bytes;
        let records = rows.origin.as_ref().map(|_| call.records);
        self.windows[window].candidates.batches.push(Waiting { records, rows });
        Ok(())
    }

    /// Copies the records of the call that ends, of which rows have been held, and puts off what becomes of them.
    pub(super) fn hold_records(&mut self, call: &Call) {
        let Some(Origin { source, topic, partition }) = call.origin else { return };
        let mut waiting: Vec<&mut Batch> = vec![];
        for window in &mut self.windows {
            let of_call = window.candidates.batches.iter_mut().rev();
            let of_call = of_call.take_while(|waiting| waiting.records == Some(call.records));
            waiting.extend(of_call.map(|waiting| &mut waiting.rows));
        }
        if waiting.is_empty() {
            return;
        }
        let mut is_held = vec![false; call.messages.len()];
        let origins = waiting.iter().filter_map(|rows| rows.origin.as_ref());
        origins.flat_map(UInt32Array::values).for_each(|record| is_held[*record as usize] = true);
        let mut messages = CopiedMessages::default();
        let mut copies = vec![0; is_held.len()];
        for record in (0..is_held.len()).filter(|record| is_held[*record]) {
            copies[record] = messages.len() as u32;
            messages.push(call.messages, record);
        }
        for rows in waiting {
            let copied = |origin: &UInt32Array| {
                origin.values().iter().map(|record| copies[*record as usize]).collect::<Vec<u32>>().into()
            };
            rows.origin = rows.origin.as_ref().map(copied);
        }
        let fates = self.fates.hold((0..is_held.len()).filter(|record| is_held[*record]));
        self.waiting_bytes += messages.memory_bytes();
        self.held.push(HeldRecords { source, topic: topic.to_owned(), partition, messages, fates });
    }

    /// Bytes that wait for the next barrier.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Decides which of this worker's rows are kept, and carries those through all that follows.
    pub(super) fn release(
        &mut self,
        window: usize,
        partials: &[Partials],
        told: &ChangedGroups,
        emit: &mut dyn FnMut(Output) -> Result<(), WorkerError>,
    ) -> Result<(), WorkerError> {
        let (graph, cold, worker) = (self.graph.clone(), self.cold.clone(), self.index);
        let step = self.windows[window].step;
        let stage = Stage::Step(step);
        self.enter(Some(stage));
        let Candidates { told: own, batches } = std::mem::take(&mut self.windows[window].candidates);
        let kept = self.state_mut(window)?.keep(told, partials, worker, &own, cold.as_ref())?;
        let counts = self.counts.stage(stage);
        counts.rows_out += kept.len() as u64;
        counts.duplicates += (own.places.len() - kept.len()) as u64;
        let mut out = Output::default();
        let (mut kept, mut first) = (kept.into_iter().peekable(), 0);
        for Waiting { records, rows } in batches {
            let next = first + rows.len() as u32;
            let of_batch = std::iter::from_fn(|| kept.next_if(|row| *row < next)).map(|row| row - first);
            let rows = rows.only(&of_batch.collect::<Vec<_>>())?;
            first = next;
            self.push_held(&graph, step, records, rows, &mut out)?;
            if out.size_bytes() > EMIT_BYTES {
                // Waiting for whoever takes it is nothing that the step does.
                self.enter(None);
                emit(std::mem::take(&mut out))?;
                self.enter(Some(stage));
            }
        }
        self.enter(None);
        if out.is_empty() { Ok(()) } else { emit(out) }
    }

    fn push_held(
        &mut self,
        graph: &Graph,
        step: usize,
        records: Option<usize>,
        rows: Batch,
        out: &mut Output,
    ) -> Result<(), WorkerError> {
        let Some(number) = records else {
            let messages = &NoMessages;
            let mut call = Call { graph, origin: None, messages, records: 0, again: false, out };
            return self.push(&mut call, Stream::Step(step), rows);
        };
        let mut held = std::mem::take(&mut self.held[number]);
        std::mem::swap(&mut self.fates, &mut held.fates);
        let origin = Some(Origin { source: held.source, topic: &held.topic, partition: held.partition });
        let messages = &held.messages;
        let mut call = Call { graph, origin, messages, records: number, again: false, out };
        self.push(&mut call, Stream::Step(step), rows)?;
        self.push_failures(&mut call)?;
        std::mem::swap(&mut self.fates, &mut held.fates);
        self.held[number] = held;
        Ok(())
    }

    /// Counts what has become of the records of which rows have waited.
    pub(super) fn count_held(&mut self) {
        for held in self.held.drain(..) {
            self.counts.total += held.fates.count();
        }
        self.waiting_bytes = 0;
    }
}
