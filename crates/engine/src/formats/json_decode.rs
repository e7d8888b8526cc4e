//! JSON records straight into Arrow columns.
//!
//! One pass of serde_json over a record finds the members that the plan uses (nested ones through a small trie) and remembers where
//! their text stands; everything else is checked for syntax and skipped. Then each text goes, typed, into its
//! column's buffer: nothing is parsed into a tree, and nothing is allocated per record (but for strings with escapes).
//!
//! What a record may be:
//! - One JSON object in UTF-8, with nothing behind it. Of members with the same name the last one counts, as a whole: members
//!   nested in an earlier one are forgotten.
//! - A missing or null member is NULL; an error where the column is `not null`. So is a member on the way to a nested one; any other
//!   value there that is no object is an error.
//! - Integers come from JSON integers (`1.0` is none), floats from any number (rounded to the nearest, an infinite one is an error),
//!   booleans from `true` and `false`, text from strings. Strings are not numbers.
//! - Decimals come from numbers or from strings that hold one, exactly ([`decimal`]).
//! - Dates come from `"2026-01-31"`; timestamps from RFC 3339 strings (what is finer than a millisecond is cut off) or from integers,
//!   milliseconds since the epoch. Both within the years 1 to 9999; event times after 1970.
//!
//! A record that is otherwise is an error of that record, with a reason; the rows of the others go on. It never
//! panics and uses no stack in proportion to the nesting of a record.

mod builder;
mod path;

use arrow::array::{Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use onceflow_protocol::EventTime;

use self::builder::ColumnBuilder;
use self::path::{PathTrie, Slot};
use crate::batch::Batch;
use crate::message::MessageBatch;
use crate::plan::{EventTimeFrom, Source};

/// Bytes of values after which a call to [`JsonDecoder::decode`] stops, so that no column's text outgrows its 31-bit offsets.
const MAX_BATCH_BYTES: usize = 256 << 20;

/// Turns the messages of one source into rows of [`Source::schema`].
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    trie: PathTrie,
    columns: Vec<ColumnBuilder>,
    event_time: EventTimeFrom,
}

/// What became of a run of messages.
#[derive(Debug)]
pub struct Decoded {
    /// The good ones, in order; a row's origin is the index of its message.
    pub batch: Batch,
    /// The others, in order, each with the reason.
    pub failed: Vec<(u32, String)>,
    /// Index of the first message that was not looked at.
    pub next: usize,
}

impl JsonDecoder {
    /// A decoder of the source's columns.
    ///
    /// # Errors
    /// A column of a type that JSON cannot be decoded into, or an event time from a column that has none.
    pub fn new(source: &Source) -> Result<JsonDecoder, String> {
        let columns: Vec<_> = source.columns.iter().map(ColumnBuilder::new).collect::<Result<_, _>>()?;
        if let EventTimeFrom::Column { column, divisor, .. } = source.event_time {
            let integer = columns.get(column).is_some_and(ColumnBuilder::has_integers);
            if !integer || divisor == 0 {
                return Err(format!(
                    "source {}: event time must be an integer or timestamp column",
                    source.name
                ));
            }
        }
        Ok(JsonDecoder {
            schema: source.schema.clone(),
            trie: PathTrie::new(source.columns.iter().map(|column| column.path.as_slice())),
            columns,
            event_time: source.event_time,
        })
    }

    /// Decodes the messages from index `from` on, all of them unless they are enormous: see [`Decoded::next`].
    ///
    /// # Errors
    /// Only a schema that does not fit the source's columns.
    pub fn decode(&mut self, messages: &dyn MessageBatch, from: usize) -> Result<Decoded, ArrowError> {
        let count = messages.len() - from.min(messages.len());
        let mut event_time = Vec::with_capacity(count);
        let mut origin = Vec::with_capacity(count);
        let mut failed = vec![];
        let mut slots = vec![Slot::Missing; self.columns.len()];
        for column in &mut self.columns {
            column.reserve(count);
        }
        let mut next = from;
        let mut bytes = 0;
        while next < messages.len() && bytes < MAX_BATCH_BYTES {
            bytes += messages.value(next).map_or(0, <[u8]>::len);
            match self.decode_one(messages, next, &mut slots) {
                Ok(time) => {
                    event_time.push(time.ms());
                    origin.push(next as u32);
                }
                Err(reason) => {
                    for column in &mut self.columns {
                        column.truncate(event_time.len());
                    }
                    failed.push((next as u32, reason));
                }
            }
            next += 1;
        }

        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(event_time.len()));
        let batch = Batch {
            columns: RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?,
            event_time: Int64Array::from(event_time),
            origin: Some(UInt32Array::from(origin)),
        };
        Ok(Decoded { batch, failed, next })
    }

    /// Appends message `i` to every column, or fails with some columns one row longer than the others.
    fn decode_one<'m>(
        &mut self,
        messages: &'m dyn MessageBatch,
        i: usize,
        slots: &mut [Slot<'m>],
    ) -> Result<EventTime, String> {
        let value = messages.value(i).ok_or("null value")?;
        if value.is_empty() {
            return Err("empty value".into());
        }
        let text = std::str::from_utf8(value)
            .map_err(|error| format!("not UTF-8: invalid byte at position {}", error.valid_up_to()))?;
        slots.fill(Slot::Missing);
        self.trie.find(text, slots)?;
        for (column, slot) in self.columns.iter_mut().zip(slots) {
            column.push(*slot)?;
        }
        self.event_time(messages.timestamp(i))
    }

    /// The event time of the row that was appended last.
    fn event_time(&self, record_timestamp: i64) -> Result<EventTime, String> {
        let ms = match self.event_time {
            EventTimeFrom::Record if record_timestamp < 0 => return Err("the record has no timestamp".into()),
            EventTimeFrom::Record => Some(record_timestamp),
            EventTimeFrom::Column { column, multiplier, divisor } => {
                let column = &self.columns[column];
                let value = column
                    .last_integer()
                    .ok_or_else(|| format!("event time: column {} is null", column.name()))?;
                value.checked_mul(multiplier).and_then(|value| value.checked_div_euclid(divisor))
            }
        };
        ms.and_then(EventTime::new)
            .ok_or_else(|| "event time: outside of 1970 to 9999 (is its unit right?)".into())
    }
}

#[cfg(test)]
mod tests;
