//! The group table: which groups there are, and their aggregates, in memory.
//!
//! A group is a number, given in order of first appearance. Its key lies in one arena of bytes; an open-addressing index maps
//! hash → group; aggregates are typed columns by group ([`aggregate`](super::aggregate)); a bitmap says which groups changed
//! since they were last copied out.
//!
//! A batch is looked up in two passes. The first finds each row's candidate by its hash alone and adds what is new; the second
//! compares the candidates' keys with the rows'. Kept apart, the cache misses of the rows overlap instead of waiting for each other;
//! that two keys agree in 59 bits of hash but differ happens next to never, and is put right row by row.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use hashbrown::HashTable;

use super::StateError;
use super::aggregate::{AggregateColumn, AggregateSpec, Rows};
use super::key::{self, Keys};
use super::rows::EncodedRows;
use crate::plan;

/// One aggregate in the bytes of a state: which of the plan it is, and from when on it is known.
///
/// The order of aggregates in a state is that in which they came to the step, so that rows of before are the beginning of rows of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateColumn {
    /// Its place in the plan.
    pub aggregate: usize,
    /// Windows that begin before this instant, milliseconds, were open when it was added; they yield NULL.
    pub since: i64,
}

impl StateColumn {
    /// The columns of a state that has had its `count` aggregates from its beginning, in the plan's order.
    pub fn planned(count: usize) -> Vec<StateColumn> {
        (0..count).map(|aggregate| StateColumn { aggregate, since: i64::MIN }).collect()
    }
}

/// What the rows of a state look like: the types of the group columns and the aggregates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    groups: Vec<DataType>,
    /// In the order of the state.
    aggregates: Vec<AggregateSpec>,
    columns: Vec<StateColumn>,
}

impl Layout {
    /// A layout of these group columns and aggregates, all of them known from the beginning.
    ///
    /// # Errors
    /// `Bug` if a type is not supported; the plan's compiler refuses those.
    pub fn new(groups: Vec<DataType>, aggregates: Vec<AggregateSpec>) -> Result<Layout, StateError> {
        let columns = StateColumn::planned(aggregates.len());
        Layout::with_columns(groups, &aggregates, columns)
    }

    /// A layout of these group columns and of the plan's aggregates in the order of `columns`.
    ///
    /// # Errors
    /// `Bug` if a type is not supported, or `columns` are not the plan's aggregates in some order.
    pub fn with_columns(
        groups: Vec<DataType>,
        planned: &[AggregateSpec],
        columns: Vec<StateColumn>,
    ) -> Result<Layout, StateError> {
        let mut places: Vec<usize> = columns.iter().map(|column| column.aggregate).collect();
        places.sort_unstable();
        if !places.iter().copied().eq(0..planned.len()) {
            return Err(StateError::bug(format!("{columns:?} are not {} aggregates", planned.len())));
        }
        let aggregates = columns.iter().map(|column| planned[column.aggregate].clone()).collect();
        if let Some(other) = groups.iter().find(|data_type| !key::is_supported(data_type)) {
            return Err(StateError::bug(format!("a group column of type {other}")));
        }
        let layout = Layout { groups, aggregates, columns };
        layout.columns()?;
        Ok(layout)
    }

    /// The layout of a windowed step.
    ///
    /// # Errors
    /// As [`Layout::with_columns`].
    pub fn of(window: &plan::Window, columns: Vec<StateColumn>) -> Result<Layout, StateError> {
        let planned: Vec<_> = window.aggregates.iter().map(AggregateSpec::from).collect();
        let groups = window.group_by.iter().map(|group| group.data_type.clone()).collect();
        Layout::with_columns(groups, &planned, columns)
    }

    /// Types of the group columns.
    pub fn groups(&self) -> &[DataType] {
        &self.groups
    }

    /// The aggregates in the order of the state, each with its place in the plan.
    pub(super) fn state_columns(&self) -> impl Iterator<Item = (&StateColumn, &AggregateSpec)> {
        self.columns.iter().zip(&self.aggregates)
    }

    /// Bytes that a group takes in a table without spare room (one that has just grown has as much again to spare), without the texts of
    /// its key and its aggregates.
    ///
    /// # Errors
    /// None for a layout that was made.
    pub fn bytes_per_group(&self) -> Result<usize, StateError> {
        const GROUPS: usize = 1024;
        // The index is a slot and a byte of control, and is full at seven eighths.
        let index = (size_of::<Entry>() + 1) * 8 / 7;
        let key = self.groups.iter().map(key::fixed_bytes).sum::<usize>();
        let mut columns = self.columns()?;
        columns.iter_mut().for_each(|column| column.resize(GROUPS));
        let aggregates = columns.iter().map(|column| column.memory_bytes()).sum::<usize>() / GROUPS;
        Ok(index + key + size_of::<usize>() + size_of::<u64>() + aggregates)
    }

