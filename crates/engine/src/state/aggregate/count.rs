//! `count(*)` and `count(x)`.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};

use super::{AggregateColumn, Failed, Rows, StateError, same};
use crate::state::bytes::{put_varint, take_varint};

pub(super) fn column() -> Box<dyn AggregateColumn> {
    Box::new(CountColumn::default())
}

/// Counts never reach 2⁶³: that many rows cannot be read.
#[derive(Debug, Default)]
struct CountColumn {
    counts: Vec<u64>,
}

impl AggregateColumn for CountColumn {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let counts = &mut self.counts;
        match argument.and_then(|argument| argument.logical_nulls()) {
            None => groups.iter().for_each(|&group| counts[group as usize] += 1),
            Some(nulls) => rows.each(groups, |row, group| counts[group] += u64::from(nulls.is_valid(row))),
        }
        Ok(())
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        let other = same::<Self>(other)?;
        rows.each(groups, |row, group| self.counts[group] += other.counts[row]);
        Ok(())
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        let count = &mut self.counts[group as usize];
        *count = checked_count(*count, take_varint(state)?)?;
        Ok(())
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        put_varint(out, self.counts[group as usize]);
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let counts = self.counts[groups].iter().map(|&count| i64::try_from(count).unwrap_or(i64::MAX));
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }

    fn clear(&mut self) {
        self.counts.clear();
    }
}

/// The sum of two counts of which one was stored: beyond 2⁶² it is no count but damage, and later additions must not wrap.
pub(super) fn checked_count(count: u64, stored: u64) -> Result<u64, StateError> {
    count
        .checked_add(stored)
        .filter(|sum| *sum <= 1 << 62)
        .ok_or_else(|| StateError::damaged(format!("a stored count of {stored} rows")))
}
