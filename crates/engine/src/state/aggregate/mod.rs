//! Aggregate states in typed columns: one state per group, updated a column of arguments at a time.
//!
//! Nulls are ignored; of no values `count` is 0 and everything else NULL. `update`, `merge_from` and `merge_row` commute and
//! associate, so that the result does not depend on how rows were split into batches, workers, panes or runs — exactly so
//! for counts, integers, decimals, minima and maxima. **Sums and means of doubles are rounded**, and rounding depends on the
//! order of additions; they are kept as a compensated pair of doubles ([`double`]), so that the last digit seldom
//! moves, but it can. So it is with variances.
//!
//! ## State bytes, version 1 of the layout
//!
//! A group's state is its aggregates' states in the order of the plan. Each says where it ends. `varint` is unsigned LEB128.
//!
//! | aggregate | bytes |
//! | --- | --- |
//! | `count` | varint |
//! | `sum` of integers, decimals | one byte `n`; `n` bytes, two's complement, little endian, as few as possible. `n` = 0: no value |
//! | `sum` of doubles | `00`: no value; `01`, high part, low part (64-bit little endian) |
//! | `min`, `max`, `bool_and`, `bool_or` | `00`: no value; `01`, then integers and timestamps 8 bytes, dates 4, decimals 16, doubles 8, little endian; booleans 1; text varint length and bytes |
//! | `avg` | varint count; unless it is 0, the sum as above without the case "no value" |
//! | variances, deviations | varint count; unless it is 0, high and low part of the sum, then of the sum of squares |
//! | `first_value`, `last_value`, `array_agg` | varint number of rows, ascending; each varint length and bytes: time, partition, offset, hash of the topic and value in the encoding of group keys |
//! | `approx_distinct`, `approx_percentile` | varint length; unless it is 0, the sketch as DataSketches writes it, with its version |
//! | `count(distinct)` | varint 0: more than the limit; else number of values plus 1, and ascending for each varint length and bytes, in the encoding of group keys |

mod avg;
mod count;
mod distinct;
mod double;
mod exact;
mod extreme;
mod ordered;
mod sketch;
mod sum;
mod variance;

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use arrow::array::types::{ArrowPrimitiveType, Float32Type, Float64Type};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, TimeUnit};

use super::StateError;
use crate::plan;
use crate::plan::AggregateFunction::{
    ApproxDistinct, ApproxPercentile, ArrayAgg, Avg, BoolAnd, BoolOr, Count, CountDistinct, First, Last, Max,
    Min, StddevPop, StddevSamp, Sum, VarPop, VarSamp,
};

/// Which rows of a column take part, in the order of the groups that go with them.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// All of them.
    All,
    /// These.
    These(&'a [u32]),
}

impl Rows<'_> {
    /// Calls `f(row, group)` for each row with its group.
    #[inline(always)]
    pub(super) fn each(self, groups: &[u32], mut f: impl FnMut(usize, usize)) {
        match self {
            Rows::All => {
                for (row, &group) in groups.iter().enumerate() {
                    f(row, group as usize);
                }
            }
            Rows::These(rows) => {
                for (&row, &group) in rows.iter().zip(groups) {
                    f(row as usize, group as usize);
                }
            }
        }
    }
}

/// Results that cannot be represented: row (counted from the start of the finished range) and reason.
pub type Failed = Vec<(u32, String)>;

/// The states of one aggregate for all groups of a table. Groups are numbered from 0; a group must have been made by
/// [`resize`](Self::resize) before anything else names it.
pub trait AggregateColumn: Any + Debug + Send {
    /// Makes room for `groups` groups in all; new ones have seen no value.
    fn resize(&mut self, groups: usize);

    /// Adds `rows` of the argument, each to its group. The argument is `None` for `count(*)` only.
    ///
    /// # Errors
    /// `Bug` if the argument is of another type than planned.
    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError>;

    /// Adds the states of `rows` (groups of `other`), each to its group here.
    ///
    /// # Errors
    /// `Bug` if `other` is another aggregate.
    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError>;

    /// Takes one encoded state from the front of `state` and adds it to the group.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not a state of this aggregate.
    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError>;

    /// Appends the group's state.
    fn encode_row(&self, group: u32, out: &mut Vec<u8>);

    /// The results of these groups, a row each; NULL where the result cannot be represented, with the reason in `failed`.
    fn finish(&self, groups: Range<usize>, failed: &mut Failed) -> Result<ArrayRef, StateError>;

    /// Bytes held, unused capacity included.
    fn memory_bytes(&self) -> usize;

    /// Forgets all groups and keeps the memory.
    fn clear(&mut self);
}

/// What a column needs to know about its aggregate: function, argument and result type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateSpec {
    /// Which function.
    pub function: plan::AggregateFunction,
    /// Type of the argument; `Null` for `count(*)`.
    pub argument: DataType,
    /// Type of the result.
    pub result: DataType,
}