    /// Empty columns, one per aggregate, in the order of the state.
    pub(super) fn columns(&self) -> Result<Vec<Box<dyn AggregateColumn>>, StateError> {
        self.aggregates.iter().map(AggregateSpec::column).collect()
    }
}

/// Encoded rows that are added at once.
const ROWS_AT_ONCE: usize = 4096;

/// An entry of the index: the group, and enough of its hash to leave other groups' keys alone.
#[derive(Clone, Copy, Debug)]
struct Entry {
    fingerprint: u32,
    group: u32,
}

/// The index itself uses the lowest bits (place) and the highest seven (tag) of the hash; these are the ones between.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    (hash >> 25) as u32
}

/// Groups and their aggregates.
#[derive(Debug)]
pub struct GroupTable {
    layout: Arc<Layout>,
    index: HashTable<Entry>,
    keys: Vec<u8>,
    /// End of each group's key in `keys`; it begins where the one before ends.
    ends: Vec<usize>,
    hashes: Vec<u64>,
    columns: Vec<Box<dyn AggregateColumn>>,
    dirty: Vec<u64>,
    /// Groups that had changed when the bits were cleared, and may have changed since: as many words or fewer.
    pending: Vec<u64>,
}

impl GroupTable {
    /// A table without groups.
    ///
    /// # Errors
    /// None for a [`Layout`] that was made.
    pub fn new(layout: Arc<Layout>) -> Result<GroupTable, StateError> {
        Ok(GroupTable {
            columns: layout.columns()?,
            layout,
            index: HashTable::new(),
            keys: vec![],
            ends: vec![],
            hashes: vec![],
            dirty: vec![],
            pending: vec![],
        })
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// What its rows look like.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The key of a group.
    #[inline]
    pub fn key(&self, group: u32) -> &[u8] {
        let group = group as usize;
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.keys[start..self.ends[group]]
    }

    /// The hash of a group's key.
    #[inline]
    pub fn hash(&self, group: u32) -> u64 {
        self.hashes[group as usize]
    }

    /// All groups, in order of their first appearance.
    pub fn groups(&self) -> std::ops::Range<u32> {
        0..self.len() as u32
    }

    /// Aggregate columns in the order of the layout.
    pub(super) fn columns(&self) -> &[Box<dyn AggregateColumn>] {
        &self.columns
    }

    /// Finds the groups of these rows' keys, adding those that are missing. `groups` is overwritten: one per row.
    ///
    /// # Errors
    /// `TooLarge` when the groups' numbers run out.
    pub fn upsert(&mut self, keys: &Keys, rows: Rows<'_>, groups: &mut Vec<u32>) -> Result<(), StateError> {
        groups.clear();
        match rows {
            Rows::All => self.upsert_rows(keys, 0..keys.len(), groups)?,
            Rows::These(rows) => {
                self.upsert_rows(keys, rows.iter().map(|&row| row as usize), groups)?;
            }
        }
        self.resize_columns();
        Ok(())
    }

    #[inline(always)]
    fn upsert_rows(
        &mut self,
        keys: &Keys,
        rows: impl ExactSizeIterator<Item = usize> + Clone,
        groups: &mut Vec<u32>,
    ) -> Result<(), StateError> {
        groups.reserve(rows.len());
        for row in rows.clone() {
            let hash = keys.hash(row);
            let fingerprint = fingerprint(hash);
            let group = match self.index.find(hash, |entry| entry.fingerprint == fingerprint) {
                Some(entry) => entry.group,
                None => self.insert(keys.get(row), hash)?,
            };
            groups.push(group);
        }
        for (at, row) in rows.enumerate() {
            if self.key(groups[at]) != keys.get(row) {
                groups[at] = self.upsert_key(keys.get(row), keys.hash(row))?;
            }
        }
        Ok(())
    }

    /// The group of a key, compared in full.
    pub fn find(&self, key: &[u8], hash: u64) -> Option<u32> {
        let fingerprint = fingerprint(hash);
        let same = |entry: &Entry| entry.fingerprint == fingerprint && self.key(entry.group) == key;
        self.index.find(hash, same).map(|entry| entry.group)
    }

    fn upsert_key(&mut self, key: &[u8], hash: u64) -> Result<u32, StateError> {
        match self.find(key, hash) {
            Some(group) => Ok(group),
            None => self.insert(key, hash),
        }
    }

    /// Adds a group whose key is not there yet; its columns are made by [`resize_columns`](Self::resize_columns).
    fn insert(&mut self, key: &[u8], hash: u64) -> Result<u32, StateError> {
        let group = u32::try_from(self.len())
            .ok()
            .filter(|group| *group < u32::MAX - 1)
            .ok_or_else(|| StateError::TooLarge(format!("a pane of {} groups", self.len())))?;
        self.keys.extend_from_slice(key);
        self.ends.push(self.keys.len());
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.index.insert_unique(hash, Entry { fingerprint: fingerprint(hash), group }, |entry| {
            hashes[entry.group as usize]
        });
        Ok(group)
    }

    fn resize_columns(&mut self) {
        let groups = self.len();
        self.dirty.resize(groups.div_ceil(64), 0);
        for column in &mut self.columns {
            column.resize(groups);
        }
    }

    /// Adds rows to the groups that [`upsert`](Self::upsert) found for them and marks those as changed. One argument per aggregate.
    ///
    /// # Errors
    /// `Bug` if the arguments are not those that the layout names.
    pub fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        arguments: &[Option<ArrayRef>],
    ) -> Result<(), StateError> {
        if arguments.len() != self.columns.len() {
            return Err(StateError::bug(format!(
                "{} arguments for {} aggregates",
                arguments.len(),
                self.columns.len()
            )));
        }
        for (column, of) in self.columns.iter_mut().zip(&self.layout.columns) {
            column.update(rows, groups, arguments[of.aggregate].as_ref())?;
        }
        self.mark_dirty(groups);
        Ok(())
    }

