//! A pipeline's own tests: what is written against what is expected.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::{Rehearsal, Written};
use crate::formats::canonical_json::canonical;
use crate::plan::{Content, Expected, Happening, PipelineTest, Plan};
use crate::worker::WorkerError;

/// Why a test has failed.
#[derive(Debug)]
pub enum Failure {
    /// The pipeline stopped.
    Stopped(WorkerError),
    /// Something else was written.
    Differs(Vec<Difference>),
}

/// How what one sink has written differs from what was expected.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The sink's name, or "dead letters".
    pub of: String,
    /// What was expected and not written.
    pub missing: Vec<String>,
    /// What was written and not expected.
    pub unexpected: Vec<String>,
    /// Keys whose records came in another order.
    pub disordered: Vec<String>,
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let differences = match self {
            Failure::Stopped(error) => return writeln!(f, "the pipeline stopped: {error}"),
            Failure::Differs(differences) => differences,
        };
        for Difference { of, missing, unexpected, disordered } in differences {
            writeln!(f, "{of}:")?;
            missing.iter().try_for_each(|record| writeln!(f, "  - expected: {record}"))?;
            unexpected.iter().try_for_each(|record| writeln!(f, "  + written:  {record}"))?;
            disordered
                .iter()
                .try_for_each(|key| writeln!(f, "  ! in another order: records of key {key}"))?;
        }
        Ok(())
    }
}

/// Runs one test of a plan.
///
/// # Errors
/// Why it has failed.
pub fn rehearse(plan: &Arc<Plan>, test: &PipelineTest) -> Result<(), Failure> {
    let written = perform(plan, test).map_err(Failure::Stopped)?;
    let sink = |(sink, expected): &(usize, Vec<Expected>)| {
        let written: Vec<&Written> = written.iter().filter(|record| record.sink == Some(*sink)).collect();
        compare(plan, &plan.sinks[*sink].name, expected, &written)
    };
    let letters: Vec<&Written> = written.iter().filter(|record| record.sink.is_none()).collect();
    let differences: Vec<Difference> = test
        .output
        .iter()
        .filter_map(sink)
        .chain(compare(plan, "dead letters", &test.dead_letters, &letters))
        .collect();
    if differences.is_empty() { Ok(()) } else { Err(Failure::Differs(differences)) }
}

/// What the pipeline writes.
fn perform(plan: &Arc<Plan>, test: &PipelineTest) -> Result<Vec<Written>, WorkerError> {
    let workers = plan.parallelism.max(1);
    let mut rehearsal = Rehearsal::new(plan.clone(), workers)?;
    // They all are there from the beginning, as partitions are.
    for happening in &test.input {
        if let Happening::Record { source, topic, partition, .. } = happening {
            rehearsal.partition(*source, topic, *partition);
        }
    }
    for happening in &test.input {
        match happening {
            Happening::Record { source, topic, partition, message } => {
                let partition = rehearsal.partition(*source, topic, *partition);
                rehearsal.give(partition, vec![message.clone()])?;
            }
            Happening::Wait(ms) => rehearsal.wait(*ms),
            Happening::Checkpoint => rehearsal.checkpoint()?,
            Happening::Watermark(watermark) => rehearsal.checkpoint_at(*watermark)?,
            Happening::Crash => rehearsal.crash(workers)?,
            Happening::End => rehearsal.end()?,
        }
    }
    rehearsal.checkpoint()?;
    Ok(rehearsal.written().to_vec())
}

/// Each expected record takes the first written one that it describes and no other has taken. Records of one key must come in the order in
/// which they are expected; others need not.
fn compare(plan: &Plan, of: &str, expected: &[Expected], written: &[&Written]) -> Option<Difference> {
    let mut taken = vec![false; written.len()];
    let mut difference =
        Difference { of: of.to_owned(), missing: vec![], unexpected: vec![], disordered: vec![] };
    let mut last_of_key: Vec<(Option<&[u8]>, usize)> = vec![];
    for expected in expected {
        let found = (0..written.len()).find(|at| !taken[*at] && describes(plan, expected, written[*at]));
        let Some(at) = found else {
            difference.missing.push(expectation(expected));
            continue;
        };
        taken[at] = true;
        let key = written[at].key.as_deref();
        match last_of_key.iter_mut().find(|(known, _)| *known == key) {
            Some((_, last)) if *last > at => difference.disordered.push(text(key)),
            Some((_, last)) => *last = at,
            None => last_of_key.push((key, at)),
        }
    }
    let rest = written.iter().zip(&taken).filter(|(_, taken)| !**taken);
    difference.unexpected.extend(rest.map(|(record, _)| description(plan, record)));
    difference.disordered.dedup();
    let agrees =
        difference.missing.is_empty() && difference.unexpected.is_empty() && difference.disordered.is_empty();
    (!agrees).then_some(difference)
}

