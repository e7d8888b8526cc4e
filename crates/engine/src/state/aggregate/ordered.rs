//! `first_value`, `last_value` and `array_agg`, in the order of events.
//!
//! The argument comes with what orders it, as one struct ([`crate::operators::order`]). Encoded like a group key, which keeps its order, a row is a
//! text of bytes: the first value is the smallest of them, the last the largest, an array the smallest few. Nulls are
//! ignored.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use super::{AggregateColumn, Failed, Rows, StateError, argument_of, same, unexpected};
use crate::operators::order::ORDER_TYPES;
use crate::state::bytes::{put_varint, take, take_varint};
use crate::state::key::{self, Keys};

pub(super) fn first_or_last(value: &DataType, last: bool) -> Option<Box<dyn AggregateColumn>> {
    let kind = if last { Kept::Last } else { Kept::First };
    column(value, kind)
}

pub(super) fn array(value: &DataType, limit: u32) -> Option<Box<dyn AggregateColumn>> {
    column(value, Kept::Smallest(limit as usize))
}

fn column(value: &DataType, kept: Kept) -> Option<Box<dyn AggregateColumn>> {
    key::is_supported(value).then(|| {
        let column =
            OrderedColumn { rows: vec![], bytes: 0, kept, value: value.clone(), keys: Keys::default() };
        Box::new(column) as Box<dyn AggregateColumn>
    })
}

/// Which rows of a group are kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    First,
    Last,
    /// The smallest, so many of them.
    Smallest(usize),
}

#[derive(Debug)]
struct OrderedColumn {
    /// By group, ascending.
    rows: Vec<Vec<Box<[u8]>>>,
    /// Bytes that they take.
    bytes: usize,
    kept: Kept,
    value: DataType,
    /// Filled anew by each batch.
    keys: Keys,
}

/// What a row takes beside its bytes.
const ROW: usize = size_of::<Box<[u8]>>();

fn offer(group: &mut Vec<Box<[u8]>>, bytes: &mut usize, kept: Kept, row: &[u8]) {
    let at = match (kept, group.last()) {
        (_, None) => 0,
        (Kept::First, Some(present)) if row >= &present[..] => return,
        (Kept::Last, Some(present)) if row <= &present[..] => return,
        (Kept::First | Kept::Last, Some(_)) => {
            *bytes -= ROW + group[0].len();
            group.clear();
            0
        }
        (Kept::Smallest(limit), Some(largest)) => {
            if group.len() >= limit {
                if row >= &largest[..] {
                    return;
                }
                *bytes -= ROW + largest.len();
                group.pop();
            }
            group.partition_point(|present| &present[..] <= row)
        }
    };
    *bytes += ROW + row.len();
    group.insert(at, row.into());
}

impl OrderedColumn {
    /// The values of these rows, in their order.
    fn values<'r>(&self, rows: impl Iterator<Item = &'r [u8]>) -> Result<ArrayRef, StateError> {
        let types: Vec<DataType> = ORDER_TYPES.iter().chain([&self.value]).cloned().collect();
        let rows: Vec<&[u8]> = rows.collect();
        let mut columns = key::decode_columns(rows.into_iter(), &types)?;
        columns.pop().ok_or_else(|| StateError::bug("a row of no columns"))
    }
}

impl AggregateColumn for OrderedColumn {
    fn resize(&mut self, groups: usize) {
        self.rows.resize(groups, vec![]);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        let columns = argument.as_struct_opt().ok_or_else(|| unexpected(argument))?.columns();
        let value = columns.last().ok_or_else(|| unexpected(argument))?;
        self.keys.encode(columns, argument.len())?;
        rows.each(groups, |row, group| {
            if value.is_valid(row) {
                offer(&mut self.rows[group], &mut self.bytes, self.kept, self.keys.get(row));
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
            for kept in &other.rows[row] {
                offer(&mut self.rows[group], &mut self.bytes, self.kept, kept);
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        for _ in 0..take_varint(state)? {
            let length = take_varint(state)?;
            offer(&mut self.rows[group as usize], &mut self.bytes, self.kept, take(state, length)?);
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        let rows = &self.rows[group as usize];
        put_varint(out, rows.len() as u64);
        for row in rows {
            put_varint(out, row.len() as u64);
            out.extend_from_slice(row);
        }
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let groups = &self.rows[groups];
        let values = self.values(groups.iter().flatten().map(|row| &row[..]))?;
        let lengths = groups.iter().map(Vec::len);
        if let Kept::Smallest(_) = self.kept {
            let nulls = NullBuffer::from_iter(groups.iter().map(|rows| !rows.is_empty()));
            let field = Arc::new(Field::new("item", self.value.clone(), true));
            let list = ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, Some(nulls));
            return Ok(Arc::new(list.map_err(|error| StateError::bug(error.to_string()))?));
        }
        // One value or none a group: the next value, or null.
        let mut next = 0u32;
        let places = lengths.map(|length| {
            (length > 0).then(|| {
                next += 1;
                next - 1
            })
        });
        let places: arrow::array::UInt32Array = places.collect();
        arrow::compute::take(&values, &places, None).map_err(|error| StateError::bug(error.to_string()))
    }

    fn memory_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Vec<Box<[u8]>>>() + self.bytes + self.keys.memory_bytes()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }
}
