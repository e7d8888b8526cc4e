//! What concerns the pipeline as a whole: its name, Kafka, checkpoints, restarts, state.
//!
//! The daemon's defaults have the same form, so the same readers serve both.

use std::path::PathBuf;

use super::fields::{Fields, first, map, not_yet, text, topic};
use super::sinks::create;
use super::values::{duration, number, positive_duration, size, word};
use super::{Checkpoint, DeadLetter, Kafka, Part, Restart, Spanned, State};
use crate::config::document::Node;
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::kafka_properties;
use crate::plan::{Backend, Ids};

/// Least budget: below it nothing but eviction would happen.
const LEAST_MEMORY: u64 = 1 << 20;

pub(super) fn pipeline(node: &Node, found: &mut Vec<Diagnostic>) -> Option<String> {
    let name = text(node, "the name of the pipeline", found)?;
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.value.is_empty() || name.value.len() > 100 || !name.value.chars().all(valid) {
        let message = format!("`{}` cannot name a pipeline", name.value);
        found.push(
            Diagnostic::new(Code::BadValue, name.span, message)
                .hint("up to 100 of the characters a-z, 0-9 and -: topics and transactions carry the name"),
        );
        return None;
    }
    Some(name.value)
}

/// Whose a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// A pipeline's.
    Pipeline,
    /// A source's, which reads from a cluster of its own.
    Source,
    /// All pipelines'.
    Defaults,
}

pub(super) fn kafka(node: Option<&Node>, of: Of, found: &mut Vec<Diagnostic>) -> Kafka {
    let before = found.len();
    let span = node.map_or(Span::default(), |node| first(node.span));
    let mut kafka = Kafka { span, ..Kafka::default() };
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`kafka`", found)) else {
        kafka.invalid = found.len() > before;
        return kafka;
    };
    kafka.bootstrap_servers = fields.get("bootstrap_servers").and_then(|node| {
        let servers = text(node, "`bootstrap_servers`", found)?;
        if servers.value.split(',').any(|server| server.trim().is_empty()) {
            let message = "`bootstrap_servers` is `host:port`, or several of them with commas between";
            found.push(Diagnostic::new(Code::BadValue, servers.span, message));
            return None;
        }
        Some(servers.value)
    });
    let properties =
        fields.get("properties").and_then(|node| map(node, "`properties`", found)).unwrap_or_default();
    for (key, node) in properties {
        let name = key.name.as_str();
        if let Some(reason) = kafka_properties::refusal(name) {
            let message = format!("`{name}` cannot be set: {reason}");
            found.push(Diagnostic::new(Code::RefusedProperty, key.span, message));
        } else if let Some(hint) = kafka_properties::java_only(name) {
            let message = format!("`{name}` is a property of the Java client");
            found.push(Diagnostic::new(Code::JavaProperty, key.span, message).hint(hint));
        } else if let Some(value) = text(node, "a property", found) {
            kafka.properties.push((name.to_owned(), value.value));
        }
    }
    if let Some((key, node)) = fields.entry("ids") {
        let elsewhere = match of {
            Of::Pipeline => None,
            Of::Source => {
                Some("a source has no `ids`: those of the pipeline name its group on every cluster")
            }
            Of::Defaults => {
                Some("`ids` cannot be a default: pipelines with the same ids would fence each other")
            }
        };
        match elsewhere {
            None => kafka.ids = ids(node, found),
            Some(message) => found.push(Diagnostic::new(Code::ByDesign, key.span, message)),
        }
    }
    fields.finish(found);
    kafka.invalid = found.len() > before;
    kafka
}

fn ids(node: &Node, found: &mut Vec<Diagnostic>) -> Ids {
    let Some(mut fields) = Fields::open(node, "`ids`", found) else { return Ids::default() };
    let group_id = fields.get("group_id").and_then(|node| text(node, "`group_id`", found));
    let transactional_id =
        fields.get("transactional_id").and_then(|node| text(node, "`transactional_id`", found));
    let control_topic = fields.get("control_topic").and_then(|node| topic(node, found));
    fields.finish(found);
    for id in group_id.iter().chain(&transactional_id) {
        if id.value.is_empty() {
            found.push(Diagnostic::new(Code::BadValue, id.span, "an id is not nothing"));
        }
    }
    Ids {
        group_id: group_id.map(|id| id.value),
        transactional_id: transactional_id.map(|id| id.value),
        control_topic: control_topic.map(|topic| topic.value),
    }
}

