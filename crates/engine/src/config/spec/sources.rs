//! `sources`.

use super::fields::{Fields, first, list, map, not_yet, stream_name, text, topic};
use super::settings::{Of, kafka};
use super::types::{self, TypeError};
use super::values::{duration, positive_duration, word};
use super::{Column, EventTime, Part, Source, Spanned};
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic};
use crate::plan::{OnError, TopicPattern};

/// Formats that come later.
pub(super) const LATER_FORMATS: &[&str] = &["csv", "avro", "protobuf", "raw"];

pub(super) fn read(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Vec<Source> {
    let Some(entries) = node.and_then(|node| map(node, "`sources`", found)) else { return vec![] };
    if let (Some(node), []) = (node, entries) {
        found.push(Diagnostic::new(Code::MissingKey, first(node.span), "there is no source"));
    }
    entries.iter().map(|(key, node)| source(key, node, found)).collect()
}

fn source(key: &Key, node: &Node, found: &mut Vec<Diagnostic>) -> Source {
    let mut source = Source {
        name: stream_name(key, "a source", found),
        kafka: None,
        topics: vec![],
        patterns: vec![],
        schema: None,
        event_time: Part::Absent,
        delay: None,
        idle_after: None,
        on_error: None,
    };
    let Some(fields) = Fields::open(node, "a source", found) else { return source };
    let mut fields = fields.named(key.span);
    source.kafka = fields.get("kafka").map(|node| {
        let mut kafka = kafka(Some(node), Of::Source, found);
        if kafka.bootstrap_servers.is_none() && !kafka.invalid {
            let message = "the cluster of a source needs `bootstrap_servers`";
            let hint = "nothing of the pipeline's `kafka` is used for it: say properties here too";
            found.push(Diagnostic::new(Code::NoBootstrap, kafka.span, message).hint(hint));
            kafka.invalid = true;
        }
        kafka
    });
    if let Some(node) = fields.require("topics", found) {
        topics(node, &mut source, found);
    }
    if let Some(node) = fields.get("start") {
        start(node, found);
    }
    if let Some(node) = fields.require("format", found) {
        word(node, "format", &[("json", ())], LATER_FORMATS, found);
    }
    source.schema = fields.require("schema", found).and_then(|node| schema(node, found));
    if let Some(node) = fields.get("event_time") {
        source.event_time = event_time(node, found).map_or(Part::Invalid, Part::Is);
    }
    if let Some(node) = fields.get("watermark") {
        watermark(node, &mut source, found);
    }
    source.on_error = fields.get("on_error").and_then(|node| {
        let words = [
            ("fail", OnError::Fail),
            ("drop", OnError::Drop),
            ("dead_letter", OnError::DeadLetter),
            ("stream", OnError::Stream),
        ];
        word(node, "on_error", &words, &[], found)
    });
    for name in ["unknown_fields", "tombstones", "was"] {
        // Saying what happens anyway is no mistake.
        let is_default =
            |value: &str| matches!((name, value), ("unknown_fields", "ignore") | ("tombstones", "error"));
        match fields.entry(name) {
            Some((_, Node { value: Value::Scalar(scalar), .. })) if is_default(&scalar.text) => {}
            Some((key, _)) => found.push(not_yet(key.span, &format!("`{name}`"))),
            None => {}
        }
    }
    fields.finish(found);
    source
}

/// Names, and patterns, which begin with `^`.
fn topics(node: &Node, source: &mut Source, found: &mut Vec<Diagnostic>) {
    if let Value::Scalar(scalar) = &node.value {
        let message = "`topics` is a list, this is a text";
        let hint = format!("write `[{}]`", scalar.text);
        found.push(Diagnostic::new(Code::WrongType, node.span, message).hint(hint));
        return;
    }
    let items = list(node, "`topics`", found);
    if items.is_some_and(|items| items.is_empty()) {
        found.push(Diagnostic::new(Code::BadValue, node.span, "`topics` names nothing"));
    }
    for node in items.unwrap_or_default() {
        match &node.value {
            Value::Scalar(scalar) if scalar.text.starts_with('^') => match TopicPattern::new(&scalar.text) {
                Ok(value) => source.patterns.push(Spanned { value, span: node.span }),
                Err(reason) => {
                    let message = format!("`{}` is no regular expression: {reason}", scalar.text);
                    found.push(Diagnostic::new(Code::BadValue, node.span, message));
                }
            },
            _ => source.topics.extend(topic(node, found)),
        }
    }
}

fn start(node: &Node, found: &mut Vec<Diagnostic>) {
    match &node.value {
        Value::Map(_) => found.push(not_yet(first(node.span), "`start: {timestamp: …}`")),
        _ => {
            word(node, "start", &[("earliest", ())], &["latest"], found);
        }
    }
}

fn schema(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Vec<Column>> {
    if let Value::Scalar(scalar) = &node.value
        && scalar.text == "registry"
    {
        found.push(not_yet(node.span, "`schema: registry`"));
        return None;
    }
    let entries = map(node, "`schema`", found)?;
    if entries.is_empty() {
        found.push(Diagnostic::new(Code::BadValue, node.span, "`schema` names no column"));
    }
    let columns: Vec<Column> = entries.iter().map(|(key, node)| column(key, node, found)).collect();
    for (i, column) in columns.iter().enumerate() {
        let meets = columns[..i]
            .iter()
            .find(|earlier| earlier.path.starts_with(&column.path) || column.path.starts_with(&earlier.path));
        if let Some(earlier) = meets {
            let what = if earlier.path == column.path {
                "reads the same member as"
            } else {
                "reads a part of, or around,"
            };
            let message = format!("`{}` {what} `{}`", column.name.value, earlier.name.value);
            found.push(
                Diagnostic::new(Code::Repeated, column.name.span, message)
                    .hint("a member is read once, as one type; a step's `select` can name it a second time"),
            );
        }
    }
    Some(columns)
}

fn column(key: &Key, node: &Node, found: &mut Vec<Diagnostic>) -> Column {
    let name = Spanned { value: key.name.clone(), span: key.span };
    if key.name.is_empty() {
        found.push(Diagnostic::new(Code::BadValue, key.span, "a column needs a name"));
    }
    let mut column = Column { path: vec![key.name.clone()], name, data_type: None, not_null: false };
    let type_node = match &node.value {
        Value::Map(_) => {
            let Some(fields) = Fields::open(node, "a column", found) else { return column };
            let mut fields = fields.named(key.span);
            let type_node = fields.require("type", found);
            if let Some(path) = fields.get("path").and_then(|node| text(node, "`path`", found)) {
                column.path = path.value.split('.').map(str::to_owned).collect();
                if column.path.iter().any(String::is_empty) {
                    let message = format!("`{}` is no path: members with dots between", path.value);
                    found.push(Diagnostic::new(Code::BadValue, path.span, message));
                }
            }
            fields.finish(found);
            type_node
        }
        _ => Some(node),
    };
    let Some(text) = type_node.and_then(|node| text(node, "a column's type", found)) else { return column };
    match types::parse(&text.value) {
        Ok(parsed) => {
            column.data_type = Some(parsed.data_type);
            column.not_null = parsed.not_null;
        }
        Err(TypeError::NotYet(name)) => found.push(not_yet(text.span, &format!("the type `{name}`"))),
        Err(TypeError::Wrong(message)) => found.push(Diagnostic::new(Code::UnknownType, text.span, message)),
        Err(TypeError::Unknown(name)) => found.push(
            Diagnostic::new(Code::UnknownType, text.span, format!("unknown type `{name}`"))
                .nearest(&name, types::NAMES.iter().copied())
                .hint("types are SQL's, with `not null` after them: `bigint not null`, `varchar`, `decimal(12,2)`"),
        ),
    }
    column
}

fn event_time(node: &Node, found: &mut Vec<Diagnostic>) -> Option<EventTime> {
    let mut fields = Fields::open(node, "`event_time`", found)?;
    let column = fields.require("column", found).and_then(|node| text(node, "`column`", found));
    let unit = fields.get("unit").map(|node| {
        let units = [("s", (1000, 1)), ("ms", (1, 1)), ("us", (1, 1000)), ("ns", (1, 1_000_000))];
        word(node, "unit", &units, &[], found)
    });
    fields.later("max_ahead", found);
    fields.finish(found);
    let unit = match unit {
        None => Part::Absent,
        Some(unit) => unit.map_or(Part::Invalid, Part::Is),
    };
    Some(EventTime { column: column?, unit })
}

fn watermark(node: &Node, source: &mut Source, found: &mut Vec<Diagnostic>) {
    let Some(mut fields) = Fields::open(node, "`watermark`", found) else { return };
    if let Some(node) = fields.get("delay") {
        source.delay = duration(node, "`delay`", found).map(|delay| delay.value);
    }
    if let Some(node) = fields.get("idle_after") {
        source.idle_after = positive_duration(node, "`idle_after`", found).map(|idle| idle.value);
    }
    for name in ["ascending", "percentile", "min", "max", "max_drift"] {
        fields.later(name, found);
    }
    fields.finish(found);
}
