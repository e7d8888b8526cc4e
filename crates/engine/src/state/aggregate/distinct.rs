//! `count(distinct x limit n)`: exact, of at most `n` values.
//!
//! A group with more of them forgets them all, and has no result.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;

use super::{AggregateColumn, Failed, Rows, StateError, argument_of, same};
use crate::state::bytes::{put_varint, take, take_varint};
use crate::state::key::{self, Keys};

pub(super) fn column(value: &DataType, limit: u32) -> Option<Box<dyn AggregateColumn>> {
    key::is_supported(value).then(|| {
        let column = DistinctColumn { sets: vec![], bytes: 0, limit: limit as usize, keys: Keys::default() };
        Box::new(column) as Box<dyn AggregateColumn>
    })
}

/// About what a set takes for a value beside its bytes.
const ENTRY: usize = 24;

#[derive(Clone, Debug)]
enum Set {
    /// Values in the encoding of group keys.
    Of(BTreeSet<Box<[u8]>>),
    /// There were more than the limit.
    TooMany,
}

#[derive(Debug)]
struct DistinctColumn {
    sets: Vec<Set>,
    /// Bytes that the sets take.
    bytes: usize,
    limit: usize,
    /// Filled anew by each batch.
    keys: Keys,
}

fn offer(set: &mut Set, bytes: &mut usize, limit: usize, value: &[u8]) {
    let Set::Of(values) = set else { return };
    if values.contains(value) {
        return;
    }
    if values.len() == limit {
        return forget(set, bytes);
    }
    values.insert(value.into());
    *bytes += ENTRY + value.len();
}

fn forget(set: &mut Set, bytes: &mut usize) {
    if let Set::Of(values) = std::mem::replace(set, Set::TooMany) {
        *bytes -= values.iter().map(|value| ENTRY + value.len()).sum::<usize>();
    }
}

impl AggregateColumn for DistinctColumn {
    fn resize(&mut self, groups: usize) {
        self.sets.resize(groups, Set::Of(BTreeSet::new()));
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        self.keys.encode(std::slice::from_ref(argument), argument.len())?;
        rows.each(groups, |row, group| {
            if argument.is_valid(row) {
                offer(&mut self.sets[group], &mut self.bytes, self.limit, self.keys.get(row));
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
        rows.each(groups, |row, group| match &other.sets[row] {
            Set::TooMany => forget(&mut self.sets[group], &mut self.bytes),
            Set::Of(values) => {
                values
                    .iter()
                    .for_each(|value| offer(&mut self.sets[group], &mut self.bytes, self.limit, value));
            }
        });
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        let set = &mut self.sets[group as usize];
        let Some(values) = take_varint(state)?.checked_sub(1) else {
            forget(set, &mut self.bytes);
            return Ok(());
        };
        for _ in 0..values {
            let length = take_varint(state)?;
            offer(set, &mut self.bytes, self.limit, take(state, length)?);
        }
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        match &self.sets[group as usize] {
            Set::TooMany => put_varint(out, 0),
            Set::Of(values) => {
                put_varint(out, values.len() as u64 + 1);
                for value in values {
                    put_varint(out, value.len() as u64);
                    out.extend_from_slice(value);
                }
            }
        }
    }

    fn finish(&self, groups: Range<usize>, failed: &mut Failed) -> Result<ArrayRef, StateError> {
        let result = |(row, set): (usize, &Set)| match set {
            Set::Of(values) => Some(values.len() as i64),
            Set::TooMany => {
                failed.push((row as u32, format!("there are more than {} distinct values", self.limit)));
                None
            }
        };
        Ok(Arc::new(self.sets[groups].iter().enumerate().map(result).collect::<Int64Array>()))
    }

    fn memory_bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Set>() + self.bytes + self.keys.memory_bytes()
    }

    fn clear(&mut self) {
        self.sets.clear();
        self.bytes = 0;
    }
}
