//! What SQL can read of the Kafka record that a row comes from, besides its columns: `_key`, `_topic`, `_partition`, `_offset`,
//! `_timestamp`, `_headers`, and `header('x')`, which is the last header `x`.
//!
//! Keys and headers are bytes to Kafka and text here: a row whose expression reads one that is not UTF-8 fails. Nothing of a record is
//! looked at but by rows whose step or sink names it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int32Array, Int64Array, ListArray, StringArray, StringBuilder, StructArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use crate::expr::{LIST_ITEM, TIMESTAMP};
use crate::message::MessageBatch;

/// Something of a Kafka record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The key, NULL where there is none.
    Key,
    /// The topic.
    Topic,
    /// The partition.
    Partition,
    /// The offset.
    Offset,
    /// The timestamp, NULL where there is none.
    Timestamp,
    /// All headers in their order.
    Headers,
    /// The value of the last header of this name, NULL where there is none or it has no value.
    Header(String),
}

/// Rows for which something could not be read, with the reason.
pub(crate) type Unreadable = Vec<(u32, String)>;

impl Metadata {
    const NAMES: &[(&str, Metadata)] = &[
        ("_key", Metadata::Key),
        ("_topic", Metadata::Topic),
        ("_partition", Metadata::Partition),
        ("_offset", Metadata::Offset),
        ("_timestamp", Metadata::Timestamp),
        ("_headers", Metadata::Headers),
    ];

    /// What the name stands for, if it is one of these.
    pub fn parse(name: &str) -> Option<Metadata> {
        let header =
            || name.strip_prefix("header('")?.strip_suffix("')").map(str::to_owned).map(Metadata::Header);
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, metadata)| metadata.clone())
            .or_else(header)
    }

    /// The name that SQL reads it by.
    pub fn name(&self) -> String {
        match self {
            Metadata::Header(name) => format!("header('{name}')"),
            other => {
                let known = Self::NAMES.iter().find(|(_, metadata)| metadata == other);
                known.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
            }
        }
    }

    /// Its name, type, and whether it can be NULL.
    pub fn field(&self) -> Field {
        let (data_type, nullable) = match self {
            Metadata::Key | Metadata::Header(_) => (DataType::Utf8, true),
            Metadata::Topic => (DataType::Utf8, false),
            Metadata::Partition => (DataType::Int32, false),
            Metadata::Offset => (DataType::Int64, false),
            Metadata::Timestamp => (TIMESTAMP, true),
            Metadata::Headers => (DataType::List(headers_item().into()), false),
        };
        Field::new(self.name(), data_type, nullable)
    }

    /// The values for rows whose records are `origin` in `messages`, which come from `topic` and `partition`.
    ///
    /// # Errors
    /// None that a record can cause.
    pub(crate) fn read(
        &self,
        origin: &UInt32Array,
        (topic, partition): (&str, i32),
        messages: &dyn MessageBatch,
    ) -> Result<(ArrayRef, Unreadable), ArrowError> {
        let rows = origin.len();
        let records = origin.values().iter().map(|record| *record as usize);
        let mut unreadable = vec![];
        let array: ArrayRef = match self {
            Metadata::Topic => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(topic, rows))),
            Metadata::Partition => Arc::new(Int32Array::from(vec![partition; rows])),
            Metadata::Offset => {
                Arc::new(Int64Array::from_iter_values(records.map(|record| messages.offset(record))))
            }
            Metadata::Timestamp => {
                let time = |record| Some(messages.timestamp(record)).filter(|time| *time >= 0);
                Arc::new(records.map(time).collect::<TimestampMillisecondArray>())
            }
            Metadata::Key => {
                let mut keys = StringBuilder::with_capacity(rows, rows * 16);
                for (row, record) in records.enumerate() {
                    let key = text(messages.key(record), row, "the key", &mut unreadable);
                    keys.append_option(key);
                }
                Arc::new(keys.finish())
            }
            Metadata::Header(wanted) => {
                let mut values = StringBuilder::with_capacity(rows, rows * 16);
                let (mut last, what) = (vec![], format!("the header `{wanted}`"));
                for (row, record) in records.enumerate() {
                    let mut found = false;
                    messages.headers(record, &mut |name, value| {
                        if name == wanted {
                            last.clear();
                            last.extend_from_slice(value.unwrap_or_default());
                            found = value.is_some();
                        }
                    });
                    values.append_option(text(found.then_some(&*last), row, &what, &mut unreadable));
                }
                Arc::new(values.finish())
            }
            Metadata::Headers => Arc::new(headers(records, messages, &mut unreadable)?),
        };
        Ok((array, unreadable))
    }
}

