//! Group keys as bytes: our own encoding, version 1 of the state layout.
//!
//! A key is its columns one after the other. The bytes of two keys compare (`memcmp`) as their values do, column by column,
//! nulls first; equal values have one form only; and each column says where it ends, so that no key is a prefix of another.
//!
//! | column | bytes |
//! | --- | --- |
//! | null | `00` |
//! | any value | `01`, then |
//! | `Boolean` | `00` or `01` |
//! | `Int8`, `Int16`, `Int32`, `Int64` | the value as 64 bits, sign bit flipped, big endian: widening a column keeps its keys |
//! | `Float32`, `Float64` | widened to 64 bits; −0.0 becomes 0.0 and every NaN the quiet positive one; then, if negative, all bits flipped, else the sign bit; big endian. NaN sorts last |
//! | `Decimal128(p, s)` | the unscaled 128 bits at the declared scale `s`, sign bit flipped, big endian |
//! | `Utf8` | its bytes with `00` written as `00 FF`, then `00 00` |
//! | `Date32` | the 32-bit day, sign bit flipped, big endian |
//! | `Timestamp(Millisecond, _)` | as `Int64` |
//!
//! The **hash** of a key is XXH3-64 of its bytes, seed 0. Its bits 32–39 are the **lane**, one of [`LANES`]; worker `w` of
//! `n` owns the contiguous lanes of [`lanes_of`]. All three belong to the layout version.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::builder::{BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMillisecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

use super::StateError;
use super::bytes::take_array;

/// Number of lanes that keys fall into: the unit in which keys are shared out among workers.
pub const LANES: u16 = 256;

const NULL: u8 = 0;
const VALUE: u8 = 1;

/// Hash of a key: XXH3-64, seed 0.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The lane of a key with this hash.
#[inline]
pub fn lane(hash: u64) -> u16 {
    (hash >> 32) as u16 & (LANES - 1)
}

/// The lanes that `worker` of `workers` owns: together all lanes, each once. `workers` is at least 1.
pub fn lanes_of(worker: usize, workers: usize) -> Range<u16> {
    let bound = |worker: usize| (worker * usize::from(LANES) / workers.max(1)) as u16;
    bound(worker)..bound(worker + 1)
}

/// Which worker of `workers` owns a lane: the inverse of [`lanes_of`].
pub fn owner_of(lane: u16, workers: usize) -> usize {
    ((usize::from(lane) + 1) * workers.max(1)).div_ceil(usize::from(LANES)) - 1
}

/// Whether a column of this type can be part of a key.
pub fn is_supported(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(_, _)
            | DataType::Utf8
            | DataType::Date32
            | DataType::Timestamp(TimeUnit::Millisecond, _)
    )
}

/// Bytes of a column in every key that holds a value there, the text itself left out.
pub fn fixed_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::Boolean => 2,
        DataType::Utf8 => 3,
        DataType::Date32 => 5,
        DataType::Decimal128(..) => 17,
        _ => 9,
    }
}

/// The keys of a batch, one per row, with their hashes. Meant to be kept and filled again, batch after batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    hashes: Vec<u64>,
}

impl Keys {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key of a row.
    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    /// The hash of a row's key.
    #[inline]
    pub fn hash(&self, row: usize) -> u64 {
        self.hashes[row]
    }

    /// The keys in order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Forgets all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.hashes.clear();
    }

    /// Appends a key that is already encoded.
    pub fn push(&mut self, key: &[u8]) {
        self.push_hashed(key, hash(key));
    }

    pub(crate) fn push_hashed(&mut self, key: &[u8], hash: u64) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
        self.hashes.push(hash);
    }

    /// Appends all keys of others.
    pub(super) fn append(&mut self, others: &Keys) {
        (0..others.len()).for_each(|row| self.push_hashed(others.get(row), others.hash(row)));
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 8 + self.hashes.capacity() * 8
    }

    /// Replaces the content by the keys of these columns' rows. At least one column, all of `rows` rows. No column (a step
    /// without `group_by`) means one key, the empty one, for all rows.
    ///
    /// # Errors
    /// `Bug` for a type that [`is_supported`] does not know.
    pub fn encode(&mut self, columns: &[ArrayRef], rows: usize) -> Result<(), StateError> {
        self.clear();
        let columns = columns.iter().map(Column::new).collect::<Result<Vec<_>, _>>()?;
        if columns.iter().any(|column| column.len() != rows) {
            return Err(StateError::bug(format!(
                "group columns of other lengths than the batch's {rows} rows"
            )));
        }
        self.bytes.reserve(columns.iter().map(Column::width_hint).sum());
        self.ends.reserve(rows);
        // One column is by far the most frequent; the loop per kind of column is then outside of the loop over rows.
        match columns.as_slice() {
            [column] => column.encode_all(&mut self.bytes, &mut self.ends),
            columns => {
                for row in 0..rows {
                    for column in columns {
                        column.encode(row, &mut self.bytes);
                    }
                    self.ends.push(self.bytes.len());
                }
            }
        }
        self.hashes.reserve(rows);
        let mut start = 0;
        for &end in &self.ends {
            self.hashes.push(hash(&self.bytes[start..end]));
            start = end;
        }
        Ok(())
    }
}

