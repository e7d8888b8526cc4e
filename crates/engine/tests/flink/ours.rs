//! What Onceflow answers: the pipeline of a case, on the engine's own rehearsal.

use std::fmt::Write;
use std::sync::Arc;

use onceflow_engine::config::{self, Defaults};
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::plan::Plan;
use onceflow_engine::rehearsal::{Rehearsal, Written};
use onceflow_engine::worker::WorkerError;
use onceflow_protocol::EventTime;
use serde_json::Value;

use crate::case::{Answer, Case, Event, Row, Step, Windows};

/// How a case is run; it must make no difference.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub workers: usize,
    /// After each event.
    pub evict: bool,
    /// After each event.
    pub crash: bool,
}

pub const MODES: [Mode; 3] = [
    Mode { workers: 1, evict: false, crash: false },
    Mode { workers: 2, evict: true, crash: false },
    Mode { workers: 3, evict: false, crash: true },
];

/// When results are emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    Final,
    Updates,
}

/// A case's pipeline.
pub fn plan(case: &Case, emit: Emit) -> Arc<Plan> {
    let window = match case.windows {
        Windows::Tumbling { size, offset } => format!("{{ tumbling: {size}ms{} }}", shifted(offset)),
        Windows::Hopping { size, every, offset } => {
            format!("{{ hopping: {size}ms, every: {every}ms{} }}", shifted(offset))
        }
        Windows::Cumulative { size, every, offset } => {
            format!("{{ cumulative: {size}ms, every: {every}ms{} }}", shifted(offset))
        }
        Windows::Session { gap } => format!("{{ session: {gap}ms }}"),
    };
    let emit = match emit {
        Emit::Final => "final",
        Emit::Updates => "updates",
    };
    let text = format!(
        "pipeline: flink
kafka: {{ bootstrap_servers: \"kafka:1\" }}
sources:
  events:
    topics: [events]
    format: json
    schema: {{ k: varchar not null, v: bigint not null, ts: bigint not null }}
    event_time: {{ column: ts, unit: ms }}
    on_error: dead_letter
steps:
  totals:
    from: events
    window: {window}
    group_by: [k]
    aggregate: {{ n: count(*), total: sum(v) }}
    allowed_lateness: {}ms
    emit: {emit}
    late: dead_letter
sinks:
  totals: {{ from: totals, topic: totals, key: [k, window_start, window_end], format: {{ type: json, timestamps: epoch_ms }} }}
dead_letter: {{ topic: dead }}
checkpoint: {{ storage: \"file:///tmp/onceflow-cases\" }}
",
        case.lateness
    );
    let plan = config::compile(&case.name, &text, &Defaults::default(), &|_: &str| None);
    Arc::new(plan.unwrap_or_else(|found| panic!("\n{found}")))
}

fn shifted(offset: i64) -> String {
    let mut text = String::new();
    if offset != 0 {
        write!(text, ", offset: {offset}ms").expect("a string takes everything");
    }
    text
}

/// What the pipeline answers.
///
/// # Errors
/// If it stops.
pub fn answer(case: &Case, plan: &Arc<Plan>, mode: Mode) -> Result<Answer, WorkerError> {
    let mut rehearsal = Rehearsal::new(plan.clone(), mode.workers)?;
    for step in &case.steps {
        match step {
            Step::Watermark(watermark) => rehearsal.checkpoint_at(*watermark)?,
            Step::Event { partition, event: Event { key, time, value } } => {
                let partition = rehearsal.partition(0, "events", *partition);
                let value = format!("{{\"k\":\"{key}\",\"v\":{value},\"ts\":{time}}}").into_bytes();
                let message = OwnedMessage { timestamp: 1, value: Some(value), ..OwnedMessage::default() };
                rehearsal.give(partition, vec![message])?;
                if mode.evict {
                    rehearsal.evict()?;
                }
                if mode.crash {
                    rehearsal.crash(mode.workers)?;
                }
            }
        }
    }
    rehearsal.end()?;
    let mut answer = Answer::default();
    for written in rehearsal.written() {
        add(&mut answer, written, case.windows);
    }
    Ok(answer)
}

fn add(answer: &mut Answer, written: &Written, windows: Windows) {
    let value = written.value.as_deref().expect("no row is taken back");
    let value: Value = serde_json::from_slice(value).expect("JSON");
    let number = |name: &str| value[name].as_i64().unwrap_or_else(|| panic!("{name} of {value}"));
    let key = value["k"].as_str().expect("a key").to_owned();
    if written.sink.is_none() {
        match &*written.header("onceflow.reason") {
            "late" => answer.late.push(Event { key, time: number("ts"), value: number("v") }),
            // Of a result: it is one of so many events.
            "overflow" => answer.refused.push(format!("overflow {key} {}", number("n"))),
            reason => answer.refused.push(format!("{reason} {key} {} {}", number("ts"), number("v"))),
        }
        return;
    }
    let [start, end] = ["window_start", "window_end"].map(number);
    // Flink's is one millisecond before the end, of sessions too: docs/flink.md says why ours is not.
    let last = if matches!(windows, Windows::Session { .. }) { end } else { end - 1 };
    assert_eq!(written.timestamp, last.min(EventTime::MAX.ms()), "the timestamp of {value}");
    answer.rows.push(Row { key, start, end, count: number("n"), sum: number("total") });
}
