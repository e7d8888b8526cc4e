//! One column's buffers, filled from JSON or plain text.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    LargeStringArray, ListArray, NullBufferBuilder, PrimitiveArray, StringArray, StructArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit,
};
use arrow::error::ArrowError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, NaiveDate};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{Finder, Slot, Undeclared, kind, string};
use super::utf8;
use crate::expr::sql_type;
use crate::formats::decimal;
use crate::plan::Column;

/// Characters of an offending value that an error shows.
const EXCERPT: usize = 40;

/// Days from 0000-12-31 to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// A struct with no more members than this is decoded without an allocation.
const FEW_MEMBERS: usize = 16;

/// The rows of one column so far. A row that turns out bad is taken back by [`truncate`](Self::truncate).
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    column: Column,
    values: Values,
    /// Which rows are null.
    nulls: NullBufferBuilder,
}

/// A value other than null, as its format has it.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A JSON value.
    Json(&'a str),
    /// A JSON string without escapes, in its quotes.
    JsonText(&'a str),
    /// Text without quotes, whatever the type.
    Plain(&'a str),
}

impl<'a> Value<'a> {
    /// As it stands there.
    fn written(self) -> &'a str {
        match self {
            Value::Json(text) | Value::JsonText(text) | Value::Plain(text) => text,
        }
    }

    /// The text that it holds, if it is one.
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Json(json) => string(json),
            Value::JsonText(json) => json.get(1..json.len() - 1).map(Cow::Borrowed),
            Value::Plain(text) => Some(text.into()),
        }
    }
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal { units: Vec<i128>, precision: u8, scale: i8 },
    Text { bytes: Vec<u8>, offsets: Vec<i32> },
    Binary { bytes: Vec<u8>, offsets: Vec<i32> },
    Json { bytes: Vec<u8>, offsets: Vec<i64> },
    Date(Vec<i32>),
    Timestamp { ms: Vec<i64>, zone: Option<Arc<str>> },
    List { offsets: Vec<i32>, field: FieldRef, items: Box<ColumnBuilder> },
    Struct { fields: Fields, finder: Finder, members: Vec<ColumnBuilder>, strict: bool },
}

/// Applies the same code to every plain vector of values.
macro_rules! each_vector {
    ($values:expr, $vector:ident => $body:expr; $($rest:tt)*) => {
        match $values {
            Values::Int8($vector) => $body,
            Values::Int16($vector) => $body,
            Values::Int32($vector) => $body,
            Values::Int64($vector) => $body,
            Values::Float32($vector) => $body,
            Values::Float64($vector) => $body,
            Values::Decimal { units: $vector, .. } => $body,
            Values::Date($vector) => $body,
            Values::Timestamp { ms: $vector, .. } => $body,
            $($rest)*
        }
    };
}

