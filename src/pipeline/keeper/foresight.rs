//! What a deployment would do to a pipeline as it runs now, told beforehand: reads the newest decision and its manifest, and touches
//! nothing.

use std::time::Instant;

use onceflow_engine::plan::{Plan, Source};
use onceflow_protocol::Decision;

use super::super::change::match_steps;
use super::super::context::{Context, SINKS, open_storage};
use super::restore::read_manifest;
use super::start::{control_reader, parse_decision};
use super::{CALL, Done, Trouble};
use crate::kafka::{Admin, Isolation, Newest, Until};

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Foresight {
    /// The epoch that the pipeline would go on from; `None`: it would start for the first time.
    pub epoch: Option<u64>,
    /// What an operator should know, a sentence each.
    pub notes: Vec<String>,
    /// Why the start would be refused, with the way out.
    pub refusals: Vec<String>,
}

/// Looks at what the pipeline of `context` would go on from.
///
/// # Errors
/// If the brokers or the storage cannot be asked, or hold what cannot be understood.
pub fn foresee(context: &Context) -> Result<Foresight, String> {
    look(context).map_err(|trouble| match trouble {
        Trouble::Refused(reason) => reason,
        Trouble::Failed(failure) => failure.message,
    })
}

fn look(context: &Context) -> Done<Foresight> {
    let plan = &context.plan;
    if Admin::open(&context.connections[SINKS])?.describe_topic(&context.control_topic, CALL)?.is_none() {
        return Ok(Foresight::default());
    }
    let reader = control_reader(context, Isolation::Committed)?;
    let enough = |newest: &Newest| newest.get(Decision::KEY.as_bytes()).is_some();
    let newest = reader.newest(Until::End, &enough, Instant::now() + CALL)?;
    let Some(record) = newest.get(Decision::KEY.as_bytes()) else { return Ok(Foresight::default()) };
    let decision = parse_decision(record)?;
    let mut found = Foresight { epoch: Some(decision.epoch.0), ..Foresight::default() };
    let manifest = match &decision.manifest {
        None => None,
        Some(reference) => {
            let storage = open_storage(plan, &context.namespace)?;
            Some(read_manifest(&storage, &plan.pipeline, reference)?)
        }
    };
    match match_steps(plan, &decision, manifest.as_ref()) {
        Ok(matched) => found.notes = matched.notes,
        Err(problems) => found.refusals = problems,
    }
    if let Some(before) =
        manifest.map(|manifest| manifest.workers).filter(|before| *before != plan.parallelism)
    {
        let now = plan.parallelism;
        found.notes.push(format!(
            "parallelism goes from {before} to {now}: the open windows are handed over at the start"
        ));
    }
    found.notes.extend(sources(plan, &decision));
    Ok(found)
}

/// What becomes of the positions.
fn sources(plan: &Plan, decision: &Decision) -> Vec<String> {
    let mut notes = vec![];
    let knows =
        |name: &str, topic: &str| decision.positions.iter().any(|at| at.source == name && at.topic == topic);
    for source in &plan.sources {
        let former = source.was.as_deref().unwrap_or(&source.name);
        for topic in source.topics.iter().filter(|topic| !knows(&source.name, topic) && !knows(former, topic))
        {
            let name = &source.name;
            notes.push(format!(
                "source `{name}` has not read topic `{topic}` yet: it begins where `start` says"
            ));
        }
    }
    let is_read = |name: &str, topic: &str| {
        let is_it = |source: &&Source| source.name == name || source.was.as_deref() == Some(name);
        plan.sources.iter().filter(is_it).any(|source| source.reads(topic))
    };
    let mut left: Vec<_> =
        decision.positions.iter().map(|at| (at.source.as_str(), at.topic.as_str())).collect();
    left.dedup();
    for (source, topic) in left.into_iter().filter(|(source, topic)| !is_read(source, topic)) {
        notes.push(format!(
            "source `{source}` no longer reads topic `{topic}`: its position is let go, and a source of another name that reads it \
             begins where its `start` says (if it was renamed: `was: {source}`)"
        ));
    }
    notes
}
