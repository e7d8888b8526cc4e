//! One column's buffers, filled from JSON text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, PrimitiveArray, StringArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit,
};
use arrow::error::ArrowError;
use chrono::{DateTime, NaiveDate};

use super::path::{Slot, kind, string};
use crate::formats::decimal;
use crate::plan::Column;

/// Characters of an offending value that an error shows.
const EXCERPT: usize = 40;

/// Days from 0000-12-31 to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// The rows of one column so far. A row that turns out bad is taken back by [`truncate`](Self::truncate).
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    column: Column,
    values: Values,
    /// A bit per row, set where it is not null.
    valid: BooleanBufferBuilder,
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
    Date(Vec<i32>),
    Timestamp { ms: Vec<i64>, zone: Option<Arc<str>> },
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
    /// # Errors
    /// A type that is not a scalar one.
    pub(super) fn new(column: &Column) -> Result<ColumnBuilder, String> {
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
            DataType::Date32 => Values::Date(vec![]),
            DataType::Timestamp(TimeUnit::Millisecond, zone) => {
                Values::Timestamp { ms: vec![], zone: zone.clone() }
            }
            other => return Err(format!("column {}: JSON cannot be decoded as {other}", column.name)),
        };
        Ok(ColumnBuilder { column: column.clone(), values, valid: BooleanBufferBuilder::new(0) })
    }

    pub(super) fn name(&self) -> &str {
        &self.column.name
    }

    /// Makes room for `rows` more.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.valid.reserve(rows);
        each_vector!(&mut self.values, vector => vector.reserve(rows);
            Values::Boolean(bits) => bits.reserve(rows),
            Values::Text { bytes, offsets } => {
                bytes.reserve(rows * 8);
                offsets.reserve(rows);
            }
        );
    }

    /// Appends a row.
    ///
    /// # Errors
    /// A value that is not of the column's type, or a null that may not be; nothing is appended then.
    pub(super) fn push(&mut self, slot: Slot) -> Result<(), String> {
        let json = match slot {
            Slot::Found("null") | Slot::Missing => {
                if self.column.not_null {
                    let what = if slot == Slot::Missing { "is missing" } else { "is null" };
                    return Err(format!("column {}: {what}, but declared not null", self.column.name));
                }
                self.push_null();
                return Ok(());
            }
            Slot::Found(json) => json,
            Slot::Blocked { depth, found } => {
                let path = self.column.path.get(..depth).unwrap_or_default().join(".");
                return Err(format!(
                    "column {}: expected an object at {path}, found {found}",
                    self.column.name
                ));
            }
        };
        let reason = match self.push_value(json) {
            Ok(()) => {
                self.valid.append(true);
                return Ok(());
            }
            Err(reason) => reason,
        };
        let found = match json.chars().count() {
            0..=EXCERPT => json.to_owned(),
            _ => format!(
                "{} beginning {}…",
                kind(json.as_bytes()[0]),
                json.chars().take(EXCERPT).collect::<String>()
            ),
        };
        Err(format!("column {}: expected {}, found {found}{reason}", self.column.name, self.expected()))
    }

    fn push_null(&mut self) {
        self.valid.append(false);
        each_vector!(&mut self.values, vector => vector.push(Default::default());
            Values::Boolean(bits) => bits.append(false),
            Values::Text { bytes, offsets } => offsets.push(bytes.len() as i32),
        );
    }

    /// Appends a value other than null, or fails with what there is to say besides the type and the value.
    fn push_value(&mut self, json: &str) -> Result<(), String> {
        let none = String::new;
        match &mut self.values {
            Values::Boolean(bits) => bits.append(match json {
                "true" => true,
                "false" => false,
                _ => return Err(none()),
            }),
            Values::Int8(vector) => vector.push(json.parse().map_err(|_| none())?),
            Values::Int16(vector) => vector.push(json.parse().map_err(|_| none())?),
            Values::Int32(vector) => vector.push(json.parse().map_err(|_| none())?),
            Values::Int64(vector) => vector.push(json.parse().map_err(|_| none())?),
            // No JSON but a number parses as a float: "NaN" and "inf" are no JSON.
            Values::Float32(vector) => {
                vector.push(json.parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(none)?)
            }
            Values::Float64(vector) => {
                vector.push(json.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(none)?)
            }
            Values::Decimal { units, precision, scale } => {
                let text = string(json).unwrap_or(json.into());
                units.push(decimal::parse(&text, *precision, *scale).map_err(|error| format!(": {error}"))?)
            }
            Values::Text { bytes, offsets } => {
                let text = string(json).ok_or_else(none)?;
                let end = i32::try_from(bytes.len() + text.len()).map_err(|_| ": too long".to_owned())?;
                bytes.extend_from_slice(text.as_bytes());
                offsets.push(end);
            }
            Values::Date(vector) => {
                vector.push(string(json).and_then(|text| parse_date(&text)).ok_or_else(none)?)
            }
            Values::Timestamp { ms, .. } => {
                let value = match string(json) {
                    Some(text) => DateTime::parse_from_rfc3339(&text)
                        .map_err(|error| format!(": {error}"))?
                        .timestamp_millis(),
                    None => json.parse().map_err(|_| none())?,
                };
                if !TIMESTAMPS.contains(&value) {
                    return Err(": outside of the years 1 to 9999".into());
                }
                ms.push(value);
            }
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
            Values::Date(_) => "a date like \"2026-01-31\"".into(),
            Values::Timestamp { .. } => "a timestamp (RFC 3339 or milliseconds)".into(),
        }
    }

    /// Goes back to the first `rows` rows, however many there are.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        each_vector!(&mut self.values, vector => vector.truncate(rows);
            Values::Boolean(bits) => bits.truncate(rows),
            Values::Text { bytes, offsets } => {
                offsets.truncate(rows + 1);
                bytes.truncate(offsets.last().map_or(0, |end| *end as usize));
            }
        );
    }

    /// Whether [`last_integer`](Self::last_integer) can answer.
    pub(super) fn has_integers(&self) -> bool {
        use Values::*;
        matches!(self.values, Int8(_) | Int16(_) | Int32(_) | Int64(_) | Timestamp { .. })
    }

    /// The last row's value as an integer, `None` where it is null.
    pub(super) fn last_integer(&self) -> Option<i64> {
        let rows = self.valid.len();
        if rows == 0 || !self.valid.get_bit(rows - 1) {
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
        let nulls = NullBuffer::new(self.valid.finish());
        let nulls = (nulls.null_count() > 0).then_some(nulls);
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
            Values::Date(days) => Arc::new(Date32Array::new(std::mem::take(days).into(), nulls)),
            Values::Timestamp { ms, zone } => Arc::new(
                TimestampMillisecondArray::new(std::mem::take(ms).into(), nulls)
                    .with_timezone_opt(zone.clone()),
            ),
        })
    }
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
