//! `sources`.

use std::time::Duration;

use chrono::DateTime;
use onceflow_protocol::{Delay, EventTime};

use super::fields::{Fields, first, list, map, not_yet, stream_name, text, topic};
use super::settings::{Of, kafka};
use super::types::{self, TypeError};
use super::values::{duration, positive_duration, word};
use super::{Column, Part, Source, Spanned};
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic};
use crate::metadata::Metadata;
use crate::plan::{Csv, Format, OnError, Start, Tombstones, TopicPattern, UnknownFields};

/// Formats that come later.
const LATER_FORMATS: &[&str] = &["avro", "protobuf"];

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
        was: None,
        kafka: None,
        topics: vec![],
        patterns: vec![],
        start: None,
        format: None,
        unknown_fields: None,
        tombstones: None,
        schema: None,
        event_time: Part::Absent,
        delay: Delay::Fixed(0),
        idle_after: None,
        max_drift: None,
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
    source.start = fields.get("start").and_then(|node| start(node, found));
    source.format = fields.require("format", found).and_then(|node| format(node, found));
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
    source.unknown_fields = fields.get("unknown_fields").and_then(|node| {
        use UnknownFields::{Error, Ignore, Keep};
        let words = [("ignore", Ignore), ("keep", Keep), ("error", Error)];
        word(node, "unknown_fields", &words, &[], found)
    });
    source.tombstones = fields.get("tombstones").and_then(|node| {
        use Tombstones::{Error, Pass, Skip};
        let words = [("error", Error), ("skip", Skip), ("pass", Pass)];
        word(node, "tombstones", &words, &[], found).map(|word| word.value)
    });
    source.was = fields.get("was").and_then(|node| text(node, "`was`", found));
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

