//! Where results go, and as what.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use super::{Csv, OnError, Stream};
use crate::expr::Expr;

/// A topic that the pipeline writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its name.
    pub name: String,
    /// How to create it where it is missing; `None`: then the start fails.
    pub create: Option<CreateTopic>,
}

/// `create:`. What is not said is the broker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// How many partitions.
    pub partitions: Option<i32>,
    /// How many replicas of each.
    pub replication_factor: Option<i32>,
    /// The topic's settings that differ from the brokers' defaults.
    pub config: BTreeMap<String, String>,
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// What it writes.
    pub input: Stream,
    /// Where its records go.
    pub topic: SinkTopic,
    /// `where`, over the input.
    pub filter: Option<Expr>,
    /// The record's key.
    pub key: Key,
    /// The record's headers.
    pub headers: Headers,
    /// The record's timestamp.
    pub timestamp: SinkTimestamp,
    /// The record's partition, an integer; `None`, or where it is null: by the key, as the Java client has it.
    pub partition: Option<Expr>,
    /// Schema of the rows.
    pub schema: SchemaRef,
    /// The same, and behind it what the sink's expressions read of their records.
    pub input_schema: SchemaRef,
    /// The record's value.
    pub value: SinkValue,
    /// What happens to a row that cannot be evaluated, encoded, or that the topic would refuse.
    pub on_error: OnError,
}

/// Where a sink's records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTopic {
    /// Index into [`Plan::output_topics`].
    One(u16),
    /// `topic_from`: the topic that a text column names.
    Column {
        /// The column's index.
        column: usize,
        /// `allowed_topics`: names with their indexes into [`Plan::output_topics`]. Any other value follows `on_error`.
        allowed: BTreeMap<String, u16>,
    },
}

/// A sink record's timestamp.
#[derive(Debug)]
pub enum SinkTimestamp {
    /// The row's event time.
    EventTime,
    /// An integer or timestamp, milliseconds since the epoch.
    Expr(Expr),
    /// The source record's; where the topic would refuse that, the time of sending.
    Incoming,
}

/// A sink record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkValue {
    /// The row as a JSON object.
    Json(JsonFormat),
    /// The row as a CSV record, its values as this JSON has them.
    Csv(Csv, JsonFormat),
    /// The source record's value, bytes as they came.
    Incoming,
    /// The row's one column, as [`RawColumn`](crate::formats::plain::RawColumn) writes it; NULL is a tombstone.
    Column,
}

impl SinkValue {
    /// How keys and headers are written beside it.
    pub fn json(&self) -> JsonFormat {
        match self {
            SinkValue::Json(format) | SinkValue::Csv(_, format) => *format,
            SinkValue::Incoming | SinkValue::Column => JsonFormat::DEFAULT,
        }
    }
}

/// A sink record's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The source record's key, bytes as they came.
    Incoming,
    /// One column as plain text (null: no key).
    Text(usize),
    /// Columns by index: a JSON object of them.
    Json(Vec<usize>),
    /// One column as Kafka's serializers for Java write it (null: no key): text its bytes, numbers big-endian.
    Raw(usize),
}

/// A sink record's headers.
#[derive(Debug)]
pub enum Headers {
    /// None.
    None,
    /// The source record's, as they came; none where there is no source record.
    Forward,
    /// These: names, and expressions whose values are written as plain text (null: a header without value).
    Exprs(Vec<(String, Expr)>),
}

/// How a sink writes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonFormat {
    /// How timestamps are written.
    pub timestamps: Timestamps,
    /// How decimals are written.
    pub decimals: Decimals,
}

impl JsonFormat {
    /// What a sink does that says nothing of it.
    pub const DEFAULT: JsonFormat =
        JsonFormat { timestamps: Timestamps::Rfc3339, decimals: Decimals::Number };
}

/// How a sink writes decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimals {
    /// `12.50`. Exact as it is written, but many readers of JSON make a double of it.
    Number,
    /// `"12.50"`.
    String,
}

/// How a sink writes timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// `"2026-01-01T00:00:00.000Z"`.
    Rfc3339,
    /// Milliseconds since the epoch, a number.
    EpochMs,
}
