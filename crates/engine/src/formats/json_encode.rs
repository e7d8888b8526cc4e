//! Rows to JSON objects, written directly.
//!
//! A row becomes one object with its columns in the order of the schema, without white space; nulls are written. Numbers
//! keep their value exactly: integers and decimals digit by digit (decimals with all digits of their scale, and as a string where the
//! sink says so), floats in the shortest form that reads back as the same float. Text is UTF-8; only what JSON demands is escaped.
//! Dates are `"2026-01-31"`, timestamps `"2026-01-31T12:00:00.000Z"` or milliseconds since the epoch; binary is base64; JSON text
//! stands as it is; lists and structs are arrays and objects. Undeclared members that the rows carry follow as they came.
//!
//! What JSON cannot say is an error of its row: NaN and infinities, dates and timestamps outside of the years 0 to 9999.
//!
//! An encoder is made once for a sink and bound to each batch, where every column is downcast once; a row then costs no allocation.

use std::convert::Infallible;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Decimal128Array, LargeStringArray, ListArray, PrimitiveArray,
    RecordBatch, StringArray, StringViewArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Schema, TimeUnit, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, Datelike, NaiveDate, Timelike};

use super::{decimal, kept};
use crate::plan::{Decimals, JsonFormat, KEPT, Timestamps};

/// Days from 0000-12-31 to 1970-01-01.
const EPOCH_FROM_CE: i32 = 719_163;

/// Writes rows of one schema, or some of their columns.
#[derive(Debug)]
pub struct JsonEncoder {
    members: Vec<Member>,
    /// The column of undeclared members, which are written behind the others as they came.
    kept: Option<usize>,
    format: JsonFormat,
}

#[derive(Debug)]
struct Member {
    column: usize,
    name: String,
    /// `{"name":` or `,"name":`
    prefix: Vec<u8>,
}

impl JsonEncoder {
    /// An encoder of all columns, and of the undeclared members where the rows carry them.
    pub fn new(schema: &Schema, format: JsonFormat) -> JsonEncoder {
        let kept = schema.index_of(KEPT).ok();
        let columns: Vec<usize> = (0..schema.fields().len()).filter(|column| Some(*column) != kept).collect();
        JsonEncoder { kept, ..Self::of_columns(schema, &columns, format) }
    }

    /// An encoder of these columns, in this order.
    pub fn of_columns(schema: &Schema, columns: &[usize], format: JsonFormat) -> JsonEncoder {
        let member = |(i, column): (usize, &usize)| {
            let name = schema.field(*column).name();
            Member { column: *column, name: name.clone(), prefix: prefix(i, name) }
        };
        JsonEncoder { members: columns.iter().enumerate().map(member).collect(), kept: None, format }
    }

    /// Prepares the rows of a batch.
    ///
    /// # Errors
    /// A column that is missing or of a type that cannot be written.
    pub fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<JsonRows<'a>, String> {
        let bind = |member: &'a Member| {
            let array = rows.columns().get(member.column);
            match array.and_then(|array| Cells::of(array.as_ref(), self.format)) {
                Some(cells) => Ok(Bound { member, cells }),
                None => Err(format!("column {} cannot be written as JSON", member.name)),
            }
        };
        let texts = |column: usize| {
            let texts = rows.columns().get(column).and_then(|column| column.as_string_opt());
            texts.ok_or_else(|| "undeclared members are not text".to_owned())
        };
        Ok(JsonRows {
            columns: self.members.iter().map(bind).collect::<Result<_, _>>()?,
            kept: self.kept.map(texts).transpose()?,
        })
    }
}

/// The rows of a batch, ready to be written.
pub struct JsonRows<'a> {
    columns: Vec<Bound<'a>>,
    kept: Option<&'a StringArray>,
}

struct Bound<'a> {
    member: &'a Member,
    cells: Cells<'a>,
}

