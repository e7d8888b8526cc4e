//! Sinks: what is written, and under which key.

use arrow::datatypes::DataType;

use super::graph::Graph;
use super::streams::{Origin, Streams, boolean};
use crate::config::spec::{Part, Sink, Spec};
use crate::diagnostics::{Code, Diagnostic, nearest};
use crate::expr::{Scope, Typed};
use crate::plan::{Key, OnError};

/// A checked sink.
#[derive(Debug)]
pub(super) struct AnalyzedSink {
    pub filter: Option<Typed>,
    pub key: Key,
    pub forward_headers: bool,
    pub on_error: OnError,
}

/// `None` for sinks whose input does not exist.
pub(super) fn analyze(
    spec: &Spec,
    graph: &Graph,
    streams: &Streams,
    found: &mut Vec<Diagnostic>,
) -> Vec<Option<AnalyzedSink>> {
    let sinks = spec.sinks.iter().zip(&graph.sinks);
    sinks
        .map(|(sink, input)| {
            let shape = streams.shape((*input)?);
            let filter = sink.filter.as_ref().and_then(|sql| boolean(sql, "`where`", &shape.scope, found));
            let key = key(sink, &shape.scope, &shape.origin, found);
            let forward_headers = shape.origin == Origin::Record;
            Some(AnalyzedSink { filter, key, forward_headers, on_error: shape.on_error })
        })
        .collect()
}

fn key(sink: &Sink, scope: &Scope, origin: &Origin, found: &mut Vec<Diagnostic>) -> Key {
    match (&sink.key, origin) {
        (Part::Is(names), _) => {
            let mut columns = vec![];
            for name in names {
                match scope.columns.iter().position(|column| column.name == name.value) {
                    Some(i) => columns.push(i),
                    None if scope.open => {}
                    None => {
                        let message = format!("there is no column `{}`", name.value);
                        let names: Vec<&str> =
                            scope.columns.iter().map(|column| column.name.as_str()).collect();
                        let mut diagnostic = Diagnostic::new(Code::UnknownColumn, name.span, message);
                        diagnostic = match nearest(&name.value, names.iter().copied()) {
                            Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
                            None => diagnostic.hint(format!("columns here: {}", names.join(", "))),
                        };
                        found.push(diagnostic);
                    }
                }
            }
            of_columns(columns, scope)
        }
        (Part::Invalid, _) => Key::Incoming,
        (Part::Absent, Origin::Record) => Key::Incoming,
        (Part::Absent, Origin::Window(Some(groups))) => {
            let columns =
                groups.iter().filter_map(|name| scope.columns.iter().position(|column| column.name == *name));
            of_columns(columns.collect(), scope)
        }
        (Part::Absent, Origin::Window(None)) => {
            let message = format!(
                "the sink `{}` needs a `key`: the columns of `group_by` do not reach it",
                sink.name.value
            );
            found.push(Diagnostic::new(Code::NeedsKey, sink.name.span, message));
            Key::Incoming
        }
        (Part::Absent, Origin::Mixed) if scope.open => Key::Incoming,
        (Part::Absent, Origin::Mixed) => {
            let message = format!(
                "the sink `{}` needs a `key`: it reads rows of windows and of records together",
                sink.name.value
            );
            found.push(Diagnostic::new(Code::NeedsKey, sink.name.span, message));
            Key::Incoming
        }
    }
}

/// One text column is the key as it is, everything else becomes a JSON object.
fn of_columns(columns: Vec<usize>, scope: &Scope) -> Key {
    match columns[..] {
        [column] if scope.columns[column].data_type == Some(DataType::Utf8) => Key::Text(column),
        _ => Key::Json(columns),
    }
}
