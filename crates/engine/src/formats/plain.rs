//! Values outside of JSON: keys and headers. Each column is downcast once; a value then costs no allocation.
//!
//! - **Text:** text as it is; everything else as JSON has it, without quotes.
//! - **Raw:** as the serializers of Kafka's Java client write it, so that `StringDeserializer`, `LongDeserializer` and the like read it:
//!   text (and JSON) in UTF-8, binary as it is, integers and floats in their width, big-endian.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};

use super::json_encode::Values;
use crate::plan::JsonFormat;

/// A column whose values are written as plain text.
pub struct TextColumn<'a> {
    array: &'a dyn Array,
    values: Values<'a>,
}

impl<'a> TextColumn<'a> {
    /// `None` for a column of a type that cannot be written.
    pub fn bind(array: &'a dyn Array, format: JsonFormat) -> Option<TextColumn<'a>> {
        Some(TextColumn { array, values: Values::of(array, format)? })
    }

    /// Appends the value of a row; `false` where it is null.
    ///
    /// # Errors
    /// A value that cannot be said.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<bool, &'static str> {
        if self.array.is_null(row) {
            return Ok(false);
        }
        match &self.values {
            Values::Null => return Ok(false),
            Values::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Json(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::TextView(array) => out.extend_from_slice(array.value(row).as_bytes()),
            values => {
                let start = out.len();
                values.write(row, out)?;
                // Dates, timestamps and decimals have nothing in their quotes that would be escaped.
                if out.get(start) == Some(&b'"') {
                    out.remove(start);
                    out.pop();
                }
            }
        }
        Ok(true)
    }
}

/// A column whose values are written as Kafka's serializers for Java do.
pub struct RawColumn<'a>(&'a dyn Array);

impl<'a> RawColumn<'a> {
    /// Whether there is such a serializer for columns of this type.
    pub fn supports(data_type: &DataType) -> bool {
        use DataType::*;
        matches!(data_type, Utf8 | LargeUtf8 | Binary | Int16 | Int32 | Int64 | Float32 | Float64)
    }

    /// `None` for a column of another type.
    pub fn bind(array: &'a dyn Array) -> Option<RawColumn<'a>> {
        Self::supports(array.data_type()).then_some(RawColumn(array))
    }

    /// Appends the value of a row; `false` where it is null.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        let array = self.0;
        if array.is_null(row) {
            return false;
        }
        match array.data_type() {
            DataType::Int16 => {
                out.extend_from_slice(&array.as_primitive::<Int16Type>().value(row).to_be_bytes())
            }
            DataType::Int32 => {
                out.extend_from_slice(&array.as_primitive::<Int32Type>().value(row).to_be_bytes())
            }
            DataType::Int64 => {
                out.extend_from_slice(&array.as_primitive::<Int64Type>().value(row).to_be_bytes())
            }
            DataType::Float32 => {
                out.extend_from_slice(&array.as_primitive::<Float32Type>().value(row).to_be_bytes())
            }
            DataType::Float64 => {
                out.extend_from_slice(&array.as_primitive::<Float64Type>().value(row).to_be_bytes())
            }
            DataType::Binary => out.extend_from_slice(array.as_binary::<i32>().value(row)),
            DataType::LargeUtf8 => out.extend_from_slice(array.as_string::<i64>().value(row).as_bytes()),
            _ => out.extend_from_slice(array.as_string::<i32>().value(row).as_bytes()),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int16Array,
        Int64Array, LargeStringArray, StringArray, TimestampMillisecondArray,
    };

    use super::*;
    use crate::plan::{Decimals, Timestamps};

    fn text(array: ArrayRef, format: JsonFormat) -> Result<Option<String>, &'static str> {
        let mut out = b"before".to_vec();
        let is_there = TextColumn::bind(array.as_ref(), format).unwrap().write(0, &mut out)?;
        let written = String::from_utf8(out.split_off(6)).unwrap();
        assert_eq!(out, b"before");
        assert!(is_there || written.is_empty());
        Ok(is_there.then_some(written))
    }

    #[test]
    fn text_is_what_json_says_without_its_quotes() {
        let decimal = Decimal128Array::from(vec![-50]).with_precision_and_scale(9, 2).unwrap();
        for (array, expected) in [
            (Arc::new(StringArray::from(vec!["\"a\"\n"])) as ArrayRef, Some("\"a\"\n")),
            (Arc::new(StringArray::from(vec![""])), Some("")),
            (Arc::new(StringArray::from(vec![None::<&str>])), None),
            (Arc::new(Int64Array::from(vec![-7])), Some("-7")),
            (Arc::new(BooleanArray::from(vec![true])), Some("true")),
            (Arc::new(Float64Array::from(vec![0.5])), Some("0.5")),
            (Arc::new(decimal.clone()), Some("-0.50")),
            (Arc::new(Date32Array::from(vec![0])), Some("1970-01-01")),
            (Arc::new(TimestampMillisecondArray::from(vec![1])), Some("1970-01-01T00:00:00.001Z")),
        ] {
            assert_eq!(text(array, JsonFormat::DEFAULT), Ok(expected.map(str::to_owned)));
        }
        let format = JsonFormat { timestamps: Timestamps::EpochMs, decimals: Decimals::String };
        assert_eq!(text(Arc::new(decimal), format), Ok(Some("-0.50".to_owned())));
        assert_eq!(
            text(Arc::new(TimestampMillisecondArray::from(vec![1])), format),
            Ok(Some("1".to_owned()))
        );
        assert!(text(Arc::new(Float64Array::from(vec![f64::NAN])), format).is_err());
    }

    #[test]
    fn raw_is_what_java_writes() {
        let raw = |array: ArrayRef| {
            let mut out = vec![];
            RawColumn::bind(array.as_ref()).unwrap().write(0, &mut out).then_some(out)
        };
        assert_eq!(raw(Arc::new(StringArray::from(vec!["é"]))), Some("é".as_bytes().to_vec()));
        assert_eq!(raw(Arc::new(BinaryArray::from(vec![&b"\xff\0"[..]]))), Some(b"\xff\0".to_vec()));
        assert_eq!(raw(Arc::new(LargeStringArray::from(vec!["{ }"]))), Some(b"{ }".to_vec()));
        assert_eq!(raw(Arc::new(Int16Array::from(vec![-2]))), Some(vec![0xff, 0xfe]));
        assert_eq!(raw(Arc::new(Int64Array::from(vec![258]))), Some(vec![0, 0, 0, 0, 0, 0, 1, 2]));
        assert_eq!(raw(Arc::new(Float64Array::from(vec![1.0]))), Some(vec![0x3f, 0xf0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(raw(Arc::new(Int64Array::from(vec![None]))), None);
        assert!(RawColumn::bind(&BooleanArray::from(vec![true])).is_none());
    }
}
