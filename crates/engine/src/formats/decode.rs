//! Records straight into Arrow columns: JSON, CSV, raw bytes.
//!
//! One pass over a record finds the members that the plan uses (nested ones through a small trie) and remembers where their text stands;
//! everything else is checked for syntax and skipped. That is serde_json's work, [`scan`] is a short cut for what is plain. Then each text
//! goes, typed, into its column's buffer: nothing is parsed into a tree, and nothing is allocated per record (but for strings with escapes).
//!
//! What a JSON record may be:
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
//! - Binary comes from strings in base64. A `json` column takes any value as it is written.
//! - Lists come from arrays, structs from objects; null items are NULL, and members that the type does not name are skipped (or an
//!   error under `unknown_fields: error`).
//!
//! CSV: [`csv`]. Raw: the value is the one column's, as it is (text must be UTF-8); an empty value is an empty text.
//!
//! A record that is otherwise is an error of that record, with a reason; the rows of the others go on. It never
//! panics and uses no stack in proportion to the nesting of a record.

mod columns;
mod csv;
pub(crate) mod json;
mod scan;

use std::ops::Range;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use onceflow_protocol::EventTime;

use self::columns::{ColumnBuilder, Value};
use self::csv::CsvFields;
use self::json::{Finder, Slot, Undeclared};
use super::kept;
use crate::batch::Batch;
use crate::dead_letter::Reason;
use crate::message::MessageBatch;
use crate::plan::{Column, EventTimeFrom, Format, KEPT, Source, Tombstones, UnknownFields};

/// Bytes of values after which a call to [`Decoder::decode`] stops, so that no column's text outgrows its 31-bit offsets.
const MAX_BATCH_BYTES: usize = 256 << 20;

/// Turns the messages of one source into rows of [`Source::schema`].
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    reader: Reader,
    columns: Vec<ColumnBuilder>,
    unknown_fields: UnknownFields,
    /// Undeclared members, where they are kept.
    kept: Option<Kept>,
    event_time: EventTimeFrom,
    max_ahead_ms: Option<i64>,
    skip_tombstones: bool,
}

/// Finds what columns come from.
#[derive(Debug)]
enum Reader {
    Json(Finder),
    Csv {
        fields: Box<CsvFields>,
        /// Of each column.
        places: Vec<usize>,
        /// How many fields the schema has.
        declared: usize,
    },
    Raw,
}

/// The column of undeclared members.
#[derive(Debug)]
struct Kept {
    column: ColumnBuilder,
    /// Those of the current record.
    row: Vec<u8>,
}

/// What became of a run of messages.
#[derive(Debug)]
pub struct Decoded {
    /// The good ones, in order; a row's origin is the index of its message.
    pub batch: Batch,
    /// The bad ones, in order, each with the reason.
    pub failed: Vec<(u32, Reason, String)>,
    /// Null values that the source says to skip, in order.
    pub skipped: Vec<u32>,
    /// Index of the first message that was not looked at.
    pub next: usize,
}

impl Decoder {
    /// A decoder of the source's columns.
    ///
    /// # Errors
    /// A column of a type that its format cannot be decoded into, or an event time from a column that has none.
    pub fn new(source: &Source) -> Result<Decoder, String> {
        let strict = source.unknown_fields == UnknownFields::Error;
        let columns = source.columns.iter().map(|column| ColumnBuilder::new(column, strict));
        let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
        if let EventTimeFrom::Column { column, divisor, .. } = source.event_time {
            let integer = columns.get(column).is_some_and(ColumnBuilder::has_integers);
            if !integer || divisor == 0 {
                return Err(format!(
                    "source {}: event time must be an integer or timestamp column",
                    source.name
                ));
            }
        }
        let kept = match source.unknown_fields {
            UnknownFields::Keep => {
                Some(Kept { column: ColumnBuilder::new(&kept_column(), strict)?, row: vec![] })
            }
            UnknownFields::Ignore | UnknownFields::Error => None,
        };
        let reader = match &source.format {
            Format::Json => Reader::Json(Finder::new(
                source.columns.iter().map(|column| column.path.as_slice()),
                source.declared.iter().map(Vec::as_slice),
            )),
            Format::Csv(csv) => Reader::Csv {
                fields: Box::new(CsvFields::new(csv)),
                places: source.columns.iter().map(|column| column.place).collect(),
                declared: source.declared.len(),
            },
            Format::Raw => Reader::Raw,
        };
        Ok(Decoder {
            schema: source.schema.clone(),
            reader,
            columns,
            unknown_fields: source.unknown_fields,
            kept,
            event_time: source.event_time,
            max_ahead_ms: source.max_ahead_ms,
            skip_tombstones: source.tombstones == Tombstones::Skip,
        })
    }

