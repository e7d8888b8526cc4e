//! The plan's graph, resolved once for all batches: who reads what, and how.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::{Origin, WorkerError};
use crate::batch::Batch;
use crate::errors_stream;
use crate::message::MessageBatch;
use crate::metadata::Metadata;
use crate::operators::rows::Failed;
use crate::operators::sink::SinkWriter;
use crate::plan::{OnError, Plan, Stream, Tombstones};

/// Who handles rows, and so who is to blame when they fail.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Source(usize),
    Step(usize),
    Sink(usize),
}

#[derive(Debug)]
pub(super) struct Graph {
    pub(super) plan: Arc<Plan>,
    readers_of_sources: Vec<Vec<Reader>>,
    readers_of_steps: Vec<Vec<Reader>>,
    readers_of_late: Vec<Vec<Reader>>,
    readers_of_errors: Vec<Vec<Reader>>,
    pub(super) sinks: Vec<SinkWriter>,
    /// By source, the sinks that its null values go to: all that its rows can reach, if it passes them at all.
    pub(super) tombstone_sinks: Vec<Vec<usize>>,
    /// Number of the windowed step, by step.
    pub(super) window_of: Vec<Option<usize>>,
}

/// Reads a stream.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stage: Stage,
    /// Where the stream's columns are not just what the reader expects: the reader's schema, and where each of its columns comes from.
    rearrange: Option<(SchemaRef, Vec<From>)>,
}

#[derive(Debug)]
enum From {
    /// A column of the stream.
    Column(usize),
    /// The records of the rows.
    Record(Metadata),
}

impl Reader {
    fn new(stage: Stage, from: &SchemaRef, to: &SchemaRef) -> Result<Reader, WorkerError> {
        if from == to {
            return Ok(Reader { stage, rearrange: None });
        }
        let source = |name: &str| match (from.index_of(name), Metadata::parse(name)) {
            (Ok(column), _) => Ok(From::Column(column)),
            (Err(_), Some(metadata)) => Ok(From::Record(metadata)),
            (Err(missing), None) => Err(missing),
        };
        let columns: Result<Vec<_>, _> = to.fields().iter().map(|field| source(field.name())).collect();
        Ok(Reader { stage, rearrange: Some((to.clone(), columns?)) })
    }

