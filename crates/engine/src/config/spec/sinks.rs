//! `sinks`.

use std::collections::BTreeMap;

use super::fields::{Fields, first, list, map, stream_name, text, texts, topic};
use super::sources::csv;
use super::values::{number, sql, word};
use super::{HeaderSpec, KeyFormat, Named, Part, Sink, Spanned, TopicFrom};
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic};
use crate::plan::{CreateTopic, Csv, Decimals, JsonFormat, SinkValue, Timestamps};

/// Formats that come later.
const LATER_FORMATS: &[&str] = &["avro", "protobuf"];

pub(super) fn read(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Vec<Sink> {
    let Some(entries) = node.and_then(|node| map(node, "`sinks`", found)) else { return vec![] };
    if let (Some(node), []) = (node, entries) {
        found.push(Diagnostic::new(Code::MissingKey, first(node.span), "there is no sink"));
    }
    entries.iter().map(|(key, node)| sink(key, node, found)).collect()
}

fn sink(key: &Key, node: &Node, found: &mut Vec<Diagnostic>) -> Sink {
    let mut sink = Sink {
        name: stream_name(key, "a sink", found),
        from: None,
        topic: Part::Invalid,
        create: None,
        key: Part::Absent,
        key_format: None,
        filter: None,
        headers: Part::Absent,
        timestamp: None,
        partition: None,
        value: Spanned { value: SinkValue::Json(JsonFormat::DEFAULT), span: key.span },
    };
    let Some(fields) = Fields::open(node, "a sink", found) else { return sink };
    let mut fields = fields.named(key.span);
    sink.from = fields.require("from", found).and_then(|node| match &node.value {
        Value::List(_) => {
            let message = "a sink reads one stream";
            let hint = "make a step with `from: [a, b]`, and let the sink read that";
            found.push(Diagnostic::new(Code::WrongType, first(node.span), message).hint(hint));
            None
        }
        _ => text(node, "`from`", found),
    });
    sink.topic = topics(&mut fields, found).map_or(Part::Invalid, Part::Is);
    sink.create = fields.get("create").and_then(|node| create(node, found));
    if let Some(node) = fields.get("key") {
        sink.key = texts(node, "`key`", found).map_or(Part::Invalid, Part::Is);
    }
    sink.key_format = fields.get("key_format").and_then(|node| {
        let formats = [("text", KeyFormat::Text), ("json", KeyFormat::Json), ("raw", KeyFormat::Raw)];
        word(node, "key_format", &formats, &[], found)
    });
    sink.filter = fields.get("where").and_then(|node| sql(node, "`where`", found));
    if let Some(node) = fields.get("headers") {
        sink.headers = headers(node, found).map_or(Part::Invalid, Part::Is);
    }
    sink.timestamp = fields.get("timestamp").and_then(|node| sql(node, "`timestamp`", found));
    sink.partition = fields.get("partition").and_then(|node| sql(node, "`partition`", found));
    if let Some(node) = fields.require("format", found) {
        sink.value = Spanned { value: format(node, found), span: node.span };
    }
    if let Some((key, _)) = fields.entry("kafka") {
        let message = "a sink cannot have a cluster of its own";
        let hint = "sinks, dead letters and decisions share one transaction, and that is one cluster's";
        found.push(Diagnostic::new(Code::ByDesign, key.span, message).hint(hint));
    }
    for name in ["subject", "register"] {
        fields.later(name, found);
    }
    fields.finish(found);
    sink
}

/// `topic`, or `topic_from` with `allowed_topics`.
fn topics(fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Option<TopicFrom> {
    let from = fields.entry("topic_from");
    let allowed = fields.entry("allowed_topics");
    let Some((from, column)) = from else {
        if let Some((key, _)) = allowed {
            let message = "`allowed_topics` belongs to `topic_from`";
            found.push(
                Diagnostic::new(Code::BadValue, key.span, message)
                    .hint("add `topic_from: COLUMN`, or name one topic with `topic`"),
            );
            fields.get("topic");
            return None;
        }
        return fields.require("topic", found).and_then(|node| topic(node, found)).map(TopicFrom::One);
    };
    if let Some((key, _)) = fields.entry("topic") {
        let message = "a sink has `topic` or `topic_from`, not both";
        found.push(Diagnostic::new(Code::BadValue, key.span, message));
    }
    let column = text(column, "`topic_from`", found);
    let Some((key, node)) = allowed else {
        let message = "`topic_from` needs `allowed_topics`";
        let hint = "list every topic that the column may name: they are checked at the start, and a record cannot write elsewhere";
        found.push(Diagnostic::new(Code::MissingKey, from.span, message).hint(hint));
        return None;
    };
    let items = list(node, "`allowed_topics`", found)?;
    if items.is_empty() {
        found.push(Diagnostic::new(Code::BadValue, key.span, "`allowed_topics` names nothing"));
    }
    let mut allowed: Vec<Spanned<String>> = vec![];
    for node in items {
        let Some(topic) = topic(node, found) else { continue };
        match allowed.iter().any(|earlier| earlier.value == topic.value) {
            false => allowed.push(topic),
            true => {
                let message = format!("`{}` is there twice", topic.value);
                found.push(Diagnostic::new(Code::Repeated, topic.span, message));
            }
        }
    }
    Some(TopicFrom::Column { column: column?, allowed })
}

/// `{partitions, replication_factor, config}`, each optional.
pub(super) fn create(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Spanned<CreateTopic>> {
    let mut fields = Fields::open(node, "`create`", found)?;
    let mut count = |name: &'static str, most: u64, fields: &mut Fields| {
        let node = fields.get(name)?;
        number(node, &format!("`{name}`"), 1, most, found).map(|count| count as i32)
    };
    let partitions = count("partitions", 100_000, &mut fields);
    let replication_factor = count("replication_factor", i16::MAX as u64, &mut fields);
    let config = fields.get("config").and_then(|node| map(node, "`config`", found)).unwrap_or_default();
    let setting = |(key, node): &(Key, Node), found: &mut Vec<Diagnostic>| {
        Some((key.name.clone(), text(node, "a setting of a topic", found)?.value))
    };
    let config: BTreeMap<String, String> = config.iter().filter_map(|entry| setting(entry, found)).collect();
    fields.finish(found);
    let value = CreateTopic { partitions, replication_factor, config };
    Some(Spanned { value, span: first(node.span) })
}

/// `forward`, `none`, or a map of names and expressions.
fn headers(node: &Node, found: &mut Vec<Diagnostic>) -> Option<HeaderSpec> {
    if let Value::Map(entries) = &node.value {
        let header = |(key, node): &(Key, Node), found: &mut Vec<Diagnostic>| {
            if key.name.is_empty() {
                found.push(Diagnostic::new(Code::BadValue, key.span, "a header needs a name"));
            }
            let name = Spanned { value: key.name.clone(), span: key.span };
            Named { name, sql: sql(node, &format!("`{}`", key.name), found) }
        };
        return Some(HeaderSpec::Named(entries.iter().map(|entry| header(entry, found)).collect()));
    }
    let span = node.span;
    let words = [("forward", true), ("none", false)];
    let forward = word(node, "headers", &words, &[], found)?.value;
    Some(if forward { HeaderSpec::Forward(span) } else { HeaderSpec::None })
}

/// What a value is written as.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Json,
    Csv,
    Raw,
}

/// `json`, `csv`, `raw`, or a map of the type and what else there is to say of JSON and CSV.
fn format(node: &Node, found: &mut Vec<Diagnostic>) -> SinkValue {
    let mut format = JsonFormat::DEFAULT;
    let words = [("json", Type::Json), ("csv", Type::Csv), ("raw", Type::Raw)];
    let value = |of: Option<Type>, csv: Csv, format: JsonFormat| match of {
        None | Some(Type::Json) => SinkValue::Json(format),
        Some(Type::Csv) => SinkValue::Csv(csv, format),
        Some(Type::Raw) => SinkValue::Incoming,
    };
    let Value::Map(_) = &node.value else {
        let word = word(node, "format", &words, LATER_FORMATS, found);
        return value(word.map(|word| word.value), Csv::default(), format);
    };
    let Some(mut fields) = Fields::open(node, "`format`", found) else { return SinkValue::Json(format) };
    let of = fields.require("type", found).and_then(|node| word(node, "type", &words, LATER_FORMATS, found));
    let of = of.map(|word| word.value);
    let csv = if of == Some(Type::Csv) { csv(&mut fields, found) } else { Csv::default() };
    if of != Some(Type::Raw)
        && let Some(node) = fields.get("timestamps")
    {
        let words = [("rfc3339", Timestamps::Rfc3339), ("epoch_ms", Timestamps::EpochMs)];
        if let Some(timestamps) = word(node, "timestamps", &words, &[], found) {
            format.timestamps = timestamps.value;
        }
    }
    if matches!(of, None | Some(Type::Json))
        && let Some(node) = fields.get("decimals")
    {
        let words = [("number", Decimals::Number), ("string", Decimals::String)];
        if let Some(decimals) = word(node, "decimals", &words, &[], found) {
            format.decimals = decimals.value;
        }
    }
    fields.finish(found);
    value(of, csv, format)
}
