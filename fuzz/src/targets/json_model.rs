//! What a JSON record must become, by way of serde_json and with no thought for speed: the decoder's documented policy, written a second
//! time.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::types::{
    Date32Type, Decimal128Type, Float64Type, Int8Type, Int64Type, TimestampMillisecondType,
};
use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike, NaiveDate};
use onceflow_engine::plan::Column;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// What must become of a record.
pub enum Verdict {
    /// A row with these cells.
    Values(Vec<Cell>),
    /// Nothing, for this reason.
    Refused(String),
}

/// What a column must hold.
#[derive(Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Day(i32),
    Instant(i64),
    /// The digits of a number without zeros at either end, negative or not, and the power of ten of the last one.
    Decimal(Digits),
}

/// A decimal number in its one form; zero has no digits.
#[derive(Debug, PartialEq)]
pub struct Digits {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Cell {
    /// Panics unless the array holds this at `row`.
    pub fn check(&self, array: &dyn Array, row: usize) {
        let found = match array.data_type() {
            _ if array.is_null(row) => Cell::Null,
            DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
            DataType::Int64 => Cell::Integer(array.as_primitive::<Int64Type>().value(row)),
            DataType::Int8 => Cell::Integer(array.as_primitive::<Int8Type>().value(row).into()),
            DataType::Float64 => Cell::Double(array.as_primitive::<Float64Type>().value(row)),
            DataType::Boolean => Cell::Boolean(array.as_boolean().value(row)),
            DataType::Date32 => Cell::Day(array.as_primitive::<Date32Type>().value(row)),
            DataType::Timestamp(..) => {
                Cell::Instant(array.as_primitive::<TimestampMillisecondType>().value(row))
            }
            DataType::Decimal128(_, scale) => {
                let units = array.as_primitive::<Decimal128Type>().value(row);
                Cell::Decimal(digits(&format!("{units}e{}", -i64::from(*scale))).unwrap())
            }
            other => panic!("a column of type {other}"),
        };
        assert_eq!(found, *self, "row {row}");
    }
}

/// What must become of this record.
pub fn judge(record: &[u8], columns: &[Column]) -> Verdict {
    let Ok(text) = std::str::from_utf8(record) else { return Verdict::Refused("it is not UTF-8".into()) };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Verdict::Refused(format!("serde_json says: {error}"));
    }
    let cells = columns.iter().map(|column| cell(text, column)).collect::<Result<_, _>>();
    cells.map_or_else(Verdict::Refused, Verdict::Values)
}

fn cell(record: &str, column: &Column) -> Result<Cell, String> {
    let mut at = Cow::Borrowed(record);
    for (depth, name) in column.path.iter().enumerate() {
        if depth > 0 && at.trim() == "null" {
            at = Cow::Borrowed("null");
            break;
        }
        // Of members with the same name the last one stays in the map.
        let members: BTreeMap<Cow<str>, &RawValue> =
            serde_json::from_str(&at).map_err(|error| format!("no object before {name}: {error}"))?;
        at = Cow::Owned(members.get(name.as_str()).map_or("null", |member| member.get()).to_owned());
    }
    if at == "null" {
        return if column.not_null { Err(format!("{} is null", column.name)) } else { Ok(Cell::Null) };
    }
    value(&at, &column.data_type).ok_or_else(|| format!("{} is no {}: {at}", column.name, column.data_type))
}

/// A value other than null.
fn value(json: &str, data_type: &DataType) -> Option<Cell> {
    let string = || serde_json::from_str::<String>(json).ok();
    let is_number = !json.starts_with(['"', '{', '[', 't', 'f']);
    match data_type {
        DataType::Utf8 => string().map(Cell::Text),
        DataType::Boolean => serde_json::from_str(json).ok().map(Cell::Boolean),
        DataType::Int64 => integer(json).map(Cell::Integer),
        DataType::Int8 => integer(json).filter(|value| i8::try_from(*value).is_ok()).map(Cell::Integer),
        // The standard library rounds correctly; serde_json only nearly, without its feature for it.
        DataType::Float64 => {
            let value: f64 = is_number.then(|| json.parse().ok())??;
            value.is_finite().then_some(Cell::Double(value))
        }
        DataType::Date32 => string().as_deref().and_then(day).map(Cell::Day),
        DataType::Timestamp(..) => {
            let ms = match string() {
                Some(text) => DateTime::parse_from_rfc3339(&text).ok()?.timestamp_millis(),
                None => integer(json)?,
            };
            let year = DateTime::from_timestamp_millis(ms)?.year();
            (1..=9999).contains(&year).then_some(Cell::Instant(ms))
        }
        DataType::Decimal128(precision, scale) => {
            let text = string().or_else(|| is_number.then(|| json.to_owned()))?;
            let number = digits(&text)?;
            let length = number.digits.len() as i64;
            let fits = length == 0
                || -number.exponent <= i64::from(*scale)
                    && length + number.exponent <= i64::from(*precision) - i64::from(*scale);
            fits.then_some(Cell::Decimal(number))
        }
        other => panic!("a column of type {other}"),
    }
}

/// Digits with an optional sign and nothing else.
fn integer(json: &str) -> Option<i64> {
    json.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-').then(|| json.parse().ok())?
}

/// `2026-01-31`, years 1 to 9999.
fn day(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    let strict = date.format("%Y-%m-%d").to_string() == text && (1..=9999).contains(&date.year());
    strict.then(|| (date - NaiveDate::default()).num_days() as i32)
}

/// A number as JSON writes it, leading zeros allowed.
fn digits(text: &str) -> Option<Digits> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let magnitude = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if !all_digits(whole) || !all_digits(fraction) || !all_digits(magnitude) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
    if digits.is_empty() {
        return Some(Digits { negative: false, digits, exponent: 0 });
    }
    let zeros = (all.len() - all.trim_end_matches('0').len()) as i64;
    // An exponent that no integer holds is as good as the largest.
    let magnitude = magnitude.parse::<i64>().unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    let exponent = if exponent.starts_with('-') { -magnitude } else { magnitude };
    Some(Digits { negative, digits, exponent: exponent + zeros - fraction.len() as i64 })
}
