//! Where records come from, and what they are.

use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use onceflow_protocol::Delay;

use super::{Kafka, OnError, TopicPattern};

/// One source.
#[derive(Debug)]
pub struct Source {
    /// Its name, part of the identity of its positions.
    pub name: String,
    /// The name that it had before.
    pub was: Option<String>,
    /// The cluster it reads from, where that is not the pipeline's.
    pub kafka: Option<Kafka>,
    /// Topics it reads, by name.
    pub topics: Vec<String>,
    /// Patterns of further topics.
    pub patterns: Vec<TopicPattern>,
    /// Where to begin when there is no checkpoint.
    pub start: Start,
    /// How values are read.
    pub format: Format,
    /// The columns to decode: those that the plan uses, in the order of the schema. [`Source::schema`] has the same order.
    pub columns: Vec<Column>,
    /// Paths of declared columns that nobody decodes; only what is neither here nor a column's is undeclared.
    pub declared: Vec<Vec<String>>,
    /// What becomes of undeclared members. `Keep`: somebody reads them, and [`KEPT`] is the last column of the schema.
    pub unknown_fields: UnknownFields,
    /// What becomes of null values.
    pub tombstones: Tombstones,
    /// Arrow schema of the decoded columns.
    pub schema: SchemaRef,
    /// What a record's event time is.
    pub event_time: EventTimeFrom,
    /// How far the event time may be ahead of the Kafka record's timestamp, milliseconds.
    pub max_ahead_ms: Option<i64>,
    /// How far the watermark stays behind the largest event time.
    pub delay: Delay,
    /// After how long without records a partition at its end stops counting; `None`: never.
    pub idle_after: Option<Duration>,
    /// How far a partition may be ahead of the others before it waits for them.
    pub max_drift: Option<Duration>,
    /// What happens to a record that cannot be decoded or evaluated.
    pub on_error: OnError,
}

impl Source {
    /// A source of JSON records with these columns; everything else at its default.
    pub fn json(name: &str, columns: Vec<Column>) -> Source {
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), !column.not_null);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        Source {
            name: name.to_owned(),
            was: None,
            kafka: None,
            topics: vec![name.to_owned()],
            patterns: vec![],
            start: Start::Earliest,
            format: Format::Json,
            columns,
            declared: vec![],
            unknown_fields: UnknownFields::Ignore,
            tombstones: Tombstones::Error,
            schema: schema.into(),
            event_time: EventTimeFrom::Record,
            max_ahead_ms: None,
            delay: Delay::Fixed(0),
            idle_after: None,
            max_drift: None,
            on_error: OnError::Fail,
        }
    }

    /// Whether it reads this topic, by its name or by a pattern.
    pub fn reads(&self, topic: &str) -> bool {
        self.topics.iter().any(|name| name == topic) || self.patterns.iter().any(|of| of.matches(topic))
    }
}

/// How the values of a source are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object each.
    Json,
    /// One CSV record each.
    Csv(Csv),
    /// As they are, in one column.
    Raw,
}

/// How CSV is read and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csv {
    /// Between fields, ASCII.
    pub delimiter: u8,
    /// Around fields, ASCII; twice within one.
    pub quote: u8,
    /// A field with this text is NULL.
    pub null: String,
}

impl Default for Csv {
    fn default() -> Csv {
        Csv { delimiter: b',', quote: b'"', null: String::new() }
    }
}

/// What becomes of members that no column is declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are not looked at.
    Ignore,
    /// They are carried through steps without `select` and window, and written again by sinks.
    Keep,
    /// They are errors of their record.
    Error,
}

/// What becomes of records whose value is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// They are errors of their record.
    Error,
    /// They are counted and dropped.
    Skip,
    /// They go to every sink of the source, past all steps.
    Pass,
}

/// A declared column that is decoded.
#[derive(Debug, Clone)]
pub struct Column {
    /// Column name, case-sensitive.
    pub name: String,
    /// Members to descend through, outermost first; at least one. Only JSON has them.
    pub path: Vec<String>,
    /// Its place in the schema, from 0: of formats without names, the field.
    pub place: usize,
    /// Arrow type, one of [those of columns](crate::plan#types).
    pub data_type: DataType,
    /// Whether a missing or null member is an error.
    pub not_null: bool,
}

/// Where reading begins when there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The beginning of each partition.
    Earliest,
    /// The last stable offset of each partition.
    Latest,
    /// The first record of each partition with this Kafka timestamp or a later one, milliseconds since the epoch.
    Timestamp(i64),
}

/// Where a record's event time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTimeFrom {
    /// The Kafka record's timestamp.
    Record,
    /// An integer or timestamp column (index into [`Source::columns`]); `multiplier / divisor` turns it into
    /// milliseconds (a timestamp column is in milliseconds already: 1/1).
    Column {
        /// Index into [`Source::columns`].
        column: usize,
        /// Milliseconds per unit, where a unit is a millisecond or longer; else 1.
        multiplier: i64,
        /// Units per millisecond, where a unit is shorter; else 1. Division rounds down.
        divisor: i64,
    },
}