/// The keys of these columns' rows; see [`Keys::encode`].
pub fn encode_columns(columns: &[ArrayRef], rows: usize) -> Result<Keys, StateError> {
    let mut keys = Keys::default();
    keys.encode(columns, rows)?;
    Ok(keys)
}

/// A key column, its type looked up once.
enum Column<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>),
    /// The flag says that no text of the column holds a zero byte, so that all can be copied as they are.
    Text(&'a StringArray, bool),
    Date(&'a PrimitiveArray<Date32Type>),
    Timestamp(&'a PrimitiveArray<TimestampMillisecondType>),
}

/// Runs `$body` with `$array` bound to the column's array and `$put` to the function that appends a value of it.
macro_rules! with_column {
    ($column:expr, $array:ident, $put:ident => $body:expr) => {
        match $column {
            Column::Boolean($array) => {
                let $put = |value: bool, out: &mut Vec<u8>| out.extend_from_slice(&[VALUE, u8::from(value)]);
                $body
            }
            Column::Int8($array) => {
                let $put = |value: i8, out: &mut Vec<u8>| put_i64(value.into(), out);
                $body
            }
            Column::Int16($array) => {
                let $put = |value: i16, out: &mut Vec<u8>| put_i64(value.into(), out);
                $body
            }
            Column::Int32($array) => {
                let $put = |value: i32, out: &mut Vec<u8>| put_i64(value.into(), out);
                $body
            }
            Column::Int64($array) => {
                let $put = put_i64;
                $body
            }
            Column::Float32($array) => {
                let $put = |value: f32, out: &mut Vec<u8>| put_f64(value.into(), out);
                $body
            }
            Column::Float64($array) => {
                let $put = put_f64;
                $body
            }
            Column::Decimal($array) => {
                let $put = put_i128;
                $body
            }
            Column::Text($array, true) => {
                let $put = put_plain_text;
                $body
            }
            Column::Text($array, false) => {
                let $put = put_escaped_text;
                $body
            }
            Column::Date($array) => {
                let $put = put_date;
                $body
            }
            Column::Timestamp($array) => {
                let $put = put_i64;
                $body
            }
        }
    };
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef) -> Result<Column<'a>, StateError> {
        Ok(match array.data_type() {
            DataType::Boolean => Column::Boolean(array.as_boolean()),
            DataType::Int8 => Column::Int8(array.as_primitive()),
            DataType::Int16 => Column::Int16(array.as_primitive()),
            DataType::Int32 => Column::Int32(array.as_primitive()),
            DataType::Int64 => Column::Int64(array.as_primitive()),
            DataType::Float32 => Column::Float32(array.as_primitive()),
            DataType::Float64 => Column::Float64(array.as_primitive()),
            DataType::Decimal128(_, _) => Column::Decimal(array.as_primitive()),
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                let offsets = text.value_offsets();
                let used = offsets[0] as usize..offsets[offsets.len() - 1] as usize;
                Column::Text(text, !text.value_data()[used].contains(&0))
            }
            DataType::Date32 => Column::Date(array.as_primitive()),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Column::Timestamp(array.as_primitive()),
            other => return Err(StateError::bug(format!("a group column of type {other}"))),
        })
    }

    fn len(&self) -> usize {
        with_column!(self, array, _put => array.len())
    }

    /// About how many bytes the column's parts of the keys take.
    fn width_hint(&self) -> usize {
        match self {
            Column::Text(text, _) => text.value_data().len().min(1 << 20) + 3 * text.len(),
            Column::Decimal(array) => 17 * array.len(),
            other => 9 * other.len(),
        }
    }

    #[inline]
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        with_column!(self, array, put => if array.is_null(row) { out.push(NULL) } else { put(array.value(row), out) })
    }

    fn encode_all(&self, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        with_column!(self, array, put => for row in 0..array.len() {
            if array.is_null(row) { out.push(NULL) } else { put(array.value(row), out) }
            ends.push(out.len());
        })
    }
}

#[inline]
fn put_i64(value: i64, out: &mut Vec<u8>) {
    put_fixed((value as u64 ^ 1 << 63).to_be_bytes(), out);
}