    /// Decodes these messages, all of them unless they are enormous: see [`Decoded::next`].
    ///
    /// # Errors
    /// Only a schema that does not fit the source's columns.
    pub fn decode(
        &mut self,
        messages: &dyn MessageBatch,
        range: Range<usize>,
    ) -> Result<Decoded, ArrowError> {
        let mut event_time = Vec::with_capacity(range.len());
        let mut origin = Vec::with_capacity(range.len());
        let (mut failed, mut skipped) = (vec![], vec![]);
        let mut slots = vec![Slot::Missing; self.columns.len()];
        self.all_columns().for_each(|column| column.reserve(range.len()));
        let mut next = range.start;
        let mut bytes = 0;
        while next < range.end && bytes < MAX_BATCH_BYTES {
            match messages.value(next) {
                None if self.skip_tombstones => skipped.push(next as u32),
                value => {
                    bytes += value.map_or(0, <[u8]>::len);
                    let timestamp = || messages.timestamp(next);
                    match self.decode_one(value, &timestamp, &mut slots) {
                        Ok(time) => {
                            event_time.push(time.ms());
                            origin.push(next as u32);
                        }
                        Err((reason, error)) => {
                            self.all_columns().for_each(|column| column.truncate(event_time.len()));
                            failed.push((next as u32, reason, error));
                        }
                    }
                }
            }
            next += 1;
        }

        let arrays = self.all_columns().map(ColumnBuilder::finish).collect::<Result<Vec<ArrayRef>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(event_time.len()));
        let batch = Batch {
            columns: RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?,
            event_time: Int64Array::from(event_time),
            origin: Some(UInt32Array::from(origin)),
            retracted: false,
        };
        Ok(Decoded { batch, failed, skipped, next })
    }

    fn all_columns(&mut self) -> impl Iterator<Item = &mut ColumnBuilder> {
        self.columns.iter_mut().chain(self.kept.iter_mut().map(|kept| &mut kept.column))
    }

    /// Appends a message to every column, or fails with some columns one row longer than the others.
    fn decode_one<'m>(
        &mut self,
        value: Option<&'m [u8]>,
        timestamp: &dyn Fn() -> i64,
        slots: &mut [Slot<'m>],
    ) -> Result<EventTime, (Reason, String)> {
        self.push_record(value, slots).map_err(|error| (Reason::Decode, error))?;
        let time = self.event_time(timestamp).map_err(|error| (Reason::Decode, error))?;
        self.check_ahead(time, timestamp).map_err(|error| (Reason::Ahead, error))?;
        Ok(time)
    }

    fn push_record<'m>(&mut self, value: Option<&'m [u8]>, slots: &mut [Slot<'m>]) -> Result<(), String> {
        let value = value.ok_or("null value")?;
        match &mut self.reader {
            Reader::Raw => self.columns.iter_mut().try_for_each(|column| column.push_raw(value)),
            _ if value.is_empty() => Err("empty value".into()),
            Reader::Json(finder) => {
                let text = utf8(value)?;
                match (&mut self.kept, self.unknown_fields) {
                    (Some(kept), _) => {
                        kept.row.clear();
                        finder.find(text, slots, &mut Undeclared::Keep(&mut kept.row))?;
                        kept::close(&mut kept.row);
                        kept.column.push_text(&kept.row)?;
                    }
                    (None, UnknownFields::Error) => {
                        let mut first = None;
                        finder.find(text, slots, &mut Undeclared::Refuse(&mut first))?;
                        if let Some(name) = first {
                            return Err(format!("the schema has no member `{name}`"));
                        }
                    }
                    (None, UnknownFields::Ignore | UnknownFields::Keep) => {
                        finder.find(text, slots, &mut Undeclared::Ignore)?
                    }
                }
                self.columns.iter_mut().zip(slots).try_for_each(|(column, slot)| column.push(*slot))
            }
            Reader::Csv { fields, places, declared } => {
                fields.read(utf8(value)?)?;
                if self.unknown_fields == UnknownFields::Error && fields.len() > *declared {
                    return Err(format!("{} fields, the schema has {declared}", fields.len()));
                }
                self.columns.iter_mut().zip(places).try_for_each(|(column, place)| match fields.get(*place) {
                    Some(field) => column.push_some(Value::Plain(field)),
                    None => column.push_absent("is null"),
                })
            }
        }
    }

    /// The event time of the row that was appended last.
    fn event_time(&self, record_timestamp: &dyn Fn() -> i64) -> Result<EventTime, String> {
        let ms = match self.event_time {
            EventTimeFrom::Record => match record_timestamp() {
                ..0 => return Err("the record has no timestamp".into()),
                ms => Some(ms),
            },
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

    /// One record far in the future would close every window before it. It is measured against the record's own timestamp, which
    /// is the same when the record is read again.
    fn check_ahead(&self, time: EventTime, record_timestamp: &dyn Fn() -> i64) -> Result<(), String> {
        let Some(max) = self.max_ahead_ms else { return Ok(()) };
        let record_timestamp = record_timestamp();
        if record_timestamp < 0 {
            return Err(
                "event time: the record has no timestamp that `max_ahead` could be measured from".into()
            );
        }
        match time.ms().saturating_sub(record_timestamp) {
            ahead if ahead > max => Err(format!(
                "event time: {ahead} ms ahead of the record's timestamp, `max_ahead` is {max} ms"
            )),
            _ => Ok(()),
        }
    }
}

fn utf8(value: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(value)
        .map_err(|error| format!("not UTF-8: invalid byte at position {}", error.valid_up_to()))
}

fn kept_column() -> Column {
    Column { name: KEPT.to_owned(), path: vec![], place: 0, data_type: DataType::Utf8, not_null: true }
}

#[cfg(test)]
mod tests;