impl ColumnBuilder {
    /// `strict`: a struct's members that the type does not have are errors.
    ///
    /// # Errors
    /// A type that columns do not have.
    pub(super) fn new(column: &Column, strict: bool) -> Result<ColumnBuilder, String> {
        let values = match &column.data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(vec![]),
            DataType::Int16 => Values::Int16(vec![]),
            DataType::Int32 => Values::Int32(vec![]),
            DataType::Int64 => Values::Int64(vec![]),
            DataType::Float32 => Values::Float32(vec![]),
            DataType::Float64 => Values::Float64(vec![]),
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { units: vec![], precision: *precision, scale: *scale }
            }
            DataType::Utf8 => Values::Text { bytes: vec![], offsets: vec![0] },
            DataType::Binary => Values::Binary { bytes: vec![], offsets: vec![0] },
            DataType::LargeUtf8 => Values::Json { bytes: vec![], offsets: vec![0] },
            DataType::List(field) => Values::List {
                offsets: vec![0],
                field: field.clone(),
                items: Box::new(Self::part(column, "[]", field, strict)?),
            },
            DataType::Struct(fields) => {
                let member =
                    |field: &FieldRef| Self::part(column, &format!(".{}", field.name()), field, strict);
                let paths: Vec<_> = fields.iter().map(|field| [field.name().clone()]).collect();
                Values::Struct {
                    fields: fields.clone(),
                    finder: Finder::new(paths.iter().map(|path| path.as_slice()), std::iter::empty()),
                    members: fields.iter().map(member).collect::<Result<_, _>>()?,
                    strict,
                }
            }
            DataType::Date32 => Values::Date(vec![]),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => {
                Values::Timestamp { ms: vec![], zone: zone.clone() }
            }
            other => return Err(format!("column {}: nothing can be decoded as {other}", column.name)),
        };
        Ok(ColumnBuilder { column: column.clone(), values, nulls: NullBufferBuilder::new(0) })
    }

    /// Of the items of a list, or a member of a struct.
    fn part(of: &Column, suffix: &str, field: &FieldRef, strict: bool) -> Result<ColumnBuilder, String> {
        let column = Column {
            name: format!("{}{suffix}", of.name),
            data_type: field.data_type().clone(),
            not_null: !field.is_nullable(),
            ..of.clone()
        };
        ColumnBuilder::new(&column, strict)
    }

    pub(super) fn name(&self) -> &str {
        &self.column.name
    }

    /// Makes room for `rows` more.
    pub(super) fn reserve(&mut self, rows: usize) {
        each_vector!(&mut self.values, vector => vector.reserve(rows);
            Values::Boolean(bits) => bits.reserve(rows),
            Values::Text { bytes, offsets } | Values::Binary { bytes, offsets } => {
                bytes.reserve(rows * 8);
                offsets.reserve(rows);
            },
            Values::Json { bytes, offsets } => {
                bytes.reserve(rows * 8);
                offsets.reserve(rows);
            },
            Values::List { offsets, items, .. } => {
                offsets.reserve(rows);
                items.reserve(rows);
            },
            Values::Struct { members, .. } => members.iter_mut().for_each(|member| member.reserve(rows))
        );
    }

    /// Appends a row of a JSON record.
    ///
    /// # Errors
    /// A value that is not of the column's type, or a null that may not be. The row must be [taken back](Self::truncate) then.
    pub(super) fn push(&mut self, slot: Slot) -> Result<(), String> {
        match slot {
            Slot::Missing => self.push_absent("is missing"),
            Slot::Found("null") => self.push_absent("is null"),
            Slot::Found(json) => self.push_some(Value::Json(json)),
            Slot::Text(json) => self.push_some(Value::JsonText(json)),
            Slot::Blocked { depth, found } => {
                let path = self.column.path.get(..depth).unwrap_or_default().join(".");
                Err(format!("column {}: expected an object at {path}, found {found}", self.column.name))
            }
        }
    }

    /// Appends a row that has no value because it `is` so.
    ///
    /// # Errors
    /// A null that may not be; nothing is appended then.
    pub(super) fn push_absent(&mut self, is: &str) -> Result<(), String> {
        if self.column.not_null {
            return Err(format!("column {}: {is}, but declared not null", self.column.name));
        }
        self.push_null();
        Ok(())
    }

    /// Appends a row with a value.
    ///
    /// # Errors
    /// A value that is not of the column's type. The row must be [taken back](Self::truncate) then.
    pub(super) fn push_some(&mut self, value: Value) -> Result<(), String> {
        let pushed = match (&mut self.values, value) {
            (Values::List { offsets, items, .. }, Value::Json(json)) if json.starts_with('[') => {
                push_items(json, items)?;
                push_end(offsets, items.nulls.len())
            }
            (Values::Struct { finder, members, strict, .. }, Value::Json(json)) if json.starts_with('{') => {
                push_members(json, finder, members, *strict, &self.column.name)?;
                Ok(())
            }
            _ => self.push_scalar(value),
        };
        let reason = match pushed {
            Ok(()) => {
                self.nulls.append_non_null();
                return Ok(());
            }
            Err(reason) => reason,
        };
        let written = value.written();
        let found = match (written.chars().count(), value) {
            (0, _) => "nothing".to_owned(),
            (0..=EXCERPT, _) => written.to_owned(),
            (_, value) => {
                let kind = match value {
                    Value::Json(json) | Value::JsonText(json) => kind(json.as_bytes()[0]),
                    Value::Plain(_) => "a text",
                };
                format!("{kind} beginning {}…", written.chars().take(EXCERPT).collect::<String>())
            }
        };
        Err(format!("column {}: expected {}, found {found}{reason}", self.column.name, self.expected()))
    }

    /// Appends a row that holds these bytes.
    ///
    /// # Errors
    /// What the column's type cannot hold. The row must be [taken back](Self::truncate) then.
    pub(super) fn push_raw(&mut self, value: &[u8]) -> Result<(), String> {
        match &self.values {
            Values::Binary { .. } => self.push_text(value),
            Values::Text { .. } => self.push_text(utf8(value)?.as_bytes()),
            _ => self.push_some(Value::Plain(utf8(value)?)),
        }
    }

    /// Appends a row of a text column (which must be UTF-8) or a binary column as it is.
    ///
    /// # Errors
    /// More text than a column holds; nothing is appended then.
    pub(super) fn push_text(&mut self, text: &[u8]) -> Result<(), String> {
        let (Values::Text { bytes, offsets } | Values::Binary { bytes, offsets }) = &mut self.values else {
            return Err(format!("column {}: expected text or bytes", self.column.name));
        };
        push_bytes(text, bytes, offsets).map_err(|error| format!("column {}{error}", self.column.name))?;
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        self.nulls.append_null();
        each_vector!(&mut self.values, vector => vector.push(Default::default());
            Values::Boolean(bits) => bits.append(false),
            Values::Text { bytes, offsets } | Values::Binary { bytes, offsets } => offsets.push(bytes.len() as i32),
            Values::Json { bytes, offsets } => offsets.push(bytes.len() as i64),
            Values::List { offsets, .. } => offsets.push(offsets.last().copied().unwrap_or_default()),
            Values::Struct { members, .. } => members.iter_mut().for_each(ColumnBuilder::push_null)
        );
    }

    /// Appends a value that is neither a list nor a struct, or fails with what there is to say besides the type and the value.
    fn push_scalar(&mut self, value: Value) -> Result<(), String> {
        let none = String::new;
        let written = value.written();
        match &mut self.values {
            Values::Boolean(bits) => bits.append(match written {
                "true" => true,
                "false" => false,
                _ => return Err(none()),
            }),
            Values::Int8(vector) => vector.push(written.parse().map_err(|_| none())?),
            Values::Int16(vector) => vector.push(written.parse().map_err(|_| none())?),
            Values::Int32(vector) => vector.push(written.parse().map_err(|_| none())?),
            Values::Int64(vector) => vector.push(written.parse().map_err(|_| none())?),
            // In JSON only a number parses as a float, and in plain text "NaN" and "inf" are none.
            Values::Float32(vector) => {
                vector.push(written.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(none)?)
            }
            Values::Float64(vector) => {
                vector.push(written.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(none)?)
            }
            Values::Decimal { units, precision, scale } => {
                let text = value.text().unwrap_or(written.into());
                units.push(decimal::parse(&text, *precision, *scale).map_err(|error| format!(": {error}"))?)
            }
            Values::Text { bytes, offsets } => {
                push_bytes(value.text().ok_or_else(none)?.as_bytes(), bytes, offsets)?
            }
            Values::Binary { bytes, offsets } => {
                let text = value.text().ok_or_else(none)?;
                let decoded = BASE64_STANDARD.decode(&*text).map_err(|error| format!(": {error}"))?;
                push_bytes(&decoded, bytes, offsets)?;
            }
            Values::Json { bytes, offsets } => {
                let json = match value {
                    Value::Json(json) | Value::JsonText(json) => json,
                    Value::Plain(text) => {
                        serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!(": {error}"))?;
                        text.trim_ascii()
                    }
                };
                bytes.extend_from_slice(json.as_bytes());
                offsets.push(bytes.len() as i64);
            }
            Values::Date(vector) => {
                vector.push(value.text().and_then(|text| parse_date(&text)).ok_or_else(none)?)
            }
            Values::Timestamp { ms, .. } => {
                let value = match (written.parse(), value.text()) {
                    (Ok(ms), _) => ms,
                    (Err(_), Some(text)) => DateTime::parse_from_rfc3339(&text)
                        .map_err(|error| format!(": {error}"))?
                        .timestamp_millis(),
                    (Err(_), None) => return Err(none()),
                };
                if !TIMESTAMPS.contains(&value) {
                    return Err(": outside of the years 1 to 9999".into());
                }
                ms.push(value);
            }
            Values::List { .. } | Values::Struct { .. } => return Err(none()),
        }
        Ok(())
    }

    /// The column's type, as its error messages name it.
    fn expected(&self) -> String {
        match &self.values {
            Values::Boolean(_) => "a boolean".into(),
            Values::Int8(_) => "an integer (tinyint)".into(),
            Values::Int16(_) => "an integer (smallint)".into(),
            Values::Int32(_) => "an integer (int)".into(),
            Values::Int64(_) => "an integer (bigint)".into(),
            Values::Float32(_) => "a number (real)".into(),
            Values::Float64(_) => "a number (double)".into(),
            Values::Decimal { precision, scale, .. } => format!("a decimal({precision},{scale})"),
            Values::Text { .. } => "a string".into(),
            Values::Binary { .. } => "bytes in base64".into(),
            Values::Json { .. } => "JSON".into(),
            Values::List { .. } => format!("a list ({})", sql_type(&self.column.data_type)),
            Values::Struct { .. } => format!("an object ({})", sql_type(&self.column.data_type)),
            Values::Date(_) => "a date like \"2026-01-31\"".into(),
            Values::Timestamp { .. } => "a timestamp (RFC 3339 or milliseconds)".into(),
        }
    }

    /// Goes back to the first `rows` rows, however many there are.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.nulls.truncate(rows);
        each_vector!(&mut self.values, vector => vector.truncate(rows);
            Values::Boolean(bits) => bits.truncate(rows),
            Values::Text { bytes, offsets } | Values::Binary { bytes, offsets } => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            },
            Values::Json { bytes, offsets } => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            },
            Values::List { offsets, items, .. } => {
                offsets.truncate(rows + 1);
                items.truncate(offsets.last().map_or(0, |end| *end as usize));
            },
            Values::Struct { members, .. } => members.iter_mut().for_each(|member| member.truncate(rows))
        );
    }

    /// Whether [`last_integer`](Self::last_integer) can answer.
    pub(super) fn has_integers(&self) -> bool {
        use Values::*;
        matches!(self.values, Int8(_) | Int16(_) | Int32(_) | Int64(_) | Timestamp { .. })
    }

    /// The last row's value as an integer, `None` where it is null.
    pub(super) fn last_integer(&self) -> Option<i64> {
        let rows = self.nulls.len();
        if rows == 0 || !self.nulls.is_valid(rows - 1) {
            return None;
        }
        match &self.values {
            Values::Int8(vector) => vector.last().copied().map(i64::from),
            Values::Int16(vector) => vector.last().copied().map(i64::from),
            Values::Int32(vector) => vector.last().copied().map(i64::from),
            Values::Int64(vector) | Values::Timestamp { ms: vector, .. } => vector.last().copied(),
            _ => None,
        }
    }

    /// The rows as an array; the builder is empty afterwards.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Boolean(bits) => Arc::new(BooleanArray::new(bits.finish(), nulls)),
            Values::Int8(vector) => primitive::<Int8Type>(vector, nulls),
            Values::Int16(vector) => primitive::<Int16Type>(vector, nulls),
            Values::Int32(vector) => primitive::<Int32Type>(vector, nulls),
            Values::Int64(vector) => primitive::<Int64Type>(vector, nulls),
            Values::Float32(vector) => primitive::<Float32Type>(vector, nulls),
            Values::Float64(vector) => primitive::<Float64Type>(vector, nulls),
            Values::Decimal { units, precision, scale } => Arc::new(
                Decimal128Array::new(std::mem::take(units).into(), nulls)
                    .with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Text { bytes, offsets } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(StringArray::try_new(offsets, Buffer::from(std::mem::take(bytes)), nulls)?)
            }
            Values::Binary { bytes, offsets } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(BinaryArray::try_new(offsets, Buffer::from(std::mem::take(bytes)), nulls)?)
            }
            Values::Json { bytes, offsets } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(LargeStringArray::try_new(offsets, Buffer::from(std::mem::take(bytes)), nulls)?)
            }
            Values::List { offsets, field, items } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(field.clone(), offsets, items.finish()?, nulls)?)
            }
            Values::Struct { fields, members, .. } => {
                let members = members.iter_mut().map(ColumnBuilder::finish).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), members, nulls)?)
            }
            Values::Date(days) => Arc::new(Date32Array::new(std::mem::take(days).into(), nulls)),
            Values::Timestamp { ms, zone } => Arc::new(
                TimestampMillisecondArray::new(std::mem::take(ms).into(), nulls)
                    .with_timezone_opt(zone.clone()),
            ),
        })
    }
}

