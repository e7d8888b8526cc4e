//! `sinks`.

use super::fields::{Fields, first, map, not_yet, stream_name, text, texts, topic};
use super::sources::LATER_FORMATS;
use super::values::{sql, word};
use super::{Part, Sink};
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic};
use crate::plan::Timestamps;

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
        topic: None,
        key: Part::Absent,
        filter: None,
        timestamps: Timestamps::Rfc3339,
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
    if let Some((key, _)) = fields.entry("topic_from") {
        found.push(not_yet(key.span, "`topic_from`"));
        fields.get("topic");
    } else {
        sink.topic = fields.require("topic", found).and_then(|node| topic(node, found));
    }
    if let Some(node) = fields.get("key") {
        sink.key = texts(node, "`key`", found).map_or(Part::Invalid, Part::Is);
    }
    sink.filter = fields.get("where").and_then(|node| sql(node, "`where`", found));
    if let Some(node) = fields.require("format", found) {
        format(node, &mut sink, found);
    }
    if let Some((key, _)) = fields.entry("kafka") {
        let message = "a sink cannot have a cluster of its own";
        let hint = "sinks, dead letters and decisions share one transaction, and that is one cluster's";
        found.push(Diagnostic::new(Code::ByDesign, key.span, message).hint(hint));
    }
    for name in ["headers", "timestamp", "partition", "allowed_topics", "create", "subject", "register"] {
        fields.later(name, found);
    }
    fields.finish(found);
    sink
}

/// `json`, or `{type: json, timestamps: …}`.
fn format(node: &Node, sink: &mut Sink, found: &mut Vec<Diagnostic>) {
    let Value::Map(_) = &node.value else {
        word(node, "format", &[("json", ())], LATER_FORMATS, found);
        return;
    };
    let Some(mut fields) = Fields::open(node, "`format`", found) else { return };
    if let Some(node) = fields.require("type", found) {
        word(node, "type", &[("json", ())], LATER_FORMATS, found);
    }
    if let Some(node) = fields.get("timestamps") {
        let words = [("rfc3339", Timestamps::Rfc3339), ("epoch_ms", Timestamps::EpochMs)];
        if let Some(timestamps) = word(node, "timestamps", &words, &[], found) {
            sink.timestamps = timestamps.value;
        }
    }
    fields.later("decimals", found);
    fields.finish(found);
}
