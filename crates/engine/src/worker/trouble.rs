//! What happens to rows that fail or come too late: the pipeline stops, or they are counted and dropped, or written as dead letters.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMillisecondType;

use super::graph::Stage;
use super::{Call, Origin, Worker, WorkerError};
use crate::batch::Batch;
use crate::dead_letter::{self, Extent, Reason, Sender};
use crate::errors_stream::Failure;
use crate::operators::fate::Fate;
use crate::operators::sink::row_as_json;
use crate::plan::{Late, OnError, Window};

/// What is in trouble.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// A source record, by its index in the call's messages.
    Record(u32),
    /// A row that a window made.
    Row(&'a Batch, usize),
}

impl<'a> Subject<'a> {
    /// A row stands for its source record, where it has one.
    pub(super) fn of(rows: &'a Batch, row: u32) -> Subject<'a> {
        match &rows.origin {
            Some(origin) => Subject::Record(origin.value(row as usize)),
            None => Subject::Row(rows, row as usize),
        }
    }
}

impl Worker {
    /// Does to a failed row what its stage's `on_error` says.
    pub(super) fn fail(
        &mut self,
        call: &mut Call,
        stage: Stage,
        reason: Reason,
        subject: Subject,
        error: &str,
    ) -> Result<(), WorkerError> {
        match policy(call, stage, subject) {
            OnError::Fail => {
                let stage = call.graph.describe(stage);
                let whose = match (subject, call.origin) {
                    (Subject::Record(i), Some(Origin { topic, partition, .. })) => {
                        let offset = call.messages.offset(i as usize);
                        format!("topic {topic}, partition {partition}, offset {offset}")
                    }
                    (Subject::Row(rows, row), _) => {
                        format!("result with event time {} ms", rows.event_time.value(row))
                    }
                    (Subject::Record(i), None) => format!("record {i}"),
                };
                Err(WorkerError::data(format!("{stage}: {whose}: {error} ({})", reason.as_str())))
            }
            OnError::Drop => {
                self.counts.stage(stage).dropped[reason as usize] += 1;
                self.mark(subject, Fate::Dropped);
                Ok(())
            }
            OnError::DeadLetter => {
                self.mark(subject, Fate::Dead);
                self.write_letter(call, stage, reason, subject, error)
            }
            OnError::Stream => {
                self.mark(subject, Fate::Dead);
                if let Subject::Record(record) = subject
                    && !self.fates.mark(record, Fate::Streamed)
                {
                    let (step, error) = (call.graph.name(stage).to_owned(), error.to_owned());
                    self.failures.push(Failure { record, step, reason, error });
                }
                Ok(())
            }
        }
    }

    /// Counts rows of a windowed step that came after the purge of their windows, and writes their dead letters if `late` says so.
    pub(super) fn late(
        &mut self,
        call: &mut Call,
        stage: Stage,
        plan: &Window,
        purged: i64,
        rows: &Batch,
        late: &[u32],
    ) -> Result<(), WorkerError> {
        self.counts.stage(stage).late += late.len() as u64;
        for row in late {
            let subject = Subject::of(rows, *row);
            self.mark(subject, Fate::Late);
            if plan.late == Late::DeadLetter {
                let time = rows.event_time.value(*row as usize);
                let what = match plan.deduplicates() {
                    true => "its duplicates may be forgotten",
                    false => "its windows are closed",
                };
                let error = format!("event time {time} ms: {what}, up to {purged} ms");
                self.write_letter(call, stage, Reason::Late, subject, &error)?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, subject: Subject, fate: Fate) {
        if let Subject::Record(i) = subject {
            self.fates.mark(i, fate);
        }
    }

    fn write_letter(
        &mut self,
        call: &mut Call,
        stage: Stage,
        reason: Reason,
        subject: Subject,
        error: &str,
    ) -> Result<(), WorkerError> {
        let graph = call.graph;
        let no_topic =
            || WorkerError::bug(format!("{}: there is no dead letter topic", graph.describe(stage)));
        let topic = graph.plan.dead_letter.ok_or_else(no_topic)?;
        let limits = self.limits.get(usize::from(topic)).ok_or_else(no_topic)?;
        let sender = Sender { topic, pipeline: &graph.plan.pipeline, step: graph.name(stage), reason, error };
        let timestamp = |time: i64| if limits.timestamps.contains(&time) { time } else { 0 };
        if let Subject::Record(i) = subject
            && self.fates.mark(i, Fate::Lettered)
        {
            return Ok(());
        }
        let mut size = 0;
        for extent in Extent::ALL {
            let letter = match (subject, call.origin) {
                (Subject::Record(i), Some(Origin { topic: from, partition, .. })) => {
                    let i = i as usize;
                    let timestamp = timestamp(call.messages.timestamp(i));
                    let record = (from, partition, call.messages);
                    dead_letter::of_record(call.out, sender, timestamp, record, i, extent)
                }
                (Subject::Row(rows, row), _) => {
                    let json = row_as_json(&rows.columns, row);
                    let timestamp = timestamp(rows.event_time.value(row));
                    dead_letter::of_row(call.out, sender, timestamp, &json, window_of(rows, row), extent)
                }
                (Subject::Record(_), None) => {
                    return Err(WorkerError::bug("a source record outside of a batch"));
                }
            };
            size = letter.size_bytes();
            if size <= limits.max_record_bytes {
                letter.finish();
                self.counts.dead_letters[reason as usize] += 1;
                return Ok(());
            }
        }
        let (stage, limit) = (graph.describe(stage), limits.max_record_bytes);
        Err(WorkerError::data(format!(
            "{stage}: a dead letter without its record has {size} bytes, more than its topic takes in a record ({limit}): {error}"
        )))
    }
}

/// What happens to `subject` where `stage` refuses it. To a stream goes only what has a record of a source that has one.
fn policy(call: &Call, stage: Stage, subject: Subject) -> OnError {
    let plan = &call.graph.plan;
    match (call.graph.on_error(stage), subject, call.origin) {
        (OnError::Stream, Subject::Record(_), Some(origin)) => plan.sources[origin.source].on_error,
        (OnError::Stream, ..) if plan.dead_letter.is_some() => OnError::DeadLetter,
        (OnError::Stream, ..) => OnError::Fail,
        (other, ..) => other,
    }
}

/// Start and end of the window that made a row, as long as the row has them.
fn window_of(rows: &Batch, row: usize) -> Option<(i64, i64)> {
    let column = |name: &str| {
        let column = rows.columns.column_by_name(name)?.as_primitive_opt::<TimestampMillisecondType>()?;
        column.is_valid(row).then(|| column.value(row))
    };
    Some((column("window_start")?, column("window_end")?))
}
