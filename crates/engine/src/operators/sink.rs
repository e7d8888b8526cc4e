//! Rows to output records: key, value, headers, timestamp.

use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::formats::json_encode::{JsonEncoder, JsonRows};
use crate::message::MessageBatch;
use crate::output::Output;
use crate::plan::{Key, Sink};

/// What a topic takes. The shell asks the broker; a record beyond it follows `on_error` instead of failing the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// Longest record: key, value and headers, bytes.
    pub max_record_bytes: usize,
    /// Timestamps, milliseconds since the epoch. Never 0 or less: 0 would become the time of sending, and less is refused.
    pub timestamps: RangeInclusive<i64>,
}

impl Default for TopicLimits {
    fn default() -> TopicLimits {
        TopicLimits { max_record_bytes: usize::MAX, timestamps: 1..=i64::MAX }
    }
}

/// Writes the rows of one sink.
#[derive(Debug)]
pub(crate) struct SinkWriter {
    topic: u16,
    sink: u16,
    key: KeyWriter,
    value: JsonEncoder,
    forward_headers: bool,
}

#[derive(Debug)]
enum KeyWriter {
    Incoming,
    Text(usize),
    Json(JsonEncoder),
}

/// The keys of a batch.
enum Keys<'a> {
    Incoming,
    Text(&'a dyn Array),
    Json(JsonRows<'a>),
}

/// A row that was not written: its number, the kind of failure, what is wrong.
pub(crate) type NotWritten = (u32, Reason, String);

impl SinkWriter {
    pub(crate) fn new(number: u16, sink: &Sink) -> SinkWriter {
        let key = match &sink.key {
            Key::Incoming => KeyWriter::Incoming,
            Key::Text(column) => KeyWriter::Text(*column),
            Key::Json(columns) => {
                KeyWriter::Json(JsonEncoder::of_columns(&sink.schema, columns, sink.timestamps))
            }
        };
        SinkWriter {
            topic: sink.topic,
            sink: number,
            key,
            value: JsonEncoder::new(&sink.schema, sink.timestamps),
            forward_headers: sink.forward_headers,
        }
    }

    /// Appends the rows to `out`, but for those that it returns.
    ///
    /// # Errors
    /// A batch that is not of the sink's schema.
    pub(crate) fn write(
        &self,
        rows: &Batch,
        messages: &dyn MessageBatch,
        limits: &TopicLimits,
        out: &mut Output,
    ) -> Result<Vec<NotWritten>, String> {
        let keys = self.keys(&rows.columns)?;
        let values = self.value.bind(&rows.columns)?;
        let mut not_written = vec![];
        for row in 0..rows.len() {
            let origin = rows.origin.as_ref().map(|origin| origin.value(row) as usize);
            if let Err((reason, error)) =
                self.write_row(rows, row, origin, &keys, &values, messages, limits, out)
            {
                not_written.push((row as u32, reason, error));
            }
        }
        Ok(not_written)
    }

    #[allow(clippy::too_many_arguments, reason = "one call, in the loop above")]
    fn write_row(
        &self,
        rows: &Batch,
        row: usize,
        origin: Option<usize>,
        keys: &Keys,
        values: &JsonRows,
        messages: &dyn MessageBatch,
        limits: &TopicLimits,
        out: &mut Output,
    ) -> Result<(), (Reason, String)> {
        let timestamp = rows.event_time.value(row);
        if !limits.timestamps.contains(&timestamp) {
            return Err((
                Reason::Refused,
                format!("the topic takes no record with the timestamp {timestamp} ms"),
            ));
        }
        let encode = |error| (Reason::Encode, error);
        let mut record = out.record(self.topic, self.sink, timestamp);
        match keys {
            Keys::Incoming => record.key_bytes(origin.and_then(|i| messages.key(i))),
            Keys::Text(column) => record.key_bytes(text(*column, row).map(str::as_bytes)),
            Keys::Json(keys) => record.key(|bytes| keys.write(row, bytes)).map_err(encode)?,
        }
        record.value(|bytes| values.write(row, bytes)).map_err(encode)?;
        if let (true, Some(i)) = (self.forward_headers, origin) {
            messages.headers(i, &mut |name, value| record.header(name, value));
        }
        let size = record.size_bytes();
        if size > limits.max_record_bytes {
            let limit = limits.max_record_bytes;
            return Err((
                Reason::Refused,
                format!("{size} bytes, more than the topic takes in a record ({limit})"),
            ));
        }
        record.finish();
        Ok(())
    }

    fn keys<'a>(&'a self, rows: &'a RecordBatch) -> Result<Keys<'a>, String> {
        Ok(match &self.key {
            KeyWriter::Incoming => Keys::Incoming,
            KeyWriter::Json(encoder) => Keys::Json(encoder.bind(rows)?),
            KeyWriter::Text(column) => match rows.columns().get(*column) {
                Some(array) if is_text(array.data_type()) => Keys::Text(array.as_ref()),
                _ => return Err(format!("column {column} of the key is not text")),
            },
        })
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// A row of a text column, `None` where it is null.
fn text(column: &dyn Array, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string_opt::<i32>().map(|column| column.value(row)),
        DataType::LargeUtf8 => column.as_string_opt::<i64>().map(|column| column.value(row)),
        _ => column.as_string_view_opt().map(|column| column.value(row)),
    }
}

/// A row as a JSON object, as well as JSON can say it: for dead letters of rows that have no source record.
pub(crate) fn row_as_json(rows: &RecordBatch, row: usize) -> Vec<u8> {
    let encoder = JsonEncoder::new(&rows.schema(), crate::plan::Timestamps::Rfc3339);
    let mut json = vec![];
    if let Ok(rows) = encoder.bind(rows) {
        rows.write_or_null(row, &mut json);
    }
    json
}
