//! `min` and `max` of any scalar type.
//!
//! Doubles have one total order in which NaN is the largest value and the two zeros are one, 0.0; text compares by its bytes.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMillisecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, TimeUnit};

use super::{
    AggregateColumn, Failed, Rows, StateError, argument_of, each_double, each_integer, each_primitive, same,
    unexpected,
};
use crate::state::bytes::{put_varint, take, take_array, take_varint};
use crate::state::key::canonical;

pub(super) fn column(data_type: &DataType, largest: bool) -> Option<Box<dyn AggregateColumn>> {
    fn of<K: Kind>(data_type: &DataType, largest: bool) -> Option<Box<dyn AggregateColumn>> {
        Some(Box::new(Extreme::<K> { values: vec![], largest, data_type: data_type.clone() }))
    }
    match data_type {
        DataType::Boolean => of::<Booleans>(data_type, largest),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            of::<Integers>(data_type, largest)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => of::<Integers>(data_type, largest),
        DataType::Date32 => of::<Dates>(data_type, largest),
        DataType::Float32 | DataType::Float64 => of::<Doubles>(data_type, largest),
        DataType::Decimal128(_, _) => of::<Decimals>(data_type, largest),
        DataType::Utf8 => Some(Box::new(ExtremeText { values: vec![], text_bytes: 0, largest })),
        _ => None,
    }
}

/// What differs between the kinds of fixed width.
trait Kind: std::fmt::Debug + Send + 'static {
    type Value: Copy + std::fmt::Debug + Send + 'static;
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        f: impl FnMut(usize, Self::Value),
    ) -> Result<(), StateError>;
    fn compare(a: Self::Value, b: Self::Value) -> Ordering;
    fn put(value: Self::Value, out: &mut Vec<u8>);
    fn take(bytes: &mut &[u8]) -> Result<Self::Value, StateError>;
    fn finish(values: &[Option<Self::Value>], data_type: &DataType) -> Result<ArrayRef, StateError>;
}

/// Values narrowed to their column's type; that they fit is sure except for damaged bytes.
fn narrowed<T: ArrowPrimitiveType, W: Copy + std::fmt::Display>(
    values: &[Option<W>],
    data_type: &DataType,
    narrow: impl Fn(W) -> Option<T::Native>,
) -> Result<ArrayRef, StateError> {
    let narrow = |value: W| {
        narrow(value)
            .ok_or_else(|| StateError::damaged(format!("a stored {value} does not fit its type {data_type}")))
    };
    let values = values.iter().map(|value| value.map(narrow).transpose());
    let array = values.collect::<Result<PrimitiveArray<T>, StateError>>()?;
    Ok(Arc::new(array.with_data_type(data_type.clone())))
}

/// Integers of any width and timestamps.
#[derive(Debug)]
struct Integers;

impl Kind for Integers {
    type Value = i64;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        f: impl FnMut(usize, i64),
    ) -> Result<(), StateError> {
        each_integer(array, rows, groups, f)
    }

    fn compare(a: i64, b: i64) -> Ordering {
        a.cmp(&b)
    }

    fn put(value: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Result<i64, StateError> {
        take_array(bytes).map(i64::from_le_bytes)
    }

    fn finish(values: &[Option<i64>], data_type: &DataType) -> Result<ArrayRef, StateError> {
        match data_type {
            DataType::Int8 => narrowed::<Int8Type, _>(values, data_type, |value| value.try_into().ok()),
            DataType::Int16 => narrowed::<Int16Type, _>(values, data_type, |value| value.try_into().ok()),
            DataType::Int32 => narrowed::<Int32Type, _>(values, data_type, |value| value.try_into().ok()),
            DataType::Int64 => narrowed::<Int64Type, _>(values, data_type, Some),
            _ => narrowed::<TimestampMillisecondType, _>(values, data_type, Some),
        }
    }
}

#[derive(Debug)]
struct Dates;

impl Kind for Dates {
    type Value = i32;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        f: impl FnMut(usize, i32),
    ) -> Result<(), StateError> {
        each_primitive::<Date32Type>(array, rows, groups, f)
    }

    fn compare(a: i32, b: i32) -> Ordering {
        a.cmp(&b)
    }

    fn put(value: i32, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Result<i32, StateError> {
        take_array(bytes).map(i32::from_le_bytes)
    }

    fn finish(values: &[Option<i32>], data_type: &DataType) -> Result<ArrayRef, StateError> {
        narrowed::<Date32Type, _>(values, data_type, Some)
    }
}

#[derive(Debug)]
struct Decimals;

impl Kind for Decimals {
    type Value = i128;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        f: impl FnMut(usize, i128),
    ) -> Result<(), StateError> {
        each_primitive::<Decimal128Type>(array, rows, groups, f)
    }

    fn compare(a: i128, b: i128) -> Ordering {
        a.cmp(&b)
    }

    fn put(value: i128, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Result<i128, StateError> {
        take_array(bytes).map(i128::from_le_bytes)
    }

    fn finish(values: &[Option<i128>], data_type: &DataType) -> Result<ArrayRef, StateError> {
        narrowed::<Decimal128Type, _>(values, data_type, Some)
    }
}

/// Floats of either width.
#[derive(Debug)]
struct Doubles;

