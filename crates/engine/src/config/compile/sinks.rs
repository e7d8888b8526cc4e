//! Sinks: what is written, where, and under which key.

use arrow::datatypes::DataType;

use super::graph::{Graph, Reads};
use super::streams::{Origin, Replaced, Shape, Streams, boolean, typed, unknown_column};
use crate::config::spec::{HeaderSpec, KeyFormat, Part, Sink, Spanned, Spec, Sql, TopicFrom};
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::expr::{JSON, Scope, TIMESTAMP, Typed, is_scalar, sql_type};
use crate::formats::plain::RawColumn;
use crate::plan::{CreateTopic, Key, OnError, SinkValue};

/// A checked sink.
#[derive(Debug)]
pub(super) struct AnalyzedSink {
    /// The column of `topic_from`.
    pub topic_from: Option<usize>,
    pub filter: Option<Typed>,
    pub key: Key,
    pub headers: AnalyzedHeaders,
    /// Without a `timestamp` of its own the record has that of its source record.
    pub as_it_came: bool,
    pub timestamp: Option<Typed>,
    pub partition: Option<Typed>,
    pub value: SinkValue,
    pub on_error: OnError,
}

/// Checked headers.
#[derive(Debug)]
pub(super) enum AnalyzedHeaders {
    None,
    Forward,
    Named(Vec<(String, Typed)>),
}

/// `None` for sinks whose input does not exist.
pub(super) fn analyze(
    spec: &Spec,
    graph: &Graph,
    streams: &Streams,
    found: &mut Vec<Diagnostic>,
) -> Vec<Option<AnalyzedSink>> {
    check_creations(spec, found);
    let sinks = spec.sinks.iter().zip(&graph.sinks);
    sinks.map(|(sink, input)| Some(analyze_sink(sink, (*input)?, streams, found))).collect()
}

fn analyze_sink(sink: &Sink, input: Reads, streams: &Streams, found: &mut Vec<Diagnostic>) -> AnalyzedSink {
    let shape = &streams.shape(input);
    let scope = &shape.scope;
    let of_errors = matches!(input, Reads::Errors(_));
    if let Some(source) = &shape.tombstones {
        refuse_computed(sink, source, found);
    }
    let topic_from = topic_from(sink, scope, found);
    let partition = sink
        .partition
        .as_ref()
        .and_then(|sql| of_type(sql, "`partition`", "an integer", scope, found, DataType::is_integer));
    if let Some(replaced) = &shape.replaced {
        check_replaced(sink, replaced, scope, topic_from, partition.as_ref(), found);
    }
    AnalyzedSink {
        topic_from,
        filter: sink.filter.as_ref().and_then(|sql| boolean(sql, "`where`", scope, found)),
        key: key(sink, scope, &shape.origin, found),
        headers: headers(sink, shape, found),
        as_it_came: of_errors,
        timestamp: sink.timestamp.as_ref().and_then(|sql| {
            of_type(sql, "`timestamp`", "a timestamp or milliseconds since the epoch", scope, found, |is| {
                *is == TIMESTAMP || is.is_integer()
            })
        }),
        value: value(sink, shape, of_errors, found),
        partition,
        on_error: shape.on_error,
    }
}

/// Where rows replace earlier ones, a record's key says which, and where it is must depend on nothing else.
fn check_replaced(
    sink: &Sink,
    replaced: &Replaced,
    scope: &Scope,
    topic_from: Option<usize>,
    partition: Option<&Typed>,
    found: &mut Vec<Diagnostic>,
) {
    let lost: Vec<&str> =
        replaced.identity.iter().filter(|(_, here)| here.is_none()).map(|(name, _)| name.as_str()).collect();
    if !lost.is_empty() {
        let message = format!(
            "`{}` emits results again when they have changed, and `{}` does not reach this sink",
            replaced.step,
            lost.join("`, `")
        );
        let hint = "a `select` on the way must keep what a row is known by, whatever it is called: the groups, and `window_start` of windows";
        found.push(Diagnostic::new(Code::NeedsKey, sink.name.span, message).hint(hint));
        return;
    }
    let identity: Vec<&str> = replaced.identity.iter().filter_map(|(_, here)| here.as_deref()).collect();
    let named = sink.key.get().map(Vec::as_slice).unwrap_or_default();
    let missing = identity.iter().any(|name| named.iter().all(|key| key.value != **name));
    if missing && !matches!(sink.key, Part::Invalid) {
        let message = format!(
            "`{}` emits results again when they have changed: the key has to say which one a record replaces",
            replaced.step
        );
        let span = named.first().map_or(sink.name.span, |key| key.span);
        let hint = format!("write `key: [{}]`", identity.join(", "));
        found.push(Diagnostic::new(Code::NeedsKey, span, message).hint(hint));
    }
    let topic = topic_from.map(|column| scope.columns[column].name.clone());
    let places = topic.into_iter().map(|column| ("topic_from", column));
    let places = places
        .chain(partition.iter().flat_map(|typed| &typed.columns).map(|name| ("partition", name.clone())));
    for (part, column) in places.filter(|(_, column)| !identity.contains(&column.as_str())) {
        let message = format!(
            "`{part}` depends on `{column}`, which may change: the earlier row would stay where it was"
        );
        let hint = format!("here it can depend on {} only", identity.join(", "));
        found.push(Diagnostic::new(Code::ByDesign, sink.name.span, message).hint(hint));
    }
}