    /// The rows as this reader expects them, and those whose record cannot be read, which are not among them.
    pub(super) fn rows(
        &self,
        rows: &Batch,
        origin: Option<Origin>,
        messages: &dyn MessageBatch,
    ) -> Result<(Batch, Failed), WorkerError> {
        let Some((schema, columns)) = &self.rearrange else { return Ok((rows.clone(), vec![])) };
        let mut failed = BTreeMap::new();
        let mut arrays = vec![];
        for column in columns {
            arrays.push(match column {
                From::Column(column) => rows.columns.column(*column).clone(),
                From::Record(metadata) => {
                    let (Some(records), Some(origin)) = (&rows.origin, origin) else {
                        return Err(WorkerError::bug(format!("{}: rows without a record", metadata.name())));
                    };
                    let (array, unreadable) =
                        metadata.read(records, (origin.topic, origin.partition), messages)?;
                    failed.extend(unreadable);
                    array
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?;
        let batch = Batch { columns, ..rows.clone() };
        if failed.is_empty() {
            return Ok((batch, vec![]));
        }
        let keep = (0..rows.len() as u32).map(|row| Some(!failed.contains_key(&row)));
        Ok((batch.filter(&keep.collect())?, failed.into_iter().collect()))
    }
}

impl Graph {
    pub(super) fn new(plan: Arc<Plan>) -> Result<Graph, WorkerError> {
        let mut graph = Graph {
            readers_of_sources: plan.sources.iter().map(|_| vec![]).collect(),
            readers_of_steps: plan.steps.iter().map(|_| vec![]).collect(),
            readers_of_late: plan.steps.iter().map(|_| vec![]).collect(),
            readers_of_errors: plan.sources.iter().map(|_| vec![]).collect(),
            sinks: plan.sinks.iter().enumerate().map(|(i, sink)| SinkWriter::new(i as u16, sink)).collect(),
            tombstone_sinks: (0..plan.sources.len()).map(|source| tombstone_sinks(&plan, source)).collect(),
            window_of: vec![],
            plan: plan.clone(),
        };
        let mut windows = 0..;
        for (i, step) in plan.steps.iter().enumerate() {
            graph.window_of.push(step.window.as_ref().and_then(|_| windows.next()));
            for input in &step.inputs {
                graph.connect(*input, Stage::Step(i), &step.input_schema)?;
            }
        }
        for (i, sink) in plan.sinks.iter().enumerate() {
            graph.connect(sink.input, Stage::Sink(i), &sink.input_schema)?;
        }
        Ok(graph)
    }

    fn connect(&mut self, from: Stream, to: Stage, schema: &SchemaRef) -> Result<(), WorkerError> {
        let missing = || WorkerError::bug(format!("{from:?} is not in the plan"));
        let source = |i: usize| self.plan.sources.get(i).ok_or_else(missing);
        let step = |i: usize| self.plan.steps.get(i).ok_or_else(missing);
        match from {
            Stream::Source(i) => {
                let reader = Reader::new(to, &source(i)?.schema, schema)?;
                self.readers_of_sources[i].push(reader);
            }
            Stream::Errors(i) => {
                source(i)?;
                self.readers_of_errors[i].push(Reader::new(to, &errors_stream::SCHEMA, schema)?);
            }
            Stream::Step(i) => {
                let reader = Reader::new(to, &step(i)?.output_schema, schema)?;
                self.readers_of_steps[i].push(reader);
            }
            Stream::Late(i) => {
                let reader = Reader::new(to, &step(i)?.projected_schema, schema)?;
                self.readers_of_late[i].push(reader);
            }
        }
        Ok(())
    }

    /// Readers of a stream: steps in their order, then sinks.
    pub(super) fn readers(&self, stream: Stream) -> &[Reader] {
        match stream {
            Stream::Source(i) => &self.readers_of_sources[i],
            Stream::Step(i) => &self.readers_of_steps[i],
            Stream::Late(i) => &self.readers_of_late[i],
            Stream::Errors(i) => &self.readers_of_errors[i],
        }
    }

    pub(super) fn name(&self, stage: Stage) -> &str {
        match stage {
            Stage::Source(i) => &self.plan.sources[i].name,
            Stage::Step(i) => &self.plan.steps[i].name,
            Stage::Sink(i) => &self.plan.sinks[i].name,
        }
    }

    pub(super) fn on_error(&self, stage: Stage) -> OnError {
        match stage {
            Stage::Source(i) => self.plan.sources[i].on_error,
            Stage::Step(i) => self.plan.steps[i].on_error,
            Stage::Sink(i) => self.plan.sinks[i].on_error,
        }
    }

    /// For messages to people: `source orders`.
    pub(super) fn describe(&self, stage: Stage) -> String {
        let kind = match stage {
            Stage::Source(_) => "source",
            Stage::Step(_) => "step",
            Stage::Sink(_) => "sink",
        };
        format!("{kind} {}", self.name(stage))
    }
}

fn tombstone_sinks(plan: &Plan, source: usize) -> Vec<usize> {
    if plan.sources[source].tombstones != Tombstones::Pass {
        return vec![];
    }
    let mut reached = vec![false; plan.steps.len()];
    let reads = |reached: &[bool], input: &Stream| match *input {
        Stream::Source(i) => i == source,
        Stream::Step(i) => reached[i],
        Stream::Late(_) | Stream::Errors(_) => false,
    };
    for (i, step) in plan.steps.iter().enumerate() {
        reached[i] = step.window.is_none() && step.inputs.iter().any(|input| reads(&reached, input));
    }
    (0..plan.sinks.len()).filter(|sink| reads(&reached, &plan.sinks[*sink].input)).collect()
}
