//! The plan's graph, resolved once for all batches: who reads what, and how.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

use super::WorkerError;
use crate::batch::Batch;
use crate::errors_stream;
use crate::operators::sink::SinkWriter;
use crate::plan::{OnError, Plan, Stream};

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
    /// Number of the windowed step, by step.
    pub(super) window_of: Vec<Option<usize>>,
}

/// Reads a stream.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stage: Stage,
    /// Where the stream's columns are in another order or differ in nullability: the reader's schema, and where its columns are.
    reorder: Option<(SchemaRef, Vec<usize>)>,
}

impl Reader {
    fn new(stage: Stage, from: &SchemaRef, to: &SchemaRef) -> Result<Reader, WorkerError> {
        if from == to {
            return Ok(Reader { stage, reorder: None });
        }
        let columns: Result<Vec<_>, _> =
            to.fields().iter().map(|field| from.index_of(field.name())).collect();
        Ok(Reader { stage, reorder: Some((to.clone(), columns?)) })
    }

    /// The rows as this reader expects them.
    pub(super) fn rows(&self, rows: &Batch) -> Result<Batch, WorkerError> {
        let Some((schema, order)) = &self.reorder else { return Ok(rows.clone()) };
        let columns = rows.columns.project(order)?.columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        Ok(Batch { columns, event_time: rows.event_time.clone(), origin: rows.origin.clone() })
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
            graph.connect(sink.input, Stage::Sink(i), &sink.schema)?;
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
