//! `var_pop`, `var_samp` and their square roots, of any number, computed in doubles.
//!
//! The state is the count, the sum and the sum of squares, both compensated ([`double`](super::double)); a square's own rounding error is
//! kept (by a fused multiply-add). So what cancels between the sum of squares and the square of the sum costs no digits until values
//! agree in more than about forty bits.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::Decimal128Type;
use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;

use super::count::checked_count;
use super::double::DoubleSum;
use super::{
    AggregateColumn, Failed, Rows, StateError, argument_of, each_double, each_integer, each_primitive,
    is_double, is_integer, same,
};
use crate::state::bytes::{put_varint, take_varint};

/// Which of the four.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spread {
    /// Of a sample: divided by one less than the count.
    pub sample: bool,
    /// The square root of it.
    pub deviation: bool,
}

pub(super) fn column(argument: &DataType, spread: Spread) -> Option<Box<dyn AggregateColumn>> {
    let is_number =
        is_integer(argument) || is_double(argument) || matches!(argument, DataType::Decimal128(..));
    is_number.then(|| Box::new(VarianceColumn { states: vec![], spread }) as Box<dyn AggregateColumn>)
}

#[derive(Clone, Copy, Debug)]
struct Moments {
    count: u64,
    sum: DoubleSum,
    squares: DoubleSum,
}

impl Moments {
    const NONE: Moments = Moments { count: 0, sum: DoubleSum::ZERO, squares: DoubleSum::ZERO };

    #[inline]
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum = self.sum.plus(DoubleSum::from_value(value));
        self.squares = self.squares.plus(DoubleSum::square(value));
    }

    fn merge(&mut self, other: Moments) {
        self.count += other.count;
        self.sum = self.sum.plus(other.sum);
        self.squares = self.squares.plus(other.squares);
    }

    /// `None` of too few values.
    fn finish(self, spread: Spread) -> Option<f64> {
        let divisor = self.count.checked_sub(u64::from(spread.sample)).filter(|divisor| *divisor > 0)?;
        let deviations = self.squares.less_square_of(self.sum, self.count as f64);
        // Rounding may leave a little less than nothing; NaN stays.
        let deviations = if deviations < 0.0 { 0.0 } else { deviations };
        let variance = deviations / divisor as f64;
        Some(if spread.deviation { variance.sqrt() } else { variance })
    }
}

#[derive(Debug)]
struct VarianceColumn {
    states: Vec<Moments>,
    spread: Spread,
}

impl AggregateColumn for VarianceColumn {
    fn resize(&mut self, groups: usize) {
        self.states.resize(groups, Moments::NONE);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        let states = &mut self.states;
        match argument.data_type() {
            DataType::Decimal128(_, scale) => {
                let unit = 10f64.powi((*scale).into());
                each_primitive::<Decimal128Type>(argument, rows, groups, |group, value| {
                    states[group].add(value as f64 / unit);
                })
            }
            data_type if is_integer(data_type) => {
                each_integer(argument, rows, groups, |group, value| states[group].add(value as f64))
            }
            _ => each_double(argument, rows, groups, |group, value| states[group].add(value)),
        }
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let other = same::<Self>(other)?;
        rows.each(groups, |row, group| self.states[group].merge(other.states[row]));
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        let count = take_varint(state)?;
        if count > 0 {
            let own = &mut self.states[group as usize];
            checked_count(own.count, count)?;
            own.merge(Moments { count, sum: DoubleSum::take(state)?, squares: DoubleSum::take(state)? });
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        let Moments { count, sum, squares } = self.states[group as usize];
        put_varint(out, count);
        if count > 0 {
            sum.put(out);
            squares.put(out);
        }
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let results = self.states[groups].iter().map(|moments| moments.finish(self.spread));
        Ok(Arc::new(results.collect::<Float64Array>()))
    }

    fn memory_bytes(&self) -> usize {
        self.states.capacity() * size_of::<Moments>()
    }

    fn clear(&mut self) {
        self.states.clear();
    }
}
