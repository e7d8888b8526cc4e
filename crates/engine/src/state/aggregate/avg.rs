//! `avg`: a count and a sum. Of integers and doubles a double; of decimals a decimal, rounded half away from zero.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::Decimal128Type;
use arrow::array::{ArrayRef, Decimal128Array, Float64Array};
use arrow::datatypes::{DataType, i256};

use super::count::checked_count;
use super::double::DoubleSum;
use super::exact::{self, Exact};
use super::sum::NARROW_DIGITS;
use super::{
    AggregateColumn, Failed, Rows, StateError, argument_of, each_double, each_integer, each_primitive,
    is_double, is_integer, same,
};
use crate::state::bytes::{put_varint, take_varint};

pub(super) fn column(argument: &DataType, result: &DataType) -> Option<Box<dyn AggregateColumn>> {
    match (argument, result) {
        (_, DataType::Float64) if is_integer(argument) => {
            Some(Box::new(Avg { states: vec![], kind: Integers }))
        }
        (_, DataType::Float64) if is_double(argument) => {
            Some(Box::new(Avg { states: vec![], kind: Doubles }))
        }
        (DataType::Decimal128(digits, scale), DataType::Decimal128(precision, result_scale)) => {
            let more_digits = u32::try_from(i16::from(*result_scale) - i16::from(*scale)).ok()?;
            let factor = i256::from_i128(10i128.checked_pow(more_digits)?);
            let (precision, scale) = (*precision, *result_scale);
            Some(match *digits <= NARROW_DIGITS {
                true => {
                    let kind = Decimals { precision, scale, factor, sum: std::marker::PhantomData::<i128> };
                    Box::new(Avg { states: vec![], kind })
                }
                false => {
                    let kind = Decimals { precision, scale, factor, sum: std::marker::PhantomData::<i256> };
                    Box::new(Avg { states: vec![], kind })
                }
            })
        }
        _ => None,
    }
}

/// What differs between the kinds of arguments.
trait Kind: std::fmt::Debug + Send + 'static {
    type Sum: Copy + std::fmt::Debug + Send + 'static;
    const ZERO: Self::Sum;
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        f: impl FnMut(usize, Self::Sum),
    ) -> Result<(), StateError>;
    fn plus(a: Self::Sum, b: Self::Sum) -> Self::Sum;
    fn put(sum: Self::Sum, out: &mut Vec<u8>);
    fn take(bytes: &mut &[u8]) -> Result<Self::Sum, StateError>;
    /// The means: `None` for a group without values.
    fn finish(
        &self,
        states: impl Iterator<Item = Option<(u64, Self::Sum)>>,
        failed: &mut Failed,
    ) -> Result<ArrayRef, StateError>;
}

fn take_exact<A: Exact>(bytes: &mut &[u8]) -> Result<A, StateError> {
    exact::take_value(bytes)?.ok_or_else(|| StateError::damaged("a mean without its sum"))
}

#[derive(Debug)]
struct Integers;

impl Kind for Integers {
    type Sum = i128;
    const ZERO: i128 = 0;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        mut f: impl FnMut(usize, i128),
    ) -> Result<(), StateError> {
        each_integer(array, rows, groups, |group, value| f(group, value.into()))
    }

    #[inline(always)]
    fn plus(a: i128, b: i128) -> i128 {
        Exact::plus(a, b)
    }

    fn put(sum: i128, out: &mut Vec<u8>) {
        exact::put(sum, out);
    }

    fn take(bytes: &mut &[u8]) -> Result<i128, StateError> {
        take_exact(bytes)
    }

    fn finish(
        &self,
        states: impl Iterator<Item = Option<(u64, i128)>>,
        _: &mut Failed,
    ) -> Result<ArrayRef, StateError> {
        let means = states.map(|state| state.map(|(count, sum)| sum as f64 / count as f64));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }
}

#[derive(Debug)]
struct Doubles;