fn text<'b>(bytes: Option<&'b [u8]>, row: usize, what: &str, unreadable: &mut Unreadable) -> Option<&'b str> {
    match std::str::from_utf8(bytes?) {
        Ok(text) => Some(text),
        Err(_) => {
            unreadable.push((row as u32, format!("{what} is not UTF-8")));
            None
        }
    }
}

fn headers_item() -> Field {
    let members = [Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    Field::new(LIST_ITEM, DataType::Struct(Fields::from_iter(members)), true)
}

fn headers(
    records: impl Iterator<Item = usize>,
    messages: &dyn MessageBatch,
    unreadable: &mut Unreadable,
) -> Result<ListArray, ArrowError> {
    let (mut names, mut values) = (StringBuilder::new(), StringBuilder::new());
    let (mut count, mut offsets) = (0, vec![0]);
    for (row, record) in records.enumerate() {
        let mut failed = vec![];
        messages.headers(record, &mut |name, value| {
            names.append_value(name);
            values.append_option(text(value, row, "a header's value", &mut failed));
            count += 1;
        });
        // One reason is enough for a row.
        unreadable.extend(failed.into_iter().next());
        offsets.push(count);
    }
    let item = headers_item();
    let DataType::Struct(members) = item.data_type() else {
        return Err(ArrowError::SchemaError("headers are structs".into()));
    };
    let columns: Vec<ArrayRef> = vec![Arc::new(names.finish()), Arc::new(values.finish())];
    let items = StructArray::try_new(members.clone(), columns, None)?;
    ListArray::try_new(item.into(), OffsetBuffer::new(offsets.into()), Arc::new(items), None)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::message::OwnedMessage;

    #[test]
    fn names_are_read_back() {
        let header = Metadata::Header("it's".to_owned());
        for metadata in Metadata::NAMES.iter().map(|(_, metadata)| metadata).chain([&header]) {
            assert_eq!(Metadata::parse(&metadata.name()).as_ref(), Some(metadata));
        }
        assert_eq!(Metadata::parse("_value"), None);
    }

    #[test]
    fn rows_read_their_own_record() {
        let header = |name: &str, value: Option<&[u8]>| (name.to_owned(), value.map(<[u8]>::to_vec));
        let messages = vec![
            OwnedMessage { offset: 7, timestamp: -1, ..OwnedMessage::default() },
            OwnedMessage {
                offset: 9,
                timestamp: 5,
                key: Some(b"k".to_vec()),
                value: None,
                headers: vec![header("a", Some(b"1")), header("a", Some(b"2")), header("b", None)],
            },
            OwnedMessage {
                key: Some(b"\xff".to_vec()),
                headers: vec![header("a", Some(b"\xff")), header("a", None), header("c", Some(b"\xfe"))],
                ..OwnedMessage::default()
            },
        ];
        let origin = UInt32Array::from(vec![1, 2, 0]);
        let read = |metadata: Metadata| {
            let (array, unreadable) = metadata.read(&origin, ("t", 3), &messages).unwrap();
            assert_eq!(array.data_type(), metadata.field().data_type());
            (array, unreadable)
        };
        let texts = |array: &ArrayRef| {
            array.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        };
        let (keys, unreadable) = read(Metadata::Key);
        assert_eq!(texts(&keys), [Some("k".to_owned()), None, None]);
        assert_eq!(unreadable, [(1, "the key is not UTF-8".to_owned())]);
        let (last, unreadable) = read(Metadata::Header("a".to_owned()));
        assert_eq!(texts(&last), [Some("2".to_owned()), None, None]);
        assert_eq!(unreadable, []);
        let (all, unreadable) = read(Metadata::Headers);
        let lengths: Vec<_> = all.as_list::<i32>().iter().map(|headers| headers.unwrap().len()).collect();
        assert_eq!(lengths, [3, 3, 0]);
        assert_eq!(unreadable, [(1, "a header's value is not UTF-8".to_owned())]);
        let (times, _) = read(Metadata::Timestamp);
        assert_eq!((times.is_null(2), times.null_count()), (true, 1));
        let (offsets, _) = read(Metadata::Offset);
        assert_eq!(offsets.as_primitive::<Int64Type>().values(), &[9, 0, 7]);
    }
}