impl From<&plan::Aggregate> for AggregateSpec {
    fn from(aggregate: &plan::Aggregate) -> AggregateSpec {
        AggregateSpec {
            function: aggregate.function,
            argument: aggregate.argument_type.clone(),
            result: aggregate.result_type.clone(),
        }
    }
}

impl AggregateSpec {
    /// An empty column of this aggregate.
    ///
    /// # Errors
    /// `Bug` if there is no such aggregate for these types; the plan's compiler refuses those.
    pub fn column(&self) -> Result<Box<dyn AggregateColumn>, StateError> {
        let column = match (self.function, &self.argument, &self.result) {
            (Count, _, DataType::Int64) => Some(count::column()),
            (Sum, argument, result) => sum::column(argument, result),
            (Avg, argument, result) => avg::column(argument, result),
            (Min, argument, result) if argument == result => extreme::column(argument, false),
            (Max, argument, result) if argument == result => extreme::column(argument, true),
            (BoolAnd, DataType::Boolean, DataType::Boolean) => extreme::column(&DataType::Boolean, false),
            (BoolOr, DataType::Boolean, DataType::Boolean) => extreme::column(&DataType::Boolean, true),
            (function @ (VarPop | VarSamp | StddevPop | StddevSamp), argument, DataType::Float64) => {
                let spread = variance::Spread {
                    sample: matches!(function, VarSamp | StddevSamp),
                    deviation: matches!(function, StddevPop | StddevSamp),
                };
                variance::column(argument, spread)
            }
            (First, argument, result) if argument == result => ordered::first_or_last(argument, false),
            (Last, argument, result) if argument == result => ordered::first_or_last(argument, true),
            (ArrayAgg { limit }, argument, DataType::List(item)) if item.data_type() == argument => {
                ordered::array(argument, limit)
            }
            (CountDistinct { limit }, argument, DataType::Int64) => distinct::column(argument, limit),
            (ApproxDistinct, argument, DataType::Int64) => sketch::distinct(argument),
            (ApproxPercentile { millionths }, argument, DataType::Float64) => {
                sketch::percentile(argument, f64::from(millionths) / 1e6)
            }
            _ => None,
        };
        column.ok_or_else(|| {
            StateError::bug(format!("no {:?} of {} as {}", self.function, self.argument, self.result))
        })
    }
}

fn is_integer(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
}

fn is_double(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn unexpected(array: &ArrayRef) -> StateError {
    StateError::bug(format!("an aggregate's argument has type {}", array.data_type()))
}

fn argument_of(argument: Option<&ArrayRef>) -> Result<&ArrayRef, StateError> {
    argument.ok_or_else(|| StateError::bug("an aggregate without its argument"))
}

/// `other` as the type of column that it must be.
fn same<T: AggregateColumn>(other: &dyn AggregateColumn) -> Result<&T, StateError> {
    (other as &dyn Any).downcast_ref().ok_or_else(|| StateError::bug("merging two different aggregates"))
}

/// Calls `f(group, value)` for each row whose value is not null.
#[inline(always)]
fn each_primitive<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    rows: Rows<'_>,
    groups: &[u32],
    mut f: impl FnMut(usize, T::Native),
) -> Result<(), StateError> {
    let array = array.as_primitive_opt::<T>().ok_or_else(|| unexpected(array))?;
    let values = array.values();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => rows.each(groups, |row, group| f(group, values[row])),
        Some(nulls) => rows.each(groups, |row, group| {
            if nulls.is_valid(row) {
                f(group, values[row]);
            }
        }),
    }
    Ok(())
}

/// [`each_primitive`] for integers of any width, dates and timestamps, as 64 bits.
#[inline(always)]
fn each_integer(
    array: &ArrayRef,
    rows: Rows<'_>,
    groups: &[u32],
    mut f: impl FnMut(usize, i64),
) -> Result<(), StateError> {
    use arrow::array::types as t;
    match array.data_type() {
        DataType::Int8 => each_primitive::<t::Int8Type>(array, rows, groups, |g, v| f(g, v.into())),
        DataType::Int16 => each_primitive::<t::Int16Type>(array, rows, groups, |g, v| f(g, v.into())),
        DataType::Int32 => each_primitive::<t::Int32Type>(array, rows, groups, |g, v| f(g, v.into())),
        DataType::Int64 => each_primitive::<t::Int64Type>(array, rows, groups, f),
        DataType::Date32 => each_primitive::<t::Date32Type>(array, rows, groups, |g, v| f(g, v.into())),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            each_primitive::<t::TimestampMillisecondType>(array, rows, groups, f)
        }
        _ => Err(unexpected(array)),
    }
}

/// [`each_primitive`] for floats of either width, as doubles.
#[inline(always)]
fn each_double(
    array: &ArrayRef,
    rows: Rows<'_>,
    groups: &[u32],
    mut f: impl FnMut(usize, f64),
) -> Result<(), StateError> {
    match array.data_type() {
        DataType::Float32 => each_primitive::<Float32Type>(array, rows, groups, |g, v| f(g, v.into())),
        _ => each_primitive::<Float64Type>(array, rows, groups, f),
    }
}

#[cfg(test)]
mod tests;