/// What a format can write. `raw` is the record as it came for errors, and the one column for any other rows.
fn value(sink: &Sink, shape: &Shape, of_errors: bool, found: &mut Vec<Diagnostic>) -> SinkValue {
    let Spanned { value, span } = sink.value.clone();
    let mut refuse = |message: String, hint: &str| {
        found.push(Diagnostic::new(Code::BadValue, span, message).hint(hint));
    };
    let columns = &shape.scope.columns;
    match &value {
        _ if shape.scope.open => value,
        SinkValue::Csv(..) => {
            let takes = |is: &DataType| is_scalar(is) || *is == JSON;
            let known = columns.iter().filter_map(|column| Some((&column.name, column.data_type.as_ref()?)));
            if let Some((name, data_type)) = known.clone().find(|(_, is)| !takes(is)) {
                let message = format!("`{name}`: format `csv` has no {}", sql_type(data_type));
                refuse(message, "fields of CSV are scalars, or `json`; a step with `select` can choose them");
            }
            if shape.kept {
                let hint = "a step with `select` leaves undeclared members behind; or write `format: json`";
                refuse("`format: csv` has no place for undeclared members".to_owned(), hint);
            }
            value
        }
        SinkValue::Incoming if !of_errors => {
            match &columns[..] {
                [column] if !shape.kept => {
                    if let Some(data_type) = column.data_type.as_ref().filter(|is| !RawColumn::supports(is)) {
                        let message = format!("`format: raw` cannot write {}", sql_type(data_type));
                        refuse(
                            message,
                            "it writes varchar, binary, json, and numbers as Java's serializers do",
                        );
                    }
                }
                _ => {
                    let kept = if shape.kept { " and undeclared members" } else { "" };
                    let message =
                        format!("`format: raw` writes one column, these rows have {}{kept}", columns.len());
                    refuse(message, "a step with `select` can leave one; or write `format: json`");
                }
            }
            SinkValue::Column
        }
        SinkValue::Json(_) | SinkValue::Incoming | SinkValue::Column => value,
    }
}

/// A tombstone has no columns: nothing that a sink writes can be computed from them.
fn refuse_computed(sink: &Sink, source: &str, found: &mut Vec<Diagnostic>) {
    let topic = match sink.topic.get() {
        Some(TopicFrom::Column { column, .. }) => Some(column.span),
        _ => None,
    };
    let headers = match &sink.headers {
        Part::Is(HeaderSpec::Named(named)) => named.first().map(|header| header.name.span),
        _ => None,
    };
    let key = sink.key.get().and_then(|names| names.first()).map(|name| name.span);
    let parts: [(&str, Option<Span>); 5] = [
        ("topic_from", topic),
        ("key", key),
        ("headers", headers),
        ("timestamp", sink.timestamp.as_ref().map(|sql| sql.span)),
        ("partition", sink.partition.as_ref().map(|sql| sql.span)),
    ];
    for (part, span) in parts {
        let Some(span) = span else { continue };
        let message = format!(
            "the source `{source}` passes tombstones, which have no columns that `{part}` could come from"
        );
        let hint =
            format!("leave it out: records go on as they came; or set `tombstones: skip` on `{source}`");
        found.push(Diagnostic::new(Code::Tombstones, span, message).hint(hint));
    }
}

/// A checked expression of one of some types.
fn of_type(
    sql: &Sql,
    what: &str,
    expected: &str,
    scope: &Scope,
    found: &mut Vec<Diagnostic>,
    is_right: impl Fn(&DataType) -> bool,
) -> Option<Typed> {
    let typed = typed(Some(sql), scope, found)?;
    if is_right(&typed.data_type) {
        return Some(typed);
    }
    let message = format!("{what} must be {expected}, this is {}", sql_type(&typed.data_type));
    found.push(Diagnostic::new(Code::TypeMismatch, sql.span, message));
    None
}

/// The column `name`; one that is not there is reported, unless it may be because of another mistake.
fn column(name: &Spanned<String>, scope: &Scope, found: &mut Vec<Diagnostic>) -> Option<usize> {
    let place = scope.columns.iter().position(|column| column.name == name.value);
    if place.is_none() && !scope.open {
        found.push(unknown_column(name, scope));
    }
    place
}

fn topic_from(sink: &Sink, scope: &Scope, found: &mut Vec<Diagnostic>) -> Option<usize> {
    let TopicFrom::Column { column: name, .. } = sink.topic.get()? else { return None };
    let place = column(name, scope, found)?;
    let data_type = scope.columns[place].data_type.as_ref()?;
    if *data_type != DataType::Utf8 {
        let message = format!("`topic_from` names a varchar, `{}` is {}", name.value, sql_type(data_type));
        found.push(Diagnostic::new(Code::TypeMismatch, name.span, message));
    }
    Some(place)
}