#[inline]
fn put_date(value: i32, out: &mut Vec<u8>) {
    put_fixed((value as u32 ^ 1 << 31).to_be_bytes(), out);
}

#[inline]
fn put_i128(value: i128, out: &mut Vec<u8>) {
    put_fixed((value as u128 ^ 1 << 127).to_be_bytes(), out);
}

#[inline]
fn put_f64(value: f64, out: &mut Vec<u8>) {
    let bits = canonical(value).to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits ^ 1 << 63 };
    put_fixed(ordered.to_be_bytes(), out);
}

/// Marker and value in one append.
#[inline]
fn put_fixed<const N: usize>(value: [u8; N], out: &mut Vec<u8>) {
    out.push(VALUE);
    out.extend_from_slice(&value);
}

#[inline]
fn put_plain_text(value: &str, out: &mut Vec<u8>) {
    out.push(VALUE);
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(&[0, 0]);
}

fn put_escaped_text(value: &str, out: &mut Vec<u8>) {
    out.push(VALUE);
    for &byte in value.as_bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// The one form of a double: no −0.0, one NaN.
#[inline]
pub(super) fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::from_bits(0x7ff8_0000_0000_0000)
    } else if value == 0.0 {
        0.0
    } else {
        value
    }
}

/// Turns keys back into columns of these types, a row per key.
///
/// # Errors
/// `Damaged` for bytes that [`Keys::encode`] does not write for these types, `Bug` for a type that [`is_supported`] does not
/// know.
pub fn decode_columns<'k>(
    keys: impl Iterator<Item = &'k [u8]>,
    types: &[DataType],
) -> Result<Vec<ArrayRef>, StateError> {
    let rows = keys.size_hint().0;
    let mut columns =
        types.iter().map(|data_type| Decoder::new(data_type, rows)).collect::<Result<Vec<_>, _>>()?;
    for key in keys {
        let mut rest = key;
        for column in &mut columns {
            column.take(&mut rest)?;
        }
        if !rest.is_empty() {
            return Err(StateError::damaged(format!("a group key has {} bytes too many", rest.len())));
        }
    }
    Ok(columns.into_iter().map(Decoder::finish).collect())
}

/// A column under construction.
enum Decoder {
    Boolean(BooleanBuilder),
    Int8(PrimitiveBuilder<Int8Type>),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal(PrimitiveBuilder<Decimal128Type>),
    Text(StringBuilder, Vec<u8>),
    Date(PrimitiveBuilder<Date32Type>),
    Timestamp(PrimitiveBuilder<TimestampMillisecondType>),
}

impl Decoder {
    fn new(data_type: &DataType, rows: usize) -> Result<Decoder, StateError> {
        fn builder<T: ArrowPrimitiveType>(rows: usize, data_type: &DataType) -> PrimitiveBuilder<T> {
            PrimitiveBuilder::with_capacity(rows).with_data_type(data_type.clone())
        }
        Ok(match data_type {
            DataType::Boolean => Decoder::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Decoder::Int8(builder(rows, data_type)),
            DataType::Int16 => Decoder::Int16(builder(rows, data_type)),
            DataType::Int32 => Decoder::Int32(builder(rows, data_type)),
            DataType::Int64 => Decoder::Int64(builder(rows, data_type)),
            DataType::Float32 => Decoder::Float32(builder(rows, data_type)),
            DataType::Float64 => Decoder::Float64(builder(rows, data_type)),
            DataType::Decimal128(_, _) => Decoder::Decimal(builder(rows, data_type)),
            DataType::Utf8 => Decoder::Text(StringBuilder::with_capacity(rows, 16 * rows), vec![]),
            DataType::Date32 => Decoder::Date(builder(rows, data_type)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Decoder::Timestamp(builder(rows, data_type)),
            other => return Err(StateError::bug(format!("a group column of type {other}"))),
        })
    }

    fn take(&mut self, bytes: &mut &[u8]) -> Result<(), StateError> {
        let present = match take_array(bytes)? {
            [NULL] => false,
            [VALUE] => true,
            [other] => return Err(StateError::damaged(format!("marker {other:#04x} in a group key"))),
        };
        fn some<T>(
            present: bool,
            take: impl FnOnce() -> Result<T, StateError>,
        ) -> Result<Option<T>, StateError> {
            if present { take().map(Some) } else { Ok(None) }
        }
        match self {
            Decoder::Boolean(column) => column.append_option(some(present, || take_bool(bytes))?),
            Decoder::Int8(column) => column.append_option(some(present, || take_integer(bytes))?),
            Decoder::Int16(column) => column.append_option(some(present, || take_integer(bytes))?),
            Decoder::Int32(column) => column.append_option(some(present, || take_integer(bytes))?),
            Decoder::Int64(column) => column.append_option(some(present, || take_i64(bytes))?),
            Decoder::Float32(column) => column.append_option(some(present, || take_f32(bytes))?),
            Decoder::Float64(column) => column.append_option(some(present, || take_f64(bytes))?),
            Decoder::Decimal(column) => column.append_option(some(present, || take_i128(bytes))?),
            Decoder::Text(column, _) if !present => column.append_null(),
            Decoder::Text(column, scratch) => column.append_value(take_text(bytes, scratch)?),
            Decoder::Date(column) => column.append_option(some(present, || take_date(bytes))?),
            Decoder::Timestamp(column) => column.append_option(some(present, || take_i64(bytes))?),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Decoder::Boolean(mut column) => Arc::new(column.finish()),
            Decoder::Int8(mut column) => Arc::new(column.finish()),
            Decoder::Int16(mut column) => Arc::new(column.finish()),
            Decoder::Int32(mut column) => Arc::new(column.finish()),
            Decoder::Int64(mut column) => Arc::new(column.finish()),
            Decoder::Float32(mut column) => Arc::new(column.finish()),
            Decoder::Float64(mut column) => Arc::new(column.finish()),
            Decoder::Decimal(mut column) => Arc::new(column.finish()),
            Decoder::Text(mut column, _) => Arc::new(column.finish()),
            Decoder::Date(mut column) => Arc::new(column.finish()),
            Decoder::Timestamp(mut column) => Arc::new(column.finish()),
        }
    }
}

fn take_bool(bytes: &mut &[u8]) -> Result<bool, StateError> {
    match take_array(bytes)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(StateError::damaged(format!("boolean {other:#04x} in a group key"))),
    }
}