    fn mark_dirty(&mut self, groups: &[u32]) {
        for &group in groups {
            self.dirty[group as usize / 64] |= 1 << (group % 64);
        }
    }

    /// Adds the partial states of another table's groups, those of the lanes only, to this one's.
    ///
    /// # Errors
    /// `Bug` if the tables' layouts differ.
    pub fn merge_table(&mut self, other: &GroupTable, lanes: std::ops::Range<u16>) -> Result<(), StateError> {
        let picked: Vec<u32> =
            other.groups().filter(|&group| lanes.contains(&key::lane(other.hash(group)))).collect();
        self.merge_groups(other, &picked)
    }

    /// Adds the partial states of these groups of another table to this one's.
    ///
    /// # Errors
    /// `Bug` if the tables' layouts differ.
    pub fn merge_groups(&mut self, other: &GroupTable, picked: &[u32]) -> Result<(), StateError> {
        let mut groups = Vec::with_capacity(picked.len());
        for &group in picked {
            groups.push(self.upsert_key(other.key(group), other.hash(group))?);
        }
        self.resize_columns();
        for (column, from) in self.columns.iter_mut().zip(&other.columns) {
            column.merge_from(Rows::These(picked), &groups, from.as_ref())?;
        }
        self.mark_dirty(&groups);
        Ok(())
    }

    /// Adds partial states that are encoded.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not rows of this layout.
    pub fn merge_rows(&mut self, rows: &EncodedRows) -> Result<(), StateError> {
        self.add_rows(rows, true, |table, key, hash| table.upsert_key(key, hash).map(Some))
    }

    /// Adds the rows whose key is not there yet, unchanged as far as the dirty bits go: a restore, newest rows first.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not rows of this layout.
    pub fn restore_rows(&mut self, rows: &EncodedRows) -> Result<(), StateError> {
        // A row takes two bytes at least: a damaged count reserves nothing that is out of proportion.
        let count = usize::try_from(rows.count).unwrap_or(usize::MAX).min(rows.bytes.len() / 2);
        if count > self.len() {
            // Growing by doubling would look every group up again, several times.
            self.index.reserve(count, |entry| self.hashes[entry.group as usize]);
        }
        self.add_rows(rows, false, |table, key, hash| match table.find(key, hash) {
            Some(_) => Ok(None),
            None => table.insert(key, hash).map(Some),
        })
    }

    /// Adds the states of those rows that `group_of` names a group for. Columns grow once for many rows.
    fn add_rows(
        &mut self,
        rows: &EncodedRows,
        changed: bool,
        mut group_of: impl FnMut(&mut GroupTable, &[u8], u64) -> Result<Option<u32>, StateError>,
    ) -> Result<(), StateError> {
        let mut rows = rows.iter().peekable();
        let (mut groups, mut states) = (vec![], vec![]);
        while rows.peek().is_some() {
            groups.clear();
            states.clear();
            for row in rows.by_ref().take(ROWS_AT_ONCE) {
                let (key, state) = row?;
                if let Some(group) = group_of(self, key, key::hash(key))? {
                    groups.push(group);
                    states.push(state);
                }
            }
            self.resize_columns();
            for (&group, state) in groups.iter().zip(&states) {
                merge_state(&mut self.columns, group, state)?;
            }
            if changed {
                self.mark_dirty(&groups);
            }
        }
        Ok(())
    }