/// More than 31-bit offsets reach does not fit into a column of a batch.
const TOO_LONG: &str = ": too long";

fn push_end(offsets: &mut Vec<i32>, end: usize) -> Result<(), String> {
    offsets.push(i32::try_from(end).map_err(|_| TOO_LONG.to_owned())?);
    Ok(())
}

fn push_bytes(value: &[u8], bytes: &mut Vec<u8>, offsets: &mut Vec<i32>) -> Result<(), String> {
    push_end(offsets, bytes.len() + value.len())?;
    bytes.extend_from_slice(value);
    Ok(())
}

/// Appends the items of a JSON array.
fn push_items(json: &str, items: &mut ColumnBuilder) -> Result<(), String> {
    let mut failed = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let pushed = Items { items, failed: &mut failed }.deserialize(&mut deserializer);
    pushed.map_err(|error| failed.unwrap_or_else(|| error.to_string()))
}

struct Items<'c> {
    items: &'c mut ColumnBuilder,
    failed: &'c mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(item) = array.next_element::<&RawValue>()? {
            if let Err(error) = self.items.push(Slot::Found(item.get())) {
                *self.failed = Some(error);
                return Err(A::Error::custom("an item of another type"));
            }
        }
        Ok(())
    }
}

/// Appends the members of a JSON object.
fn push_members(
    json: &str,
    finder: &mut Finder,
    members: &mut [ColumnBuilder],
    strict: bool,
    name: &str,
) -> Result<(), String> {
    let mut few = [Slot::Missing; FEW_MEMBERS];
    let mut many = vec![];
    let slots = match few.get_mut(..members.len()) {
        Some(slots) => slots,
        None => {
            many.resize(members.len(), Slot::Missing);
            &mut many[..]
        }
    };
    let mut first = None;
    let mut undeclared = if strict { Undeclared::Refuse(&mut first) } else { Undeclared::Ignore };
    finder.find(json, slots, &mut undeclared).map_err(|error| format!("column {name}: {error}"))?;
    if let Some(unknown) = first {
        return Err(format!("column {name}: its type has no member `{unknown}`"));
    }
    for (member, slot) in members.iter_mut().zip(slots) {
        member.push(*slot)?;
    }
    Ok(())
}

fn primitive<T: ArrowPrimitiveType>(vector: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(std::mem::take(vector).into(), nulls))
}

/// Timestamps that can be written as RFC 3339: the years 1 to 9999, as milliseconds since the epoch. An event time has less room.
const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// `YYYY-MM-DD`, years 1 to 9999, as days since the epoch.
fn parse_date(text: &str) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else { return None };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0u32, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0'))
        })
    };
    let year = number(&[*y1, *y2, *y3, *y4]).filter(|year| *year > 0)?;
    let date = NaiveDate::from_ymd_opt(year as i32, number(&[*m1, *m2])?, number(&[*d1, *d2])?)?;
    Some(chrono::Datelike::num_days_from_ce(&date) - EPOCH_FROM_CE)
}