pub(super) fn dead_letter(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Part<DeadLetter> {
    let Some(node) = node else { return Part::Absent };
    let Some(mut fields) = Fields::open(node, "`dead_letter`", found) else { return Part::Invalid };
    let topic = fields.require("topic", found).and_then(|node| topic(node, found));
    let create = fields.get("create").and_then(|node| create(node, found));
    fields.finish(found);
    topic.map_or(Part::Invalid, |topic| Part::Is(DeadLetter { topic, create }))
}

pub(super) fn parallelism(node: &Node, found: &mut Vec<Diagnostic>) -> Option<usize> {
    number(node, "`parallelism`", 1, 256, found).map(|threads| threads as usize)
}

pub(super) fn checkpoint(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`checkpoint`", found)) else {
        return checkpoint;
    };
    if let Some(node) = fields.get("interval") {
        checkpoint.interval = positive_duration(node, "`interval`", found).map(|interval| interval.value);
    }
    if let Some(node) = fields.get("max_records") {
        checkpoint.max_records = number(node, "`max_records`", 1, u64::MAX, found);
    }
    if let Some(node) = fields.get("max_bytes") {
        checkpoint.max_bytes =
            size(node, "`max_bytes`", found).and_then(|bytes| at_least(bytes, 1 << 10, "1KiB", found));
    }
    if let Some(node) = fields.get("timeout") {
        checkpoint.timeout = positive_duration(node, "`timeout`", found).map(|timeout| timeout.value);
    }
    if let Some(node) = fields.get("min_pause") {
        checkpoint.min_pause = duration(node, "`min_pause`", found).map(|pause| pause.value);
    }
    if let Some(node) = fields.get("tolerable_failures") {
        checkpoint.tolerable_failures =
            number(node, "`tolerable_failures`", 0, 1000, found).map(|failures| failures as u32);
    }
    if let Some(node) = fields.get("storage") {
        checkpoint.storage = storage(node, found);
    }
    if let Some(node) = fields.get("retained") {
        checkpoint.retained = number(node, "`retained`", 1, 1000, found).map(|retained| retained as usize);
    }
    fields.later("compression", found);
    fields.finish(found);
    checkpoint
}

/// `file:///directory`.
fn storage(node: &Node, found: &mut Vec<Diagnostic>) -> Option<PathBuf> {
    let url = text(node, "`storage`", found)?;
    match url.value.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Some(PathBuf::from(path)),
        Some((scheme @ ("s3" | "gs" | "az" | "abfs" | "http" | "https"), _)) => {
            found.push(not_yet(url.span, &format!("storage at `{scheme}://`")));
            None
        }
        _ => {
            let message = format!("`storage` is the URL of a directory, `{}` is not", url.value);
            found.push(Diagnostic::new(Code::BadValue, url.span, message).hint(
                "for example `file:///var/lib/onceflow/checkpoints`, an absolute path after `file://`",
            ));
            None
        }
    }
}

/// The names of the strategies, and an empty form of each.
const STRATEGIES: [(&str, Strategy); 4] = [
    ("none", Strategy::None),
    ("fixed", Strategy::Fixed),
    ("exponential", Strategy::Exponential),
    ("failure_rate", Strategy::FailureRate),
];

#[derive(Clone, Copy)]
enum Strategy {
    None,
    Fixed,
    Exponential,
    FailureRate,
}

/// Each strategy has keys of its own.
pub(super) fn restart(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Option<Spanned<Restart>> {
    let node = node?;
    let mut fields = Fields::open(node, "`restart`", found)?;
    let strategy = match fields.get("strategy") {
        Some(node) => word(node, "strategy", &STRATEGIES, &[], found)?.value,
        None => Strategy::Exponential,
    };
    let time = |fields: &mut Fields, key, what, found: &mut Vec<Diagnostic>| {
        fields.get(key).and_then(|node| positive_duration(node, what, found)).map(|time| time.value)
    };
    let count = |fields: &mut Fields, key, what, found: &mut Vec<Diagnostic>| {
        fields.get(key).and_then(|node| number(node, what, 1, 1_000_000, found)).map(|count| count as u32)
    };
    let value = match strategy {
        Strategy::None => Restart::None,
        Strategy::Fixed => Restart::Fixed {
            attempts: count(&mut fields, "attempts", "`attempts`", found),
            delay: time(&mut fields, "delay", "`delay`", found),
        },
        Strategy::Exponential => Restart::Exponential {
            initial: time(&mut fields, "initial", "`initial`", found),
            max: time(&mut fields, "max", "`max`", found),
        },
        Strategy::FailureRate => Restart::FailureRate {
            failures: count(&mut fields, "failures", "`failures`", found),
            per: time(&mut fields, "per", "`per`", found),
            delay: time(&mut fields, "delay", "`delay`", found),
        },
    };
    fields.finish(found);
    Some(Spanned { value, span: first(node.span) })
}

pub(super) fn state(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> State {
    let mut state = State::default();
    let Some(mut fields) = node.and_then(|node| Fields::open(node, "`state`", found)) else { return state };
    if let Some(node) = fields.get("backend") {
        let backends = [("rocksdb", Backend::RocksDb), ("memory", Backend::Memory)];
        state.backend = word(node, "backend", &backends, &[], found).map(|backend| backend.value);
    }
    if let Some(node) = fields.get("dir") {
        state.dir = text(node, "`dir`", found).and_then(|dir| {
            if dir.value.contains("://") || dir.value.is_empty() {
                let message = "`dir` is a directory of this machine, not a URL";
                found.push(Diagnostic::new(Code::BadValue, dir.span, message));
                return None;
            }
            Some(PathBuf::from(dir.value))
        });
    }
    if let Some(node) = fields.get("memory") {
        state.memory_bytes =
            size(node, "`memory`", found).and_then(|bytes| at_least(bytes, LEAST_MEMORY, "1MiB", found));
    }
    fields.later("rocksdb", found);
    fields.finish(found);
    state
}

fn at_least(size: Spanned<u64>, least: u64, shown: &str, found: &mut Vec<Diagnostic>) -> Option<u64> {
    if size.value < least {
        let message = format!("too small: at least {shown}");
        found.push(Diagnostic::new(Code::BadValue, size.span, message));
        return None;
    }
    Some(size.value)
}