fn take_i64(bytes: &mut &[u8]) -> Result<i64, StateError> {
    Ok((u64::from_be_bytes(take_array(bytes)?) ^ 1 << 63) as i64)
}

fn take_integer<T: TryFrom<i64>>(bytes: &mut &[u8]) -> Result<T, StateError> {
    let value = take_i64(bytes)?;
    T::try_from(value)
        .map_err(|_| StateError::damaged(format!("{value} in a group key does not fit its column")))
}

fn take_date(bytes: &mut &[u8]) -> Result<i32, StateError> {
    Ok((u32::from_be_bytes(take_array(bytes)?) ^ 1 << 31) as i32)
}

fn take_i128(bytes: &mut &[u8]) -> Result<i128, StateError> {
    Ok((u128::from_be_bytes(take_array(bytes)?) ^ 1 << 127) as i128)
}

fn take_f64(bytes: &mut &[u8]) -> Result<f64, StateError> {
    let ordered = u64::from_be_bytes(take_array(bytes)?);
    let value = f64::from_bits(if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered });
    if canonical(value).to_bits() != value.to_bits() {
        return Err(StateError::damaged("a double in a group key is not in its one form"));
    }
    Ok(value)
}

fn take_f32(bytes: &mut &[u8]) -> Result<f32, StateError> {
    let wide = take_f64(bytes)?;
    let value = wide as f32;
    if canonical(value.into()).to_bits() != wide.to_bits() {
        return Err(StateError::damaged("a double in a group key does not fit its column"));
    }
    Ok(value)
}

/// Takes a text; `scratch` holds it where it has to be put together.
fn take_text<'t, 'b: 't>(bytes: &mut &'b [u8], scratch: &'t mut Vec<u8>) -> Result<&'t str, StateError> {
    let zero = |bytes: &[u8]| {
        let at = bytes.iter().position(|&byte| byte == 0);
        at.and_then(|at| Some((at, *bytes.get(at + 1)?)))
            .ok_or_else(|| StateError::damaged("a text in a group key has no end"))
    };
    let (mut at, mut next) = zero(bytes)?;
    let text: &[u8] = if next == 0 {
        let text = &bytes[..at];
        *bytes = &bytes[at + 2..];
        text
    } else {
        scratch.clear();
        while next == 0xff {
            scratch.extend_from_slice(&bytes[..=at]);
            *bytes = &bytes[at + 2..];
            (at, next) = zero(bytes)?;
        }
        scratch.extend_from_slice(&bytes[..at]);
        *bytes = &bytes[at + 2..];
        if next != 0 {
            return Err(StateError::damaged(format!("escape {next:#04x} in a group key's text")));
        }
        scratch
    };
    std::str::from_utf8(text).map_err(|_| StateError::damaged("a text in a group key is not UTF-8"))
}

#[cfg(test)]
mod tests;
