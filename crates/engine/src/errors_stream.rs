//! `SOURCE.errors`: the records of a source that failed, as a stream that sinks read.
//!
//! | column | type | holds |
//! | --- | --- | --- |
//! | `reason` | varchar | one of [`Reason`] |
//! | `error` | varchar | what is wrong, for people |
//! | `step` | varchar | the name of the source, step or sink that refused the record |
//! | `topic`, `partition`, `offset` | varchar, int, bigint | where it came from |
//! | `timestamp` | timestamp | Kafka's timestamp of it; null where it has none |
//! | `key`, `value` | varchar | its bytes, for people: what is no UTF-8 is replaced by U+FFFD; null where they are |
//!
//! A row has its record behind it: a sink forwards key and headers byte for byte by default, and with `format: raw` the value too.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::expr::TIMESTAMP;
use crate::message::MessageBatch;

/// The stream's columns.
pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    Arc::new(Schema::new(vec![
        field("reason", DataType::Utf8, false),
        field("error", DataType::Utf8, false),
        field("step", DataType::Utf8, false),
        field("topic", DataType::Utf8, false),
        field("partition", DataType::Int32, false),
        field("offset", DataType::Int64, false),
        field("timestamp", TIMESTAMP, true),
        field("key", DataType::Utf8, true),
        field("value", DataType::Utf8, true),
    ]))
});

/// A record that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its index in the messages.
    pub record: u32,
    /// Name of the source, step or sink.
    pub step: String,
    pub reason: Reason,
    pub error: String,
}

/// The rows of failed records.
pub(crate) fn rows(
    failures: &[Failure],
    topic: &str,
    partition: i32,
    messages: &dyn MessageBatch,
) -> Result<Batch, ArrowError> {
    let count = failures.len();
    let text = |of: &dyn Fn(&Failure) -> Option<String>| -> ArrayRef {
        Arc::new(failures.iter().map(of).collect::<StringArray>())
    };
    let lossy = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let index = |failure: &Failure| failure.record as usize;
    let timestamps: Vec<i64> = failures.iter().map(|failure| messages.timestamp(index(failure))).collect();
    let known = timestamps.iter().map(|timestamp| (*timestamp >= 0).then_some(*timestamp));
    let offsets = failures.iter().map(|failure| messages.offset(index(failure)));
    let columns: Vec<ArrayRef> = vec![
        text(&|failure| Some(failure.reason.as_str().to_owned())),
        text(&|failure| Some(failure.error.clone())),
        text(&|failure| Some(failure.step.clone())),
        text(&|_| Some(topic.to_owned())),
        Arc::new(Int32Array::from(vec![partition; count])),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(known.collect::<TimestampMillisecondArray>()),
        text(&|failure| lossy(messages.key(index(failure)))),
        text(&|failure| lossy(messages.value(index(failure)))),
    ];
    Ok(Batch {
        columns: RecordBatch::try_new(SCHEMA.clone(), columns)?,
        event_time: Int64Array::from(timestamps),
        origin: Some(UInt32Array::from_iter_values(failures.iter().map(|failure| failure.record))),
        retracted: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::json_encode::JsonEncoder;
    use crate::message::OwnedMessage;
    use crate::plan::JsonFormat;

    #[test]
    fn rows_say_where_a_record_is_and_what_is_wrong() {
        let record = |offset, timestamp, value: Option<&[u8]>| OwnedMessage {
            offset,
            timestamp,
            key: Some(b"k".to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: vec![],
        };
        let messages = vec![record(5, 1, None), record(7, -1, Some(b"{\xff")), record(8, 3, None)];
        let failure = |record| Failure {
            record,
            step: "orders".into(),
            reason: Reason::Decode,
            error: format!("no {record}"),
        };
        let rows = rows(&[failure(1), failure(2)], "in", 4, &messages).unwrap();
        assert_eq!(rows.origin.as_ref().unwrap().values(), &[1, 2]);
        let encoder = JsonEncoder::new(&rows.columns.schema(), JsonFormat::DEFAULT);
        let bound = encoder.bind(&rows.columns).unwrap();
        let json = |row| {
            let mut out = vec![];
            bound.write(row, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            json(0),
            "{\"reason\":\"decode\",\"error\":\"no 1\",\"step\":\"orders\",\"topic\":\"in\",\"partition\":4,\"offset\":7,\
             \"timestamp\":null,\"key\":\"k\",\"value\":\"{\u{fffd}\"}"
        );
        assert!(
            json(1).ends_with("\"timestamp\":\"1970-01-01T00:00:00.003Z\",\"key\":\"k\",\"value\":null}")
        );
    }
}
