//! `sum`: of integers as `bigint`, of decimals at the same scale, of doubles.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::Decimal128Type;
use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, i256};

use super::double::DoubleSum;
use super::exact::{self, Exact};
use super::{
    AggregateColumn, Failed, Rows, StateError, argument_of, each_double, each_integer, each_primitive,
    is_double, is_integer, same,
};
use crate::state::bytes::take_array;

/// Widest decimal whose sums are kept in 128 bits; see [`exact`].
pub(super) const NARROW_DIGITS: u8 = 19;

pub(super) fn column(argument: &DataType, result: &DataType) -> Option<Box<dyn AggregateColumn>> {
    match (argument, result) {
        (_, DataType::Int64) if is_integer(argument) => {
            Some(Box::new(ExactSum::<i128>::new(ExactResult::Integer)))
        }
        (DataType::Decimal128(digits, scale), DataType::Decimal128(precision, result_scale))
            if scale == result_scale =>
        {
            let result = ExactResult::Decimal { precision: *precision, scale: *scale };
            Some(match *digits <= NARROW_DIGITS {
                true => Box::new(ExactSum::<i128>::new(result)),
                false => Box::new(ExactSum::<i256>::new(result)),
            })
        }
        (_, DataType::Float64) if is_double(argument) => Some(Box::new(DoubleSums::default())),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum ExactResult {
    Integer,
    Decimal { precision: u8, scale: i8 },
}

/// Sums of integers or decimals.
#[derive(Debug)]
struct ExactSum<A> {
    sums: Vec<A>,
    result: ExactResult,
}

impl<A: Exact> ExactSum<A> {
    fn new(result: ExactResult) -> ExactSum<A> {
        ExactSum { sums: vec![], result }
    }
}

#[inline(always)]
fn add<A: Exact>(sum: &mut A, value: A) {
    *sum = if *sum == A::NONE { value } else { sum.plus(value) };
}

impl<A: Exact> AggregateColumn for ExactSum<A> {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, A::NONE);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        let sums = &mut self.sums;
        match self.result {
            ExactResult::Integer => each_integer(argument, rows, groups, |group, value| {
                add(&mut sums[group], A::from_value(value.into()));
            }),
            ExactResult::Decimal { .. } => {
                each_primitive::<Decimal128Type>(argument, rows, groups, |group, value| {
                    add(&mut sums[group], A::from_value(value));
                })
            }
        }
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let other = same::<Self>(other)?;
        rows.each(groups, |row, group| {
            if other.sums[row] != A::NONE {
                add(&mut self.sums[group], other.sums[row]);
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        if let Some(stored) = exact::take_value(state)? {
            add(&mut self.sums[group as usize], stored);
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        match self.sums[group as usize] {
            none if none == A::NONE => out.push(0),
            sum => exact::put(sum, out),
        }
    }

    fn finish(&self, groups: Range<usize>, failed: &mut Failed) -> Result<ArrayRef, StateError> {
        let sums = self.sums[groups].iter().map(|sum| (*sum != A::NONE).then(|| sum.wide()));
        let mut fails =
            |row: usize, limit: &str| failed.push((row as u32, format!("the sum exceeds {limit}")));
        Ok(match self.result {
            ExactResult::Integer => {
                let sums = sums.enumerate().map(|(row, sum)| {
                    let fit = sum?.to_i128().and_then(|sum| i64::try_from(sum).ok());
                    fit.or_else(|| {
                        fails(row, "the range of bigint");
                        None
                    })
                });
                Arc::new(sums.collect::<Int64Array>())
            }
            ExactResult::Decimal { precision, scale } => {
                let sums = sums.enumerate().map(|(row, sum)| {
                    exact::to_decimal(sum?, precision).or_else(|| {
                        fails(row, &format!("decimal({precision},{scale})"));
                        None
                    })
                });
                let sums = sums.collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
                Arc::new(sums.map_err(|error| StateError::bug(error.to_string()))?)
            }
        })
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<A>()
    }

    fn clear(&mut self) {
        self.sums.clear();
    }
}

/// Sums of doubles.
#[derive(Debug, Default)]
struct DoubleSums {
    sums: Vec<DoubleSum>,
}

#[inline(always)]
fn add_double(sum: &mut DoubleSum, value: DoubleSum) {
    *sum = if sum.is_none() { value } else { sum.plus(value) };
}

impl AggregateColumn for DoubleSums {
    fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, DoubleSum::NONE);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let sums = &mut self.sums;
        each_double(argument_of(argument)?, rows, groups, |group, value| {
            add_double(&mut sums[group], DoubleSum::from_value(value));
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
            if !other.sums[row].is_none() {
                add_double(&mut self.sums[group], other.sums[row]);
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        match take_array(state)? {
            [0] => {}
            [1] => add_double(&mut self.sums[group as usize], DoubleSum::take(state)?),
            [other] => {
                return Err(StateError::damaged(format!("marker {other:#04x} before a sum of doubles")));
            }
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        let sum = self.sums[group as usize];
        if sum.is_none() {
            out.push(0);
        } else {
            out.push(1);
            sum.put(out);
        }
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let sums = self.sums[groups].iter().map(|sum| (!sum.is_none()).then(|| sum.value()));
        Ok(Arc::new(sums.collect::<Float64Array>()))
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<DoubleSum>()
    }

    fn clear(&mut self) {
        self.sums.clear();
    }
}