    /// Appends the states of a group's aggregates.
    #[inline]
    pub fn encode_state(&self, group: u32, out: &mut Vec<u8>) {
        for column in &self.columns {
            column.encode_row(group, out);
        }
    }

    /// Appends a group's row.
    #[inline]
    pub fn encode_row(&self, group: u32, rows: &mut EncodedRows) {
        rows.push(self.key(group), |out| self.encode_state(group, out));
    }

    /// Number of groups that changed since the bits were cleared.
    pub fn dirty_groups(&self) -> u64 {
        self.dirty.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The groups that changed since the bits were cleared.
    pub fn changed(&self) -> impl Iterator<Item = u32> {
        ones(&self.dirty)
    }

    /// The groups that are [put off](Self::put_off).
    pub fn pending(&self) -> impl Iterator<Item = u32> {
        ones(&self.pending)
    }

    /// Remembers the groups that have changed beyond the clearing of their bits.
    pub fn put_off(&mut self) {
        self.pending.resize(self.dirty.len(), 0);
        self.pending.iter_mut().zip(&self.dirty).for_each(|(pending, dirty)| *pending |= dirty);
    }

    /// The same of all groups.
    pub fn put_off_all(&mut self) {
        self.pending.clear();
        self.pending.resize(self.len() / 64, u64::MAX);
        self.pending.push((1 << (self.len() % 64)) - 1);
    }

    /// No group is put off any more.
    pub fn catch_up(&mut self) {
        self.pending.clear();
    }

    /// Clears the bits of what has changed: somebody else sees to it that all of the table is written.
    pub fn forget_changes(&mut self) {
        self.dirty.fill(0);
    }

    /// The rows of the groups that changed, in order of their numbers; the bits are cleared.
    pub fn take_dirty(&mut self) -> EncodedRows {
        let mut rows = EncodedRows::default();
        rows.bytes.reserve(self.row_bytes_hint(self.dirty_groups() as usize));
        self.changed().for_each(|group| self.encode_row(group, &mut rows));
        self.forget_changes();
        rows
    }

    /// The rows of all groups; the bits are cleared.
    pub fn take_whole(&mut self) -> EncodedRows {
        self.forget_changes();
        let mut rows = EncodedRows::default();
        rows.bytes.reserve(self.row_bytes_hint(self.len()));
        self.groups().for_each(|group| self.encode_row(group, &mut rows));
        rows
    }

    /// About how many bytes `rows` rows take, so that copying them out seldom moves what is already copied.
    fn row_bytes_hint(&self, rows: usize) -> usize {
        let key = if self.is_empty() { 0 } else { self.keys.len() / self.len() };
        rows * (key + 3 + 8 * self.columns.len())
    }

    /// All groups in ascending order of (lane, key).
    pub fn sorted(&self, lanes: std::ops::Range<u16>) -> Vec<u32> {
        let in_lanes = |group: &u32| lanes.contains(&key::lane(self.hash(*group)));
        let mut groups: Vec<u32> = self.groups().filter(in_lanes).collect();
        groups.sort_unstable_by(|&a, &b| {
            let lanes = key::lane(self.hash(a)).cmp(&key::lane(self.hash(b)));
            lanes.then_with(|| self.key(a).cmp(self.key(b)))
        });
        groups
    }

    /// Bytes held, unused capacity included.
    pub fn memory_bytes(&self) -> usize {
        self.index.allocation_size()
            + self.keys.capacity()
            + (self.ends.capacity()
                + self.hashes.capacity()
                + self.dirty.capacity()
                + self.pending.capacity())
                * 8
            + self.columns.iter().map(|column| column.memory_bytes()).sum::<usize>()
    }
}

/// The places of the bits that are set.
fn ones(words: &[u64]) -> impl Iterator<Item = u32> {
    let words = words.iter().enumerate().filter(|(_, word)| **word != 0);
    words.flat_map(|(at, &word)| {
        // Each without its lowest bit, as long as there is one.
        let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
        std::iter::successors(Some(word), rest).map(move |word| at as u32 * 64 + word.trailing_zeros())
    })
}

/// Adds one row's encoded state to a group of these columns. Where the bytes end early, the row is older than the columns that are
/// left: those have seen no value. (A state is never empty, and what holds rows is checked as a whole.)
pub(super) fn merge_state(
    columns: &mut [Box<dyn AggregateColumn>],
    group: u32,
    mut state: &[u8],
) -> Result<(), StateError> {
    for column in columns {
        if state.is_empty() {
            return Ok(());
        }
        column.merge_row(group, &mut state)?;
    }
    if state.is_empty() {
        Ok(())
    } else {
        Err(StateError::damaged(format!("a row's state has {} bytes too many", state.len())))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use proptest::prelude::*;

    use super::*;
    use crate::plan::AggregateFunction;

    fn counting() -> GroupTable {
        let count = AggregateSpec {
            function: AggregateFunction::Count,
            argument: DataType::Null,
            result: DataType::Int64,
        };
        GroupTable::new(Arc::new(Layout::new(vec![DataType::Utf8], vec![count]).unwrap())).unwrap()
    }

    fn count(table: &mut GroupTable, keys: &Keys, rows: Rows<'_>) -> Vec<u32> {
        let mut groups = vec![];
        table.upsert(keys, rows, &mut groups).unwrap();
        table.update(rows, &groups, &[None]).unwrap();
        groups
    }

    fn counts(table: &GroupTable) -> Vec<i64> {
        let counts = table.columns()[0].finish(0..table.len(), &mut vec![]).unwrap();
        let counts: &Int64Array = counts.as_primitive();
        counts.values().to_vec()
    }

    proptest! {
        /// Keys that share their hash, or only the part of it that the index looks at first, are still told apart.
        #[test]
        fn equal_hashes_are_not_equal_keys(batches in prop::collection::vec(prop::collection::vec(0u8..20, 0..40), 1..5)) {
            let mut table = counting();
            let mut expected = std::collections::BTreeMap::new();
            for batch in &batches {
                let mut keys = Keys::default();
                for &key in batch {
                    keys.push_hashed(&[key], [7, 7 | 1 << 24, u64::MAX][usize::from(key) % 3]);
                    *expected.entry(key).or_insert(0i64) += 1;
                }
                let groups = count(&mut table, &keys, Rows::All);
                for (&group, key) in groups.iter().zip(keys.iter()) {
                    prop_assert_eq!(table.key(group), key);
                }
            }
            prop_assert_eq!(table.len(), expected.len());
            let counted: std::collections::BTreeMap<u8, i64> =
                table.groups().map(|group| table.key(group)[0]).zip(counts(&table)).collect();
            prop_assert_eq!(counted, expected);
        }
    }

    #[test]
    fn changed_groups_are_copied_once() {
        let mut table = counting();
        let mut keys = Keys::default();
        (0..200u8).for_each(|key| keys.push(&[key]));
        count(&mut table, &keys, Rows::All);
        assert_eq!(table.take_dirty().count, 200);
        assert_eq!(table.take_dirty().count, 0);
        count(&mut table, &keys, Rows::These(&[199, 64, 64, 3]));
        let dirty = table.take_dirty();
        let rows: Vec<_> = dirty.iter().map(Result::unwrap).collect();
        assert_eq!(rows, [(&[3u8][..], &[2u8][..]), (&[64], &[3]), (&[199], &[2])]);
        assert_eq!(table.dirty_groups(), 0);
        assert_eq!(table.take_whole().count, 200);
    }

    #[test]
    fn memory_is_counted_by_capacity() {
        let mut table = counting();
        assert_eq!(table.memory_bytes(), 0);
        let mut keys = Keys::default();
        (0..10_000u32).for_each(|key| keys.push(&key.to_be_bytes()));
        count(&mut table, &keys, Rows::All);
        // At least key, end, hash, index entry and count of each group, and not more than growth by doubling explains.
        let least = 10_000 * (4 + 8 + 8 + 9 + 8);
        assert!((least..3 * least).contains(&table.memory_bytes()), "{}", table.memory_bytes());
    }

    #[test]
    fn lanes_split_a_table() {
        let mut table = counting();
        let mut keys = Keys::default();
        (0..1_000u32).for_each(|key| keys.push(&key.to_be_bytes()));
        count(&mut table, &keys, Rows::All);
        let mut merged = counting();
        for worker in 0..3 {
            let before = merged.len();
            merged.merge_table(&table, key::lanes_of(worker, 3)).unwrap();
            assert_eq!(table.sorted(key::lanes_of(worker, 3)).len(), merged.len() - before);
        }
        assert_eq!(merged.len(), 1_000);
        assert_eq!(counts(&merged), [1; 1_000]);
    }
}
