//! Rows to output records: topic, partition, key, value, headers, timestamp.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};

use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::expr::Expr;
use crate::formats::csv_encode::{CsvEncoder, CsvRows};
use crate::formats::json_encode::{JsonEncoder, JsonRows};
use crate::formats::plain::{RawColumn, TextColumn};
use crate::message::MessageBatch;
use crate::output::{Output, RecordWriter};
use crate::plan::{Headers, JsonFormat, Key, Sink, SinkTimestamp, SinkTopic, SinkValue};

/// What a topic takes. The shell asks the broker; a record beyond it follows `on_error` instead of failing the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Longest record: key, value and headers, bytes.
    pub max_record_bytes: usize,
    /// Timestamps, milliseconds since the epoch. Never 0 or less: 0 would become the time of sending, and less is refused.
    pub timestamps: RangeInclusive<i64>,
    /// How many partitions it has.
    pub partitions: i32,
}

impl Default for TopicLimits {
    fn default() -> TopicLimits {
        TopicLimits { max_record_bytes: usize::MAX, timestamps: 1..=i64::MAX, partitions: i32::MAX }
    }
}

/// Writes the rows of one sink.
#[derive(Debug)]
pub(crate) struct SinkWriter {
    sink: u16,
    topic: SinkTopic,
    /// What is evaluated for every row beside its columns, in this order: timestamp, partition, headers, as far as they are there.
    exprs: Vec<Expr>,
    timestamp: TimestampWriter,
    partition: bool,
    headers: HeaderWriter,
    key: KeyWriter,
    value: ValueWriter,
    format: JsonFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimestampWriter {
    EventTime,
    Expr,
    Incoming,
}

#[derive(Debug)]
enum HeaderWriter {
    None,
    Forward,
    /// Names, in the order of their expressions.
    Named(Vec<String>),
}

#[derive(Debug)]
enum KeyWriter {
    Incoming,
    Text(usize),
    Json(JsonEncoder),
    Raw(usize),
}

#[derive(Debug)]
enum ValueWriter {
    Json(JsonEncoder),
    Csv(CsvEncoder),
    /// The source record's.
    Incoming,
    /// The one column.
    Raw,
}

/// The rows of a batch, with every column that is looked at downcast once.
struct Rows<'a> {
    batch: &'a Batch,
    topic: Topic<'a>,
    timestamps: Option<Int64Array>,
    partitions: Option<Int64Array>,
    keys: Keys<'a>,
    values: Values<'a>,
    headers: Vec<(&'a str, TextColumn<'a>)>,
}

enum Topic<'a> {
    One(u16),
    Column { name: &'a str, values: &'a StringArray, allowed: &'a BTreeMap<String, u16> },
}