/// `json`, `csv`, `raw`, or a map with the `type` and what else CSV needs to know.
fn format(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Format> {
    let words = [("json", Format::Json), ("csv", Format::Csv(Csv::default())), ("raw", Format::Raw)];
    let names = [("json", 0), ("csv", 1), ("raw", 2)];
    let Value::Map(_) = &node.value else {
        let word = word(node, "format", &names, LATER_FORMATS, found)?;
        return words.into_iter().nth(word.value).map(|(_, format)| format);
    };
    let mut fields = Fields::open(node, "`format`", found)?;
    let word =
        fields.require("type", found).and_then(|node| word(node, "type", &names, LATER_FORMATS, found));
    let mut format = word.and_then(|word| words.into_iter().nth(word.value)).map(|(_, format)| format);
    if let Some(Format::Csv(options)) = &mut format {
        *options = csv(&mut fields, found);
    } else if format.is_none() {
        // Of which format these are is not known.
        for key in ["delimiter", "quote", "null_text"] {
            fields.get(key);
        }
    }
    fields.finish(found);
    format
}

/// `delimiter`, `quote`, `null_text`.
pub(super) fn csv(fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Csv {
    let mut csv = Csv::default();
    if let Some(delimiter) = fields.get("delimiter").and_then(|node| character(node, "`delimiter`", found)) {
        csv.delimiter = delimiter;
    }
    if let Some((key, node)) = fields.entry("quote") {
        csv.quote = character(node, "`quote`", found).unwrap_or(csv.quote);
        if csv.quote == csv.delimiter {
            let message = "`quote` and `delimiter` are the same character";
            found.push(Diagnostic::new(Code::BadValue, key.span, message));
        }
    }
    if let Some(null) = fields.get("null_text").and_then(|node| text(node, "`null_text`", found)) {
        csv.null = null.value;
    }
    csv
}

fn character(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<u8> {
    let text = text(node, what, found)?;
    match text.value.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(*byte),
        _ => {
            let message = format!("{what} is one ASCII character, {:?} is not", text.value);
            found.push(
                Diagnostic::new(Code::BadValue, text.span, message)
                    .hint("a tab is written in double quotes: `\"\\t\"`"),
            );
            None
        }
    }
}

/// `earliest`, `latest`, or `{timestamp: 2026-01-01T00:00:00Z}`.
fn start(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Start> {
    let Value::Map(_) = &node.value else {
        let words = [("earliest", Start::Earliest), ("latest", Start::Latest)];
        return word(node, "start", &words, &[], found).map(|word| word.value);
    };
    let mut fields = Fields::open(node, "`start`", found)?;
    let written = fields.require("timestamp", found).and_then(|node| text(node, "`timestamp`", found));
    fields.finish(found);
    let written = written?;
    let parsed = DateTime::parse_from_rfc3339(&written.value).map(|time| time.timestamp_millis());
    match parsed.ok().and_then(EventTime::new) {
        Some(time) => Some(Start::Timestamp(time.ms())),
        None => {
            let message = format!("`{}` is no time to start from", written.value);
            found.push(
                Diagnostic::new(Code::BadValue, written.span, message)
                    .hint("a time after 1970 in RFC 3339, with its zone: `2026-01-01T00:00:00Z`"),
            );
            None
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
    if Metadata::parse(&key.name).is_some() {
        let message = format!("`{}` is what SQL calls metadata of the Kafka record", key.name);
        let hint = format!("give the column another name: `name: {{ type: …, path: {} }}`", key.name);
        found.push(Diagnostic::new(Code::NameClash, key.span, message).hint(hint));
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

fn event_time(node: &Node, found: &mut Vec<Diagnostic>) -> Option<super::EventTime> {
    let mut fields = Fields::open(node, "`event_time`", found)?;
    let column = fields.require("column", found).and_then(|node| text(node, "`column`", found));
    let unit = fields.get("unit").map(|node| {
        let units = [("s", (1000, 1)), ("ms", (1, 1)), ("us", (1, 1000)), ("ns", (1, 1_000_000))];
        word(node, "unit", &units, &[], found)
    });
    let max_ahead = fields.get("max_ahead").and_then(|node| duration(node, "`max_ahead`", found));
    fields.finish(found);
    let unit = match unit {
        None => Part::Absent,
        Some(unit) => unit.map_or(Part::Invalid, Part::Is),
    };
    Some(super::EventTime { column: column?, unit, max_ahead: max_ahead.map(|ahead| ahead.value) })
}

fn watermark(node: &Node, source: &mut Source, found: &mut Vec<Diagnostic>) {
    let Some(mut fields) = Fields::open(node, "`watermark`", found) else { return };
    let delay = fields.entry("delay");
    let ascending = fields.entry("ascending");
    let percentile = fields.entry("percentile");
    let mut given = [delay, ascending, percentile].into_iter().flatten();
    if let (Some(_), Some((second, _))) = (given.next(), given.next()) {
        let message = "`delay`, `ascending` and `percentile` are three ways to say one thing: one of them";
        found.push(Diagnostic::new(Code::Repeated, second.span, message));
    }
    let ms = |duration: Duration| duration.as_millis() as i64;
    if let Some((_, node)) = delay {
        source.delay = Delay::Fixed(duration(node, "`delay`", found).map_or(0, |delay| ms(delay.value)));
    }
    if let Some((_, node)) = ascending {
        // It is what no delay at all means; the word says so to people.
        word(node, "ascending", &[("true", ())], &[], found);
    }
    let min = fields.get("min").and_then(|node| duration(node, "`min`", found));
    let max = fields.get("max").and_then(|node| positive_duration(node, "`max`", found));
    match percentile {
        Some((key, node)) => {
            if max.is_none() && fields.get("max").is_none() {
                let message = "`percentile` needs `max`, the longest that it may wait";
                let hint = "for example `{ percentile: 99.9, max: 1m }`; until enough records are seen it waits as long";
                found.push(Diagnostic::new(Code::MissingKey, key.span, message).hint(hint));
            }
            let cover_ppm = percentage(node, found);
            let (least, most) =
                (min.as_ref().map_or(0, |min| ms(min.value)), max.as_ref().map_or(0, |max| ms(max.value)));
            if let (true, Some(min), Some(_)) = (least > most, &min, &max) {
                let message = "`min` is longer than `max`";
                found.push(Diagnostic::new(Code::BadValue, min.span, message));
            } else if let Some(cover_ppm) = cover_ppm {
                source.delay = Delay::Percentile { cover_ppm, min_ms: least, max_ms: most };
            }
        }
        None => {
            for name in ["min", "max"] {
                if let Some((key, _)) = fields.entry(name) {
                    let message = format!("`{name}` bounds a `percentile`, and there is none");
                    found.push(Diagnostic::new(Code::MissingKey, key.span, message));
                }
            }
        }
    }
    if let Some(node) = fields.get("idle_after") {
        source.idle_after = positive_duration(node, "`idle_after`", found).map(|idle| idle.value);
    }
    if let Some((key, node)) = fields.entry("max_drift") {
        source.max_drift = positive_duration(node, "`max_drift`", found).map(|drift| drift.value);
        if fields.get("idle_after").is_none() {
            let message = "`max_drift` needs `idle_after`: a partition that falls silent would stop the others for good";
            let hint = "add `idle_after: 30s`, or how long a partition may be silent";
            found.push(Diagnostic::new(Code::MissingKey, key.span, message).hint(hint));
        }
    }
    fields.finish(found);
}

/// `99.9`, as so many of a million: from 50 to 99.9999.
fn percentage(node: &Node, found: &mut Vec<Diagnostic>) -> Option<u32> {
    let text = text(node, "`percentile`", found)?;
    let (whole, part) = text.value.split_once('.').unwrap_or((&text.value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let valid = (1..=2).contains(&whole.len()) && part.len() <= 4 && digits(whole) && digits(part);
    let ppm = format!("{whole}{part:0<4}").parse().ok().filter(|ppm| valid && *ppm >= 500_000);
    if ppm.is_none() {
        let message = format!("`percentile` is a number from 50 to 99.9999, `{}` is not", text.value);
        let hint = "so many of a hundred records are not late because of their disorder";
        found.push(Diagnostic::new(Code::BadValue, text.span, message).hint(hint));
    }
    ppm
}
