//! `tests`.

use super::fields::{Fields, first, list, map, text};
use super::values::{duration, instant, number, word};
use super::{Given, GivenRecord, PipelineTest, Spanned};
use crate::config::document::{Key, Node, Value};
use crate::dead_letter::Reason;
use crate::diagnostics::{Code, Diagnostic};
use crate::message::OwnedMessage;
use crate::plan::{Content, Expected, Happening};

/// The timestamp of a record that says none: the first that Kafka can carry.
const TIMESTAMP: i64 = 1;

pub(super) fn read(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Vec<PipelineTest> {
    let entries = node.and_then(|node| map(node, "`tests`", found)).unwrap_or_default();
    entries.iter().filter_map(|(key, node)| test(key, node, found)).collect()
}

fn test(key: &Key, node: &Node, found: &mut Vec<Diagnostic>) -> Option<PipelineTest> {
    let mut fields = Fields::open(node, "a test", found)?.named(key.span);
    let input = fields.require("input", found).and_then(|node| list(node, "`input`", found));
    let output = fields.get("output").and_then(|node| map(node, "`output`", found)).unwrap_or_default();
    let letters = fields.get("dead_letters");
    fields.finish(found);
    let sink = |(key, node): &(Key, Node), found: &mut Vec<Diagnostic>| {
        let name = Spanned { value: key.name.clone(), span: key.span };
        let records = list(node, "what a sink writes", found).unwrap_or_default();
        (name, records.iter().filter_map(|record| expected(record, found)).collect())
    };
    let letters = letters.and_then(|node| list(node, "`dead_letters`", found)).unwrap_or_default();
    Some(PipelineTest {
        name: Spanned { value: key.name.clone(), span: key.span },
        input: input.unwrap_or_default().iter().filter_map(|node| given(node, found)).collect(),
        output: output.iter().map(|entry| sink(entry, found)).collect(),
        dead_letters: letters.iter().filter_map(|record| letter(record, found)).collect(),
    })
}

/// `checkpoint`, `crash`, `end`, `{wait: 30s}`, `{watermark: …}`, or a record.
fn given(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Given> {
    let Value::Map(entries) = &node.value else {
        let words =
            [("checkpoint", Happening::Checkpoint), ("crash", Happening::Crash), ("end", Happening::End)];
        let names = words.clone().map(|(name, _)| (name, name));
        let name = word(node, "input", &names, &[], found)?.value;
        let (_, happening) = words.into_iter().find(|(word, _)| *word == name)?;
        return Some(Given::Happening(happening));
    };
    let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
    if has("wait") || has("watermark") {
        let mut fields = Fields::open(node, "what happens", found)?;
        let wait = fields.get("wait").and_then(|node| duration(node, "`wait`", found));
        let watermark = fields.get("watermark").and_then(|node| instant(node, "`watermark`", found));
        fields.finish(found);
        if has("wait") && has("watermark") {
            let message = "`wait` and `watermark` are two things: an entry each";
            found.push(Diagnostic::new(Code::BadValue, first(node.span), message));
        }
        let wait = wait.map(|wait| Happening::Wait(wait.value.as_millis() as u64));
        return wait.or(watermark.map(Happening::Watermark)).map(Given::Happening);
    }
    record(node, found).map(Given::Record)
}

fn record(node: &Node, found: &mut Vec<Diagnostic>) -> Option<GivenRecord> {
    let mut fields = Fields::open(node, "a record", found)?;
    let source = fields.get("source").and_then(|node| text(node, "`source`", found));
    let topic = fields.get("topic").and_then(|node| text(node, "`topic`", found));
    let partition = fields.get("partition").and_then(|node| partition(node, found));
    let timestamp = fields.get("timestamp").map(|node| instant(node, "`timestamp`", found));
    let key = fields.get("key").map_or(Content::Null, content);
    let value = fields.require("value", found).map_or(Content::Null, content);
    let headers = headers(fields.get("headers"), found);
    fields.finish(found);
    let message = OwnedMessage {
        offset: 0,
        timestamp: timestamp.unwrap_or(Some(TIMESTAMP))?,
        key: bytes(key),
        value: bytes(value),
        headers: headers.into_iter().map(|(name, value)| (name, bytes(value))).collect(),
    };
    Some(GivenRecord { span: first(node.span), source, topic, partition: partition.unwrap_or(0), message })
}

fn expected(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Expected> {
    let mut fields = Fields::open(node, "a written record", found)?;
    let expected = Expected {
        value: fields.get("value").map(content),
        key: fields.get("key").map(content),
        timestamp: fields.get("timestamp").and_then(|node| instant(node, "`timestamp`", found)),
        topic: fields.get("topic").and_then(|node| Some(text(node, "`topic`", found)?.value)),
        partition: fields.get("partition").and_then(|node| partition(node, found)),
        headers: headers(fields.get("headers"), found),
        ..Expected::default()
    };
    fields.finish(found);
    Some(expected)
}

fn letter(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Expected> {
    let mut fields = Fields::open(node, "a dead letter", found)?;
    let reasons = Reason::ALL.map(|reason| (reason.as_str(), reason));
    let reason = fields.get("reason").and_then(|node| word(node, "reason", &reasons, &[], found));
    let expected = Expected {
        value: fields.get("value").map(content),
        key: fields.get("key").map(content),
        reason: reason.map(|reason| reason.value.as_str().to_owned()),
        step: fields.get("step").and_then(|node| Some(text(node, "`step`", found)?.value)),
        ..Expected::default()
    };
    fields.finish(found);
    Some(expected)
}

fn partition(node: &Node, found: &mut Vec<Diagnostic>) -> Option<i32> {
    number(node, "`partition`", 0, i32::MAX as u64, found).map(|number| number as i32)
}

fn headers(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Vec<(String, Content)> {
    let entries = node.and_then(|node| map(node, "`headers`", found)).unwrap_or_default();
    entries.iter().map(|(key, node)| (key.name.clone(), content(node))).collect()
}

/// A map or a list is JSON, anything else the text itself.
fn content(node: &Node) -> Content {
    match &node.value {
        Value::Scalar(scalar) if scalar.is_null() => Content::Null,
        Value::Scalar(scalar) => Content::Text(scalar.text.clone()),
        _ => {
            let mut text = String::new();
            json(node, &mut text);
            Content::Json(text)
        }
    }
}

fn bytes(content: Content) -> Option<Vec<u8>> {
    match content {
        Content::Null => None,
        Content::Text(text) | Content::Json(text) => Some(text.into_bytes()),
    }
}

/// YAML as JSON. Without quotes a number stays one, digit for digit, as do `true`, `false` and `null`.
fn json(node: &Node, out: &mut String) {
    match &node.value {
        Value::Map(entries) => {
            out.push('{');
            for (i, (key, node)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                quoted(&key.name, out);
                out.push(':');
                json(node, out);
            }
            out.push('}');
        }
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json(item, out);
            }
            out.push(']');
        }
        Value::Scalar(scalar) if scalar.is_null() => out.push_str("null"),
        Value::Scalar(scalar) => {
            let is_number = || serde_json::from_str::<serde_json::Number>(&scalar.text).is_ok();
            let literal = matches!(scalar.text.as_str(), "true" | "false") || is_number();
            match scalar.plain && literal {
                true => out.push_str(&scalar.text),
                false => quoted(&scalar.text, out),
            }
        }
        // It has been reported.
        Value::Invalid => out.push_str("null"),
    }
}

fn quoted(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