enum Values<'a> {
    /// Null values: what was written before is taken away.
    Null,
    Json(JsonRows<'a>),
    Csv(CsvRows<'a>),
    Incoming,
    Raw(RawColumn<'a>),
}

enum Keys<'a> {
    Incoming,
    Text(TextColumn<'a>),
    Json(JsonRows<'a>),
    Raw(RawColumn<'a>),
}

/// A row that was not written: its number, the kind of failure, what is wrong.
pub(crate) type NotWritten = (u32, Reason, String);

impl SinkWriter {
    pub(crate) fn new(number: u16, sink: &Sink) -> SinkWriter {
        let mut exprs = vec![];
        let timestamp = match &sink.timestamp {
            SinkTimestamp::EventTime => TimestampWriter::EventTime,
            SinkTimestamp::Incoming => TimestampWriter::Incoming,
            SinkTimestamp::Expr(expr) => {
                exprs.push(expr.clone());
                TimestampWriter::Expr
            }
        };
        exprs.extend(sink.partition.clone());
        let format = sink.value.json();
        let headers = match &sink.headers {
            Headers::None => HeaderWriter::None,
            Headers::Forward => HeaderWriter::Forward,
            Headers::Exprs(named) => {
                exprs.extend(named.iter().map(|(_, expr)| expr.clone()));
                HeaderWriter::Named(named.iter().map(|(name, _)| name.clone()).collect())
            }
        };
        let key = match &sink.key {
            Key::Incoming => KeyWriter::Incoming,
            Key::Text(column) => KeyWriter::Text(*column),
            Key::Json(columns) => KeyWriter::Json(JsonEncoder::of_columns(&sink.schema, columns, format)),
            Key::Raw(column) => KeyWriter::Raw(*column),
        };
        SinkWriter {
            sink: number,
            topic: sink.topic.clone(),
            exprs,
            timestamp,
            partition: sink.partition.is_some(),
            headers,
            key,
            value: match &sink.value {
                SinkValue::Json(format) => ValueWriter::Json(JsonEncoder::new(&sink.schema, *format)),
                SinkValue::Csv(csv, format) => {
                    let columns = sink.schema.fields().len();
                    ValueWriter::Csv(CsvEncoder::new(csv.clone(), columns, *format))
                }
                SinkValue::Incoming => ValueWriter::Incoming,
                SinkValue::Column => ValueWriter::Raw,
            },
            format,
        }
    }

    /// What [`write`](Self::write) needs the values of.
    pub(crate) fn exprs(&self) -> &[Expr] {
        &self.exprs
    }

    /// Appends the rows to `out`, but for those that it returns. `values`: those of [`exprs`](Self::exprs) for the rows. `limits`: of
    /// every output topic of the plan.
    ///
    /// # Errors
    /// A batch that is not of the sink's schema.
    pub(crate) fn write(
        &self,
        rows: &Batch,
        values: &[ArrayRef],
        messages: &dyn MessageBatch,
        limits: &[TopicLimits],
        out: &mut Output,
    ) -> Result<Vec<NotWritten>, String> {
        let rows = self.bind(rows, values)?;
        let mut not_written = vec![];
        for row in 0..rows.batch.len() {
            if let Err((reason, error)) = self.write_row(&rows, row, messages, limits, out) {
                not_written.push((row as u32, reason, error));
            }
        }
        Ok(not_written)
    }

    /// Appends the null value of source record `i` to `out`, with the record's key and timestamp, and its headers where they are
    /// forwarded. (Whatever is computed from columns has no place in a sink that tombstones reach: the compiler sees to it.)
    ///
    /// # Errors
    /// Why the topic would refuse it.
    pub(crate) fn write_tombstone(
        &self,
        i: usize,
        messages: &dyn MessageBatch,
        limits: &[TopicLimits],
        out: &mut Output,
    ) -> Result<(), (Reason, String)> {
        let SinkTopic::One(topic) = self.topic else {
            return Err((Reason::Refused, "a tombstone has no column that names its topic".into()));
        };
        let limits = limits.get(usize::from(topic)).ok_or_else(|| no_topic(topic))?;
        let timestamp = messages.timestamp(i);
        if !limits.timestamps.contains(&timestamp) {
            return Err(no_timestamp(timestamp));
        }
        let mut record = out.record(topic, self.sink, timestamp);
        record.key_bytes(messages.key(i));
        if let HeaderWriter::Forward = self.headers {
            messages.headers(i, &mut |name, value| record.header(name, value));
        }
        finish(record, limits)
    }

    fn bind<'a>(&'a self, batch: &'a Batch, values: &'a [ArrayRef]) -> Result<Rows<'a>, String> {
        let mut values = values.iter();
        let mut integers = |wanted: bool| match wanted.then(|| values.next()).flatten() {
            Some(array) => as_integers(array).map(Some),
            None => Ok(None),
        };
        let timestamps = integers(self.timestamp == TimestampWriter::Expr)?;
        let partitions = integers(self.partition)?;
        let headers = match &self.headers {
            HeaderWriter::Named(names) => {
                let text = |(name, array): (&'a String, &'a ArrayRef)| {
                    let column = TextColumn::bind(array.as_ref(), self.format);
                    column.map(|column| (name.as_str(), column)).ok_or(format!("header {name} is no text"))
                };
                names.iter().zip(values).map(text).collect::<Result<_, _>>()?
            }
            HeaderWriter::None | HeaderWriter::Forward => vec![],
        };
        Ok(Rows {
            batch,
            topic: self.bind_topic(&batch.columns)?,
            timestamps,
            partitions,
            keys: self.bind_key(&batch.columns)?,
            values: if batch.retracted { Values::Null } else { self.bind_value(&batch.columns)? },
            headers,
        })
    }

    fn bind_value<'a>(&'a self, rows: &'a RecordBatch) -> Result<Values<'a>, String> {
        Ok(match &self.value {
            ValueWriter::Json(encoder) => Values::Json(encoder.bind(rows)?),
            ValueWriter::Csv(encoder) => Values::Csv(encoder.bind(rows)?),
            ValueWriter::Incoming => Values::Incoming,
            ValueWriter::Raw => {
                let column = rows.columns().first().and_then(|column| RawColumn::bind(column.as_ref()));
                Values::Raw(column.ok_or("there is no column that a raw value could come from")?)
            }
        })
    }

    fn bind_topic<'a>(&'a self, rows: &'a RecordBatch) -> Result<Topic<'a>, String> {
        match &self.topic {
            SinkTopic::One(topic) => Ok(Topic::One(*topic)),
            SinkTopic::Column { column, allowed } => {
                let array = rows.columns().get(*column).and_then(|array| array.as_string_opt::<i32>());
                let values = array.ok_or_else(|| format!("column {column} names no topic: it is no text"))?;
                Ok(Topic::Column { name: rows.schema_ref().field(*column).name(), values, allowed })
            }
        }
    }

    fn bind_key<'a>(&'a self, rows: &'a RecordBatch) -> Result<Keys<'a>, String> {
        let column = |column: usize| rows.columns().get(column).map(|array| array.as_ref());
        let unfit = |column: &usize| format!("column {column} cannot be a key");
        Ok(match &self.key {
            KeyWriter::Incoming => Keys::Incoming,
            KeyWriter::Json(encoder) => Keys::Json(encoder.bind(rows)?),
            KeyWriter::Text(index) => {
                let text = column(*index).and_then(|array| TextColumn::bind(array, self.format));
                Keys::Text(text.ok_or_else(|| unfit(index))?)
            }
            KeyWriter::Raw(index) => {
                Keys::Raw(column(*index).and_then(RawColumn::bind).ok_or_else(|| unfit(index))?)
            }
        })
    }

    fn write_row(
        &self,
        rows: &Rows,
        row: usize,
        messages: &dyn MessageBatch,
        limits: &[TopicLimits],
        out: &mut Output,
    ) -> Result<(), (Reason, String)> {
        let refused = |error: String| Err((Reason::Refused, error));
        let encode = |error: String| (Reason::Encode, error);
        let topic = rows.topic(row).map_err(|error| (Reason::Refused, error))?;
        let limits = limits.get(usize::from(topic)).ok_or_else(|| no_topic(topic))?;
        let origin = rows.batch.origin.as_ref().map(|origin| origin.value(row) as usize);
        let mut timestamp = rows.timestamp(row).ok_or_else(|| encode("its timestamp is null".into()))?;
        if !limits.timestamps.contains(&timestamp) {
            match self.timestamp {
                // The shell replaces it by the present.
                TimestampWriter::Incoming => timestamp = 0,
                _ => return Err(no_timestamp(timestamp)),
            }
        }
        let mut record = out.record(topic, self.sink, timestamp);
        if let Some(partition) = rows.partition(row) {
            match i32::try_from(partition).ok().filter(|number| (0..limits.partitions).contains(number)) {
                Some(number) => record.partition(number),
                None => {
                    let last = limits.partitions - 1;
                    return refused(format!("there is no partition {partition}: they are 0 to {last}"));
                }
            }
        }
        rows.write_key(row, origin, messages, &mut record).map_err(encode)?;
        match &rows.values {
            Values::Null => record.value_bytes(None),
            Values::Json(values) => record.value(|bytes| values.write(row, bytes)).map_err(encode)?,
            Values::Csv(values) => record.value(|bytes| values.write(row, bytes)).map_err(encode)?,
            Values::Raw(column) => {
                record.value_or_null(|bytes| Ok::<_, String>(column.write(row, bytes))).map_err(encode)?
            }
            Values::Incoming => record.value_bytes(origin.and_then(|i| messages.value(i))),
        }
        if let (HeaderWriter::Forward, Some(i)) = (&self.headers, origin) {
            messages.headers(i, &mut |name, value| record.header(name, value));
        }
        for (name, column) in &rows.headers {
            record
                .header_or_null(name, |bytes| column.write(row, bytes))
                .map_err(|error| encode(format!("header {name}: {error}")))?;
        }
        finish(record, limits)
    }
}

/// Adds the record to the output, if the topic takes records of its size.
fn finish(record: RecordWriter, limits: &TopicLimits) -> Result<(), (Reason, String)> {
    let (size, limit) = (record.size_bytes(), limits.max_record_bytes);
    if size > limit {
        let error = format!("{size} bytes, more than the topic takes in a record ({limit})");
        return Err((Reason::Refused, error));
    }
    record.finish();
    Ok(())
}

fn no_topic(topic: u16) -> (Reason, String) {
    (Reason::Refused, format!("the plan has no output topic {topic}"))
}

fn no_timestamp(timestamp: i64) -> (Reason, String) {
    (Reason::Refused, format!("the topic takes no record with the timestamp {timestamp} ms"))
}

impl Rows<'_> {
    fn topic(&self, row: usize) -> Result<u16, String> {
        match &self.topic {
            Topic::One(topic) => Ok(*topic),
            Topic::Column { name, values, .. } if values.is_null(row) => {
                Err(format!("`{name}`, which names the topic, is null"))
            }
            Topic::Column { name, values, allowed } => {
                let value = values.value(row);
                let not_allowed = || format!("`{name}` is {value:?}, which is not one of `allowed_topics`");
                allowed.get(value).copied().ok_or_else(not_allowed)
            }
        }
    }

    fn timestamp(&self, row: usize) -> Option<i64> {
        match &self.timestamps {
            None => Some(self.batch.event_time.value(row)),
            Some(timestamps) => timestamps.is_valid(row).then(|| timestamps.value(row)),
        }
    }

    fn partition(&self, row: usize) -> Option<i64> {
        let partitions = self.partitions.as_ref()?;
        partitions.is_valid(row).then(|| partitions.value(row))
    }

    fn write_key(
        &self,
        row: usize,
        origin: Option<usize>,
        messages: &dyn MessageBatch,
        record: &mut RecordWriter,
    ) -> Result<(), String> {
        match &self.keys {
            Keys::Incoming => record.key_bytes(origin.and_then(|i| messages.key(i))),
            Keys::Json(keys) => record.key(|bytes| keys.write(row, bytes))?,
            Keys::Raw(column) => record.key_or_null(|bytes| Ok::<_, String>(column.write(row, bytes)))?,
            Keys::Text(column) => record
                .key_or_null(|bytes| column.write(row, bytes))
                .map_err(|error| format!("key: {error}"))?,
        }
        Ok(())
    }
}

/// Timestamps become milliseconds.
fn as_integers(array: &ArrayRef) -> Result<Int64Array, String> {
    let integers = cast(array, &DataType::Int64).map_err(|error| error.to_string())?;
    Ok(integers.as_primitive::<Int64Type>().clone())
}

/// A row as a JSON object, as well as JSON can say it: for dead letters of rows that have no source record.
pub(crate) fn row_as_json(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let encoder = JsonEncoder::new(&rows.schema(), JsonFormat::DEFAULT);
    let mut json = vec![];
    if let Ok(rows) = encoder.bind(rows) {
        rows.write_or_null(row, &mut json);
    }
    json
}