impl Kind for Doubles {
    type Sum = DoubleSum;
    const ZERO: DoubleSum = DoubleSum::ZERO;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        mut f: impl FnMut(usize, DoubleSum),
    ) -> Result<(), StateError> {
        each_double(array, rows, groups, |group, value| f(group, DoubleSum::from_value(value)))
    }

    #[inline(always)]
    fn plus(a: DoubleSum, b: DoubleSum) -> DoubleSum {
        a.plus(b)
    }

    fn put(sum: DoubleSum, out: &mut Vec<u8>) {
        sum.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Result<DoubleSum, StateError> {
        DoubleSum::take(bytes)
    }

    fn finish(
        &self,
        states: impl Iterator<Item = Option<(u64, DoubleSum)>>,
        _: &mut Failed,
    ) -> Result<ArrayRef, StateError> {
        let means = states.map(|state| state.map(|(count, sum)| sum.value() / count as f64));
        Ok(Arc::new(means.collect::<Float64Array>()))
    }
}

/// Decimals with sums of width `A`; `factor` raises the argument's scale to the result's.
#[derive(Debug)]
struct Decimals<A> {
    precision: u8,
    scale: i8,
    factor: i256,
    sum: std::marker::PhantomData<A>,
}

impl<A: Exact> Kind for Decimals<A> {
    type Sum = A;
    const ZERO: A = A::ZERO;

    #[inline(always)]
    fn each(
        array: &ArrayRef,
        rows: Rows<'_>,
        groups: &[u32],
        mut f: impl FnMut(usize, A),
    ) -> Result<(), StateError> {
        each_primitive::<Decimal128Type>(array, rows, groups, |group, value| f(group, A::from_value(value)))
    }

    #[inline(always)]
    fn plus(a: A, b: A) -> A {
        a.plus(b)
    }

    fn put(sum: A, out: &mut Vec<u8>) {
        exact::put(sum, out);
    }

    fn take(bytes: &mut &[u8]) -> Result<A, StateError> {
        take_exact(bytes)
    }

    fn finish(
        &self,
        states: impl Iterator<Item = Option<(u64, A)>>,
        failed: &mut Failed,
    ) -> Result<ArrayRef, StateError> {
        let Decimals { precision, scale, factor, .. } = *self;
        let means = states.enumerate().map(|(row, state)| {
            let (count, sum) = state?;
            let mean = sum.wide().checked_mul(factor).and_then(|sum| exact::divide_rounded(sum, count));
            mean.and_then(|mean| exact::to_decimal(mean, precision)).or_else(|| {
                failed.push((row as u32, format!("the mean exceeds decimal({precision},{scale})")));
                None
            })
        });
        let means = means.collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
        Ok(Arc::new(means.map_err(|error| StateError::bug(error.to_string()))?))
    }
}

/// Counts and sums side by side, so that a row touches one place in memory.
#[derive(Debug)]
struct Avg<K: Kind> {
    states: Vec<(u64, K::Sum)>,
    kind: K,
}

impl<K: Kind> AggregateColumn for Avg<K> {
    fn resize(&mut self, groups: usize) {
        self.states.resize(groups, (0, K::ZERO));
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let states = &mut self.states;
        K::each(argument_of(argument)?, rows, groups, |group, value| {
            let (count, sum) = &mut states[group];
            *count += 1;
            *sum = K::plus(*sum, value);
        })
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let other = same::<Self>(other)?;
        rows.each(groups, |row, group| {
            let (count, sum) = &mut self.states[group];
            *count += other.states[row].0;
            *sum = K::plus(*sum, other.states[row].1);
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        let stored = take_varint(state)?;
        if stored > 0 {
            let (count, sum) = &mut self.states[group as usize];
            *count = checked_count(*count, stored)?;
            *sum = K::plus(*sum, K::take(state)?);
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        let (count, sum) = self.states[group as usize];
        put_varint(out, count);
        if count > 0 {
            K::put(sum, out);
        }
    }

    fn finish(&self, groups: Range<usize>, failed: &mut Failed) -> Result<ArrayRef, StateError> {
        self.kind.finish(self.states[groups].iter().map(|state| (state.0 > 0).then_some(*state)), failed)
    }

    fn memory_bytes(&self) -> usize {
        self.states.capacity() * size_of::<(u64, K::Sum)>()
    }

    fn clear(&mut self) {
        self.states.clear();
    }
}