impl JsonRows<'_> {
    /// Appends row `row` as a JSON object.
    ///
    /// # Errors
    /// A value that JSON cannot say; `out` ends within the object then.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.write_with(row, out, |member, reason, _| Err(format!("column {}: {reason}", member.name)))
    }

    /// Appends row `row` as a JSON object, with null for what JSON cannot say.
    pub fn write_or_null(&self, row: usize, out: &mut Vec<u8>) {
        let written: Result<(), Infallible> = self.write_with(row, out, |_, _, out| {
            out.extend_from_slice(b"null");
            Ok(())
        });
        match written {
            Ok(()) => (),
            Err(never) => match never {},
        }
    }

    fn write_with<E>(
        &self,
        row: usize,
        out: &mut Vec<u8>,
        refused: impl Fn(&Member, &'static str, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.columns.is_empty() {
            out.push(b'{');
        }
        for column in &self.columns {
            out.extend_from_slice(&column.member.prefix);
            let start = out.len();
            if let Err(reason) = column.cells.write(row, out) {
                out.truncate(start);
                refused(column.member, reason, out)?;
            }
        }
        let kept = self.kept.map_or("", |kept| kept::members(kept.value(row)));
        if !kept.is_empty() {
            if !self.columns.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(kept.as_bytes());
        }
        out.push(b'}');
        Ok(())
    }
}

/// The values of a column, some of which may be null.
pub(super) struct Cells<'a> {
    values: Values<'a>,
    /// Only where it has nulls.
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Cells<'a> {
    fn of(array: &'a dyn Array, format: JsonFormat) -> Option<Cells<'a>> {
        let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
        Some(Cells { values: Values::of(array, format)?, nulls })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        self.values.write(row, out)
    }
}