fn describes(plan: &Plan, expected: &Expected, written: &Written) -> bool {
    let Expected { value, key, timestamp, topic, partition, headers, reason, step } = expected;
    let has = |content: &Option<Content>, bytes: Option<&[u8]>| {
        content.as_ref().is_none_or(|content| is(content, bytes))
    };
    let has_header = |(name, content): &(String, Content)| {
        written.headers.iter().any(|(header, bytes)| header == name && is(content, bytes.as_deref()))
    };
    let says = |wanted: &Option<String>, header: &str| {
        wanted.as_ref().is_none_or(|wanted| *wanted == written.header(header))
    };
    has(value, written.value.as_deref())
        && has(key, written.key.as_deref())
        && timestamp.is_none_or(|timestamp| timestamp == written.timestamp)
        && topic.as_ref().is_none_or(|topic| *topic == plan.output_topics[written.topic].name)
        && partition.is_none_or(|partition| Some(partition) == written.partition)
        && headers.iter().all(has_header)
        && says(reason, "onceflow.reason")
        && says(step, "onceflow.step")
}

fn is(content: &Content, bytes: Option<&[u8]>) -> bool {
    match content {
        Content::Null => bytes.is_none(),
        Content::Text(text) => bytes == Some(text.as_bytes()),
        Content::Json(json) => {
            let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.and_then(canonical).is_some_and(|written| Some(written) == canonical(json))
        }
    }
}

/// An expected record, for people.
fn expectation(expected: &Expected) -> String {
    let Expected { value, key, timestamp, topic, partition, headers, reason, step } = expected;
    let mut parts = vec![];
    let mut part = |name: &str, text: Option<String>| parts.extend(text.map(|text| format!("{name} {text}")));
    part("key", key.as_ref().map(content));
    part("timestamp", timestamp.map(|timestamp| timestamp.to_string()));
    part("topic", topic.clone());
    part("partition", partition.map(|partition| partition.to_string()));
    for (name, header) in headers {
        part("header", Some(format!("{name}={}", content(header))));
    }
    part("reason", reason.clone());
    part("step", step.clone());
    beside(value.as_ref().map_or("any value".to_owned(), content), &parts)
}

/// A record that was written, for people.
fn description(plan: &Plan, written: &Written) -> String {
    let shown = |bytes: &Option<Vec<u8>>| {
        let json = bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(canonical);
        json.unwrap_or_else(|| text(bytes.as_deref()))
    };
    let mut parts = vec![format!("key {}", shown(&written.key)), format!("timestamp {}", written.timestamp)];
    parts.extend(written.partition.map(|partition| format!("partition {partition}")));
    match written.sink {
        None => parts.push(format!(
            "reason {}, step {}: {}",
            written.header("onceflow.reason"),
            written.header("onceflow.step"),
            written.header("onceflow.error")
        )),
        Some(_) => {
            parts.push(format!("topic {}", plan.output_topics[written.topic].name));
            for (name, value) in &written.headers {
                parts.push(format!("header {name}={}", text(value.as_deref())));
            }
        }
    }
    beside(shown(&written.value), &parts)
}

fn beside(value: String, parts: &[String]) -> String {
    if parts.is_empty() { value } else { format!("{value} ({})", parts.join(", ")) }
}

fn content(content: &Content) -> String {
    match content {
        Content::Null => "null".to_owned(),
        Content::Text(text) => text.clone(),
        Content::Json(json) => canonical(json).unwrap_or_else(|| json.clone()),
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or("null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}