impl Kind for Doubles {
    type Value = f64;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        mut f: impl FnMut(usize, f64),
    ) -> Result<(), StateError> {
        each_double(array, rows, groups, |group, value| f(group, canonical(value)))
    }

    fn compare(a: f64, b: f64) -> Ordering {
        a.total_cmp(&b)
    }

    fn put(value: f64, out: &mut Vec<u8>) {
        out.extend_from_slice(&value.to_le_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Result<f64, StateError> {
        take_array(bytes).map(|bytes| canonical(f64::from_le_bytes(bytes)))
    }

    fn finish(values: &[Option<f64>], data_type: &DataType) -> Result<ArrayRef, StateError> {
        match data_type {
            DataType::Float32 => {
                narrowed::<Float32Type, _>(values, data_type, |value: f64| Some(value as f32))
            }
            _ => narrowed::<Float64Type, _>(values, data_type, Some),
        }
    }
}

#[derive(Debug)]
struct Booleans;

impl Kind for Booleans {
    type Value = bool;

    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        mut f: impl FnMut(usize, bool),
    ) -> Result<(), StateError> {
        let array = array.as_boolean_opt().ok_or_else(|| unexpected(array))?;
        rows.each(groups, |row, group| {
            if array.is_valid(row) {
                f(group, array.value(row));
            }
        });
        Ok(())
    }

    fn compare(a: bool, b: bool) -> Ordering {
        a.cmp(&b)
    }

    fn put(value: bool, out: &mut Vec<u8>) {
        out.push(value.into());
    }

    fn take(bytes: &mut &[u8]) -> Result<bool, StateError> {
        match take_array(bytes)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(StateError::damaged(format!("a stored boolean {other:#04x}"))),
        }
    }

    fn finish(values: &[Option<bool>], _: &DataType) -> Result<ArrayRef, StateError> {
        Ok(Arc::new(values.iter().copied().collect::<BooleanArray>()))
    }
}

/// Whether a group has a value: the marker before it.
fn take_marker(bytes: &mut &[u8]) -> Result<bool, StateError> {
    match take_array(bytes)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(StateError::damaged(format!("marker {other:#04x} before a minimum or maximum"))),
    }
}

/// The order in which a new value replaces the present one.
fn wins(largest: bool) -> Ordering {
    if largest { Ordering::Greater } else { Ordering::Less }
}

/// Extremes of fixed width.
#[derive(Debug)]
struct Extreme<K: Kind> {
    values: Vec<Option<K::Value>>,
    largest: bool,
    data_type: DataType,
}

#[inline(always)]
fn offer<K: Kind>(present: &mut Option<K::Value>, value: K::Value, wins: Ordering) {
    match present {
        Some(present) if K::compare(value, *present) != wins => {}
        _ => *present = Some(value),
    }
}

impl<K: Kind> AggregateColumn for Extreme<K> {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let (values, wins) = (&mut self.values, wins(self.largest));
        K::each(argument_of(argument)?, rows, groups, |group, value| {
            offer::<K>(&mut values[group], value, wins);
        })
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let (other, wins) = (same::<Self>(other)?, wins(self.largest));
        rows.each(groups, |row, group| {
            if let Some(value) = other.values[row] {
                offer::<K>(&mut self.values[group], value, wins);
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        if take_marker(state)? {
            offer::<K>(&mut self.values[group as usize], K::take(state)?, wins(self.largest));
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        match self.values[group as usize] {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                K::put(value, out);
            }
        }
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        K::finish(&self.values[groups], &self.data_type)
    }

    fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<K::Value>>()
    }

    fn clear(&mut self) {
        self.values.clear();
    }
}

/// Extremes of text. A group's buffer is used again, so that only a longer text than ever allocates.
#[derive(Debug)]
struct ExtremeText {
    values: Vec<Option<String>>,
    /// Capacity of all the texts, bytes.
    text_bytes: usize,
    largest: bool,
}

impl ExtremeText {
    #[inline]
    fn offer(&mut self, group: usize, value: &str) {
        match &mut self.values[group] {
            Some(present) => {
                if value.cmp(present) == wins(self.largest) {
                    let before = present.capacity();
                    present.clear();
                    present.push_str(value);
                    self.text_bytes += present.capacity() - before;
                }
            }
            none => {
                let value = value.to_owned();
                self.text_bytes += value.capacity();
                *none = Some(value);
            }
        }
    }
}

impl AggregateColumn for ExtremeText {
    fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        let text: &StringArray = argument.as_string_opt().ok_or_else(|| unexpected(argument))?;
        rows.each(groups, |row, group| {
            if text.is_valid(row) {
                self.offer(group, text.value(row));
            }
        });
        Ok(())
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let other = same::<Self>(other)?;
        rows.each(groups, |row, group| {
            if let Some(value) = &other.values[row] {
                self.offer(group, value);
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        if take_marker(state)? {
            let length = take_varint(state)?;
            let text = std::str::from_utf8(take(state, length)?)
                .map_err(|_| StateError::damaged("a stored text is not UTF-8"))?;
            self.offer(group as usize, text);
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        match &self.values[group as usize] {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                put_varint(out, value.len() as u64);
                out.extend_from_slice(value.as_bytes());
            }
        }
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        Ok(Arc::new(self.values[groups].iter().map(Option::as_deref).collect::<StringArray>()))
    }

    fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Option<String>>() + self.text_bytes
    }

    fn clear(&mut self) {
        self.values.clear();
        self.text_bytes = 0;
    }
}