/// A column, downcast once.
pub(super) enum Values<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    UInt8(&'a PrimitiveArray<UInt8Type>),
    UInt16(&'a PrimitiveArray<UInt16Type>),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    UInt64(&'a PrimitiveArray<UInt64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a Decimal128Array, i8),
    DecimalText(&'a Decimal128Array, i8),
    Text(&'a StringArray),
    Json(&'a LargeStringArray),
    Binary(&'a BinaryArray),
    List(&'a ListArray, Box<Cells<'a>>),
    /// Each member with what stands before its value: `{"name":` or `,"name":`.
    Struct(Vec<(Vec<u8>, Cells<'a>)>),
    TextView(&'a StringViewArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Timestamp(&'a PrimitiveArray<TimestampMillisecondType>),
    EpochMs(&'a PrimitiveArray<TimestampMillisecondType>),
}

impl<'a> Values<'a> {
    /// `None` for a column of a type that cannot be written.
    pub(super) fn of(array: &'a dyn Array, format: JsonFormat) -> Option<Values<'a>> {
        Some(match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean_opt()?),
            DataType::Int8 => Values::Int8(array.as_primitive_opt()?),
            DataType::Int16 => Values::Int16(array.as_primitive_opt()?),
            DataType::Int32 => Values::Int32(array.as_primitive_opt()?),
            DataType::Int64 => Values::Int64(array.as_primitive_opt()?),
            DataType::UInt8 => Values::UInt8(array.as_primitive_opt()?),
            DataType::UInt16 => Values::UInt16(array.as_primitive_opt()?),
            DataType::UInt32 => Values::UInt32(array.as_primitive_opt()?),
            DataType::UInt64 => Values::UInt64(array.as_primitive_opt()?),
            DataType::Float32 => Values::Float32(array.as_primitive_opt()?),
            DataType::Float64 => Values::Float64(array.as_primitive_opt()?),
            DataType::Decimal128(_, scale) => {
                let array = array.as_primitive_opt::<Decimal128Type>()?;
                match format.decimals {
                    Decimals::Number => Values::Decimal(array, *scale),
                    Decimals::String => Values::DecimalText(array, *scale),
                }
            }
            DataType::Utf8 => Values::Text(array.as_string_opt()?),
            DataType::LargeUtf8 => Values::Json(array.as_string_opt()?),
            DataType::Binary => Values::Binary(array.as_binary_opt()?),
            DataType::List(_) => {
                let lists: &ListArray = array.as_list_opt()?;
                Values::List(lists, Box::new(Cells::of(lists.values().as_ref(), format)?))
            }
            DataType::Struct(fields) => {
                let structs = array.as_struct_opt()?;
                let member = |(i, field): (usize, &FieldRef)| {
                    Some((prefix(i, field.name()), Cells::of(structs.column(i).as_ref(), format)?))
                };
                Values::Struct(fields.iter().enumerate().map(member).collect::<Option<_>>()?)
            }
            DataType::Utf8View => Values::TextView(array.as_string_view_opt()?),
            DataType::Date32 => Values::Date(array.as_primitive_opt()?),
            DataType::Timestamp(TimeUnit::Millisecond, _) => match format.timestamps {
                Timestamps::Rfc3339 => Values::Timestamp(array.as_primitive_opt()?),
                Timestamps::EpochMs => Values::EpochMs(array.as_primitive_opt()?),
            },
            _ => return None,
        })
    }

    /// Appends the value of a row that is not null.
    pub(super) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Values::Null => out.extend_from_slice(b"null"),
            Values::Boolean(array) => {
                out.extend_from_slice(if array.value(row) { b"true" } else { b"false" })
            }
            Values::Int8(array) => write_integer(array.value(row), out),
            Values::Int16(array) => write_integer(array.value(row), out),
            Values::Int32(array) => write_integer(array.value(row), out),
            Values::Int64(array) => write_integer(array.value(row), out),
            Values::UInt8(array) => write_integer(array.value(row), out),
            Values::UInt16(array) => write_integer(array.value(row), out),
            Values::UInt32(array) => write_integer(array.value(row), out),
            Values::UInt64(array) => write_integer(array.value(row), out),
            Values::Float32(array) => {
                let value = array.value(row);
                write_float(value, value.is_finite(), out)?;
            }
            Values::Float64(array) => {
                let value = array.value(row);
                write_float(value, value.is_finite(), out)?;
            }
            Values::Decimal(array, scale) => decimal::write(array.value(row), *scale, out),
            Values::DecimalText(array, scale) => {
                out.push(b'"');
                decimal::write(array.value(row), *scale, out);
                out.push(b'"');
            }
            Values::Text(array) => write_string(array.value(row), out),
            Values::Json(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Binary(array) => {
                out.push(b'"');
                let start = out.len();
                let bytes = array.value(row);
                out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                let written = BASE64_STANDARD.encode_slice(bytes, &mut out[start..]);
                out.truncate(start + written.map_err(|_| "bytes that do not fit into base64")?);
                out.push(b'"');
            }
            Values::List(lists, items) => {
                let offsets = lists.value_offsets();
                out.push(b'[');
                for (i, item) in (offsets[row] as usize..offsets[row + 1] as usize).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    items.write(item, out)?;
                }
                out.push(b']');
            }
            Values::Struct(members) => {
                if members.is_empty() {
                    out.push(b'{');
                }
                for (prefix, cells) in members {
                    out.extend_from_slice(prefix);
                    cells.write(row, out)?;
                }
                out.push(b'}');
            }
            Values::TextView(array) => write_string(array.value(row), out),
            Values::Date(array) => write_date(array.value(row), out)?,
            Values::Timestamp(array) => write_timestamp(array.value(row), out)?,
            Values::EpochMs(array) => write_integer(array.value(row), out),
        }
        Ok(())
    }
}

/// What stands before the value of member `i` of an object.
fn prefix(i: usize, name: &str) -> Vec<u8> {
    let mut prefix = vec![if i == 0 { b'{' } else { b',' }];
    write_string(name, &mut prefix);
    prefix.push(b':');
    prefix
}

fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_float(value: impl zmij::Float, finite: bool, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if !finite {
        return Err("NaN and infinities cannot be written as JSON");
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    Ok(())
}

fn write_date(days: i32, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let date = days
        .checked_add(EPOCH_FROM_CE)
        .and_then(NaiveDate::from_num_days_from_ce_opt)
        .filter(|date| (0..=9999).contains(&date.year()))
        .ok_or("a date outside of the years 0 to 9999 cannot be written")?;
    out.push(b'"');
    write_day(date, out);
    out.push(b'"');
    Ok(())
}

fn write_timestamp(ms: i64, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let time = DateTime::from_timestamp_millis(ms)
        .filter(|time| (0..=9999).contains(&time.year()))
        .ok_or("a timestamp outside of the years 0 to 9999 cannot be written")?;
    out.push(b'"');
    write_day(time.date_naive(), out);
    for (before, value) in [(b'T', time.hour()), (b':', time.minute()), (b':', time.second())] {
        out.push(before);
        write_two(value, out);
    }
    let ms = time.timestamp_subsec_millis();
    out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z', b'"']);
    Ok(())
}

/// `2026-01-31`, of a year with at most four digits.
fn write_day(date: NaiveDate, out: &mut Vec<u8>) {
    let year = date.year().unsigned_abs();
    write_two(year / 100, out);
    write_two(year, out);
    out.push(b'-');
    write_two(date.month(), out);
    out.push(b'-');
    write_two(date.day(), out);
}

/// The last two decimal digits.
fn write_two(value: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[digit(value / 10), digit(value)]);
}

/// The last decimal digit.
fn digit(value: u32) -> u8 {
    b'0' + (value % 10) as u8
}

/// Which bytes a JSON string may not hold as they are.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

/// Appends a text as a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| ESCAPED[*byte as usize]) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Date32Array, Float32Array, Float64Array, Int64Array, TimestampMillisecondArray,
    };
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap()
    }

    const DEFAULT: JsonFormat = JsonFormat::DEFAULT;
    const OTHER: JsonFormat = JsonFormat { timestamps: Timestamps::EpochMs, decimals: Decimals::String };

    fn encode(rows: &RecordBatch, format: JsonFormat) -> Vec<Result<String, String>> {
        let encoder = JsonEncoder::new(&rows.schema(), format);
        let bound = encoder.bind(rows).unwrap();
        (0..rows.num_rows())
            .map(|row| {
                let mut out = vec![];
                bound.write(row, &mut out).map(|()| String::from_utf8(out).unwrap())
            })
            .collect()
    }

    #[test]
    fn writes_every_type() {
        let rows = rows(vec![
            ("text \"1\"", Arc::new(StringArray::from(vec![Some("a\"\\\n\u{1}é"), None])) as ArrayRef),
            ("view", Arc::new(StringViewArray::from(vec![Some("v"), None]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
            ("real", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
            ("double", Arc::new(Float64Array::from(vec![Some(-0.0), None]))),
            (
                "money",
                Arc::new(
                    Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(12, 2).unwrap(),
                ),
            ),
            ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None]).with_timezone("UTC"))),
        ]);
        assert_eq!(
            encode(&rows, DEFAULT),
            [
                Ok(r#"{"text \"1\"":"a\"\\\n\u0001é","view":"v","flag":true,"int":-9223372036854775808,"real":0.1,"double":-0.0,"money":-0.05,"day":"1969-12-31","at":"1969-12-31T23:59:59.999Z"}"#.to_owned()),
                Ok(r#"{"text \"1\"":null,"view":null,"flag":null,"int":null,"real":null,"double":null,"money":null,"day":null,"at":null}"#.to_owned()),
            ]
        );
        let other = encode(&rows, OTHER).remove(0).unwrap();
        assert!(other.ends_with(r#","money":"-0.05","day":"1969-12-31","at":-1}"#), "{other}");
    }

    #[test]
    fn refuses_what_json_cannot_say() {
        for (array, reason) in [
            (Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef, "NaN"),
            (Arc::new(Float32Array::from(vec![f32::INFINITY])), "infinities"),
            (Arc::new(Date32Array::from(vec![i32::MAX])), "years"),
            (Arc::new(TimestampMillisecondArray::from(vec![i64::MIN])), "years"),
        ] {
            let rows = rows(vec![("x", array)]);
            let error = encode(&rows, DEFAULT).remove(0).unwrap_err();
            assert!(error.starts_with("column x: ") && error.contains(reason), "{error}");
            let mut out = vec![];
            JsonEncoder::new(&rows.schema(), DEFAULT).bind(&rows).unwrap().write_or_null(0, &mut out);
            assert_eq!(out, br#"{"x":null}"#);
        }
    }

    #[test]
    fn an_object_without_columns_is_an_object() {
        let rows = rows(vec![("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
        let encoder = JsonEncoder::of_columns(&rows.schema(), &[], DEFAULT);
        let mut out = vec![];
        encoder.bind(&rows).unwrap().write(0, &mut out).unwrap();
        assert_eq!(out, b"{}");
    }

    proptest! {
        #[test]
        fn reads_back_as_it_was(text in ".{0,40}", int: i64, double in proptest::num::f64::NORMAL | proptest::num::f64::ZERO | proptest::num::f64::SUBNORMAL) {
            let rows = rows(vec![
                ("t", Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef),
                ("i", Arc::new(Int64Array::from(vec![int]))),
                ("d", Arc::new(Float64Array::from(vec![double]))),
            ]);
            let json = encode(&rows, DEFAULT).remove(0).unwrap();
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["t"].as_str(), Some(text.as_str()));
            prop_assert_eq!(value["i"].as_i64(), Some(int));
            // Without serde_json's own rounding: the standard library's is exact.
            let written = json.rsplit(':').next().unwrap().trim_end_matches('}');
            prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), double.to_bits());
        }

        #[test]
        fn times_agree_with_chrono(ms in -62_135_596_800_000i64..=253_402_300_799_999) {
            let mut out = vec![];
            write_timestamp(ms, &mut out).unwrap();
            let expected = DateTime::from_timestamp_millis(ms).unwrap().format("\"%Y-%m-%dT%H:%M:%S%.3fZ\"").to_string();
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