fn headers(sink: &Sink, shape: &Shape, found: &mut Vec<Diagnostic>) -> AnalyzedHeaders {
    match &sink.headers {
        Part::Absent if shape.origin == Origin::Record => AnalyzedHeaders::Forward,
        Part::Absent | Part::Invalid | Part::Is(HeaderSpec::None) => AnalyzedHeaders::None,
        Part::Is(HeaderSpec::Forward(span)) => {
            if let Origin::Window(_) = shape.origin {
                let message = "the rows of a window have no source record whose headers could be forwarded";
                let hint = "name headers with expressions: `headers: { name: expression }`";
                found.push(Diagnostic::new(Code::BadValue, *span, message).hint(hint));
            }
            AnalyzedHeaders::Forward
        }
        Part::Is(HeaderSpec::Named(named)) => {
            let header = |header: &crate::config::spec::Named| {
                Some((header.name.value.clone(), typed(header.sql.as_ref(), &shape.scope, found)?))
            };
            AnalyzedHeaders::Named(named.iter().filter_map(header).collect())
        }
    }
}

fn key(sink: &Sink, scope: &Scope, origin: &Origin, found: &mut Vec<Diagnostic>) -> Key {
    let columns: Vec<usize> = match (&sink.key, origin) {
        (Part::Is(names), _) => names.iter().filter_map(|name| column(name, scope, found)).collect(),
        (Part::Absent, Origin::Window(Some(groups))) => {
            let place = |name: &String| scope.columns.iter().position(|column| column.name == *name);
            groups.iter().filter_map(place).collect()
        }
        (Part::Invalid, _) => return Key::Incoming,
        (Part::Absent, Origin::Record) => {
            if let Some(format) = &sink.key_format {
                let message = "`key_format` needs a `key`: without one the key goes as it came";
                found.push(Diagnostic::new(Code::NeedsKey, format.span, message));
            }
            return Key::Incoming;
        }
        (Part::Absent, Origin::Mixed) if scope.open => return Key::Incoming,
        (Part::Absent, Origin::Window(None) | Origin::Mixed) => {
            let why = match origin {
                Origin::Mixed => "it reads rows of windows and of records together",
                _ => "the columns of `group_by` do not reach it",
            };
            let message = format!("the sink `{}` needs a `key`: {why}", sink.name.value);
            found.push(Diagnostic::new(Code::NeedsKey, sink.name.span, message));
            return Key::Incoming;
        }
    };
    of_columns(sink, columns, scope, found)
}

/// One text column is the key as it is, everything else becomes a JSON object; unless `key_format` says otherwise.
fn of_columns(sink: &Sink, columns: Vec<usize>, scope: &Scope, found: &mut Vec<Diagnostic>) -> Key {
    let data_type = |column: usize| scope.columns[column].data_type.as_ref();
    let Some(format) = &sink.key_format else {
        return match columns[..] {
            [column] if data_type(column) == Some(&DataType::Utf8) => Key::Text(column),
            _ => Key::Json(columns),
        };
    };
    let mut wrong = |message: String| found.push(Diagnostic::new(Code::NeedsKey, format.span, message));
    match (format.value, &columns[..]) {
        (KeyFormat::Json, _) | (_, []) => Key::Json(columns),
        (KeyFormat::Text, [column]) => Key::Text(*column),
        (KeyFormat::Raw, [column]) => {
            if let Some(data_type) = data_type(*column).filter(|data_type| !RawColumn::supports(data_type)) {
                wrong(format!("`key_format: raw` writes text and numbers, this is {}", sql_type(data_type)));
            }
            Key::Raw(*column)
        }
        (_, several) => {
            wrong(format!("a key of {} columns is a JSON object: `key_format: json`", several.len()));
            Key::Json(columns)
        }
    }
}

/// Sinks that write to one topic must agree on how it is to be created.
fn check_creations(spec: &Spec, found: &mut Vec<Diagnostic>) {
    let mut known: Vec<(&str, &Spanned<CreateTopic>)> = vec![];
    for (topic, create) in creations(spec) {
        match known.iter().find(|(name, _)| *name == topic) {
            Some((_, earlier)) if earlier.value != create.value => {
                let message = format!("`{topic}` is to be created in another way already");
                let hint = "say it once, at one of the sinks that write to the topic";
                found.push(Diagnostic::new(Code::Repeated, create.span, message).hint(hint));
            }
            Some(_) => {}
            None => known.push((topic, create)),
        }
    }
}

/// Topics with how they are to be created, where that is said.
pub(super) fn creations(spec: &Spec) -> Vec<(&str, &Spanned<CreateTopic>)> {
    let mut creations = vec![];
    for sink in &spec.sinks {
        for (topic, create) in sink.topics().iter().zip(sink.create.iter().cycle()) {
            creations.push((topic.value.as_str(), create));
        }
    }
    if let Some(letters) = spec.dead_letter.get() {
        creations.extend(letters.create.iter().map(|create| (letters.topic.value.as_str(), create)));
    }
    creations
}
