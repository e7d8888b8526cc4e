//! The engine's worker, as it ships, behind the few calls that the simulated worker thread makes.

use std::sync::Arc;

use onceflow_engine::config::{self, Defaults};
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::output::{DEAD_LETTER_SINK, Output, OutputRecord};
use onceflow_engine::plan::Plan;
use onceflow_engine::state::cold::MemoryColdStore;
use onceflow_engine::worker::{StepStart, Worker, WorkerError};
use onceflow_protocol::Frontiers;
use onceflow_protocol::coordinator::Emit;

use crate::row::{DELAY, Input, NO_WINDOW, Row, SHAPES, STEPS, Shape};

/// The plans of all shapes.
#[derive(Clone, Debug)]
pub struct Plans(Vec<Arc<Plan>>);

impl Plans {
    /// Compiles a pipeline for each shape.
    pub fn compile() -> Plans {
        let compile = |shape: &Shape| {
            let text = pipeline(shape);
            match config::compile("sim.yaml", &text, &Defaults::default(), &|_: &str| None) {
                Ok(plan) => Arc::new(plan),
                Err(found) => panic!("the simulator's own pipeline is wrong:\n{found}\n{text}"),
            }
        };
        Plans(SHAPES.iter().map(compile).collect())
    }

    /// The plan of a shape of [`SHAPES`].
    pub fn of(&self, shape: &Shape) -> Arc<Plan> {
        let at = SHAPES.iter().position(|other| other == shape).unwrap_or_default();
        self.0[at].clone()
    }
}

fn pipeline(shape: &Shape) -> String {
    let Shape { size, every, lateness, second, second_runs, updates, sessions, early, deduplicates } = *shape;
    let emit = match (updates, early) {
        (_, true) => "{ early: 15ms }",
        (true, false) => "updates",
        (false, false) => "final",
    };
    let key = if updates && !sessions { "    key: [key, window_start]\n" } else { "" };
    let lateness =
        if updates && sessions { String::new() } else { format!("    allowed_lateness: {lateness}ms\n") };
    let window = match size == every {
        _ if sessions && updates => format!("ttl: {size}ms"),
        _ if sessions => format!("window: {{ session: {size}ms }}"),
        true => format!("window: {{ tumbling: {size}ms }}"),
        false => format!("window: {{ hopping: {size}ms, every: {every}ms }}"),
    };
    let first = match deduplicates {
        true => format!(
            "set: {{ partition: _partition, offset: _offset }}
    deduplicate: {{ key: key, within: {size}ms }}
{lateness}"
        ),
        false => format!(
            "{window}
    group_by: [key]
    aggregate: {{ n: count(*), total: sum(value) }}
{lateness}    emit: {emit}
"
        ),
    };
    let mut text = format!(
        "pipeline: sim
kafka: {{ bootstrap_servers: \"sim:1\" }}
sources:
  events:
    topics: [events]
    format: json
    schema: {{ key: bigint not null, value: bigint not null, ts: bigint not null }}
    event_time: {{ column: ts, unit: ms }}
    watermark: {{ delay: {DELAY}ms }}
    on_error: dead_letter
steps:
  first:
    from: events
    {first}    late: dead_letter
"
    );
    if let Some(size) = second {
        let window = match second_runs {
            true => format!("ttl: {size}ms"),
            false => format!("window: {{ tumbling: {size}ms }}"),
        };
        let (count, sum) = if deduplicates { ("count(*)", "sum(value)") } else { ("sum(n)", "sum(total)") };
        text += &format!(
            "  second:
    from: first
    {window}
    group_by: [key]
    aggregate: {{ n: {count}, total: {sum} }}
    late: drop
"
        );
    }
    text += "sinks:\n";
    for (number, step) in STEPS.iter().take(shape.steps()).enumerate() {
        let key = if shape.emit_of(number) == Emit::Running && !(deduplicates && number == 0) {
            "    key: [key]\n"
        } else {
            key
        };
        text += &format!(
            "  {step}:\n    from: {step}\n    topic: {step}\n{key}    format: {{ type: json, timestamps: epoch_ms }}\n"
        );
    }
    text + "dead_letter: { topic: dead }
checkpoint: { interval: 1s, storage: \"file:///sim\" }
state: { backend: memory, memory: 64MiB }
"
}

/// A worker of the engine.
pub struct EngineTask {
    /// The shipped worker.
    pub worker: Worker,
    plan: Arc<Plan>,
}

impl EngineTask {
    /// Worker `index` of `workers`, with nothing in it.
    pub fn new(
        plan: Arc<Plan>,
        index: usize,
        workers: usize,
        frontiers: &[Frontiers],
        cold: Arc<MemoryColdStore>,
    ) -> Result<EngineTask, WorkerError> {
        let windows = plan.steps.iter().filter_map(|step| step.window.as_ref());
        let start = |(id, (window, frontiers)): (u32, (_, &Frontiers))| StepStart {
            frontiers: *frontiers,
            ..StepStart::fresh(id, window)
        };
        let starts: Vec<_> = (0..).zip(windows.zip(frontiers)).map(start).collect();
        Ok(EngineTask { worker: Worker::new(plan.clone(), index, workers, &starts, cold)?, plan })
    }

    /// Takes records in; their output goes to `rows`. The largest event time.
    pub fn process(
        &mut self,
        partition: usize,
        inputs: &[(i64, Input)],
        rows: &mut Vec<Row>,
    ) -> Result<Option<i64>, WorkerError> {
        let message = |(offset, input): &(i64, Input)| OwnedMessage {
            offset: *offset,
            timestamp: input.ts,
            key: None,
            value: Some(
                format!("{{\"key\":{},\"value\":{},\"ts\":{}}}", input.key, input.value, input.ts)
                    .into_bytes(),
            ),
            headers: vec![],
        };
        let messages: Vec<OwnedMessage> = inputs.iter().map(message).collect();
        let mut output = Output::default();
        let processed = self.worker.process(0, "events", partition as i32, &messages, &mut output)?;
        self.rows(&output, rows);
        Ok(processed.max_event_time)
    }

    /// Reads back what was encoded.
    pub fn rows(&self, output: &Output, rows: &mut Vec<Row>) {
        rows.extend(output.records().map(|record| self.row(&record)));
    }

    fn row(&self, record: &OutputRecord<'_>) -> Row {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        if record.sink() == DEAD_LETTER_SINK {
            let header = |wanted: &str| {
                let found = record.headers().find(|(name, _)| *name == wanted);
                text(found.and_then(|(_, value)| value)).parse::<i64>()
            };
            let place = (header("onceflow.partition"), header("onceflow.offset"));
            let (Ok(partition), Ok(offset)) = place else {
                panic!("a dead letter without provenance: {place:?}")
            };
            return Row::Late { partition: partition as usize, offset };
        }
        let json: serde_json::Value = match serde_json::from_slice(record.value().unwrap_or_default()) {
            Ok(json) => json,
            Err(error) => panic!("{error}: {}", text(record.value())),
        };
        let number = |name: &str| match json[name].as_i64() {
            Some(number) => number,
            None => panic!("no number {name} in {json}"),
        };
        let step = usize::from(self.plan.output_topics[record.topic()].name == STEPS[1]);
        if step == 0 && self.plan.steps[0].deduplicates() {
            return Row::Kept { partition: number("partition") as usize, offset: number("offset") };
        }
        Row::Result {
            step,
            key: number("key") as u8,
            end: if json["window_end"].is_null() { NO_WINDOW } else { number("window_end") },
            count: number("n"),
            sum: number("total"),
        }
    }
}
