//! Bringing together what belongs to one window: tables, rows of other workers, cold runs.
//!
//! Where all of it is in memory, it is added up in a table. As soon as a cold run takes part, everything is merged in
//! ascending order of (lane, key) instead, a row at a time, so that memory holds one chunk of results and not the window.

use std::ops::Range;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, new_null_array};
use arrow::compute::nullif;

use super::StateError;
use super::aggregate::{AggregateColumn, Failed};
use super::cold::{BorrowedRow, ColdError, ColdRow, ColdStore, Run, RunRows, Scan};
use super::key::{self, Keys};
use super::rows::EncodedRows;
use super::table::{GroupTable, Layout, merge_state};

/// Most rows of a chunk of results.
pub(super) const CHUNK_ROWS: usize = 4096;

/// Results of some groups: a row each.
pub(super) struct Results {
    pub(super) groups: Vec<ArrayRef>,
    pub(super) aggregates: Vec<ArrayRef>,
    pub(super) failed: Failed,
}

/// The value of one of the plan's aggregates for each group of a table.
pub(super) fn values(table: &GroupTable, aggregate: usize) -> Result<ArrayRef, StateError> {
    let mut columns = table.columns().iter().zip(table.layout().state_columns());
    let column = columns.find(|(_, (of, _))| of.aggregate == aggregate);
    let (column, _) = column.ok_or_else(|| StateError::bug(format!("no aggregate {aggregate}")))?;
    column.finish(0..table.len(), &mut vec![])
}

/// The results of a table's sessions, which begin at `starts`.
pub(super) fn sessions(table: &GroupTable, starts: &Int64Array) -> Result<Results, StateError> {
    let keys = table.groups().map(|group| table.key(group));
    finish(table.layout(), keys, table.columns(), 0..table.len(), Begins::Each(starts))
}

pub(super) type Emit<'e> = dyn FnMut(Results) -> Result<(), StateError> + 'e;

/// When the windows of some groups began: an aggregate that was added later has no result there.
#[derive(Clone, Copy)]
enum Begins<'a> {
    All(i64),
    Each(&'a Int64Array),
}

fn finish<'k>(
    layout: &Layout,
    keys: impl Iterator<Item = &'k [u8]>,
    columns: &[Box<dyn AggregateColumn>],
    groups: Range<usize>,
    begins: Begins<'_>,
) -> Result<Results, StateError> {
    let mut failed = vec![];
    let mut aggregates = vec![];
    for (column, (of, spec)) in columns.iter().zip(layout.state_columns()) {
        let is_known = match begins {
            Begins::All(start) => of.since <= start,
            Begins::Each(_) => true,
        };
        let mut fails = vec![];
        let mut values = match is_known {
            true => column.finish(groups.clone(), &mut fails)?,
            false => new_null_array(&spec.result, groups.len()),
        };
        if let Begins::Each(starts) = begins
            && starts.values().iter().any(|start| *start < of.since)
        {
            let is_older: BooleanArray =
                starts.values().iter().map(|start| Some(*start < of.since)).collect();
            values = nullif(&values, &is_older).map_err(|error| StateError::bug(error.to_string()))?;
            fails.retain(|(row, _)| !is_older.value(*row as usize));
        }
        failed.append(&mut fails);
        aggregates.push((of.aggregate, values));
    }
    // From the order of the state to that of the plan.
    aggregates.sort_by_key(|(place, _)| *place);
    let aggregates = aggregates.into_iter().map(|(_, values)| values).collect();
    failed.sort();
    Ok(Results { groups: key::decode_columns(keys, layout.groups())?, aggregates, failed })
}

/// The results of a whole table, in the order of its groups.
pub(super) fn emit_table(
    table: &GroupTable,
    window_start: i64,
    emit: &mut Emit<'_>,
) -> Result<(), StateError> {
    for start in (0..table.len()).step_by(CHUNK_ROWS) {
        let end = table.len().min(start + CHUNK_ROWS);
        let keys = (start as u32..end as u32).map(|group| table.key(group));
        emit(finish(table.layout(), keys, table.columns(), start..end, Begins::All(window_start))?)?;
    }
    Ok(())
}

/// The results of a merge, in ascending order of (lane, key).
pub(super) fn emit_merge(
    layout: &Layout,
    mut merge: SortedMerge<'_>,
    window_start: i64,
    emit: &mut Emit<'_>,
) -> Result<(), StateError> {
    let mut columns = layout.columns()?;
    let mut keys = Keys::default();
    loop {
        keys.clear();
        for column in &mut columns {
            column.clear();
            column.resize(CHUNK_ROWS);
        }
        while keys.len() < CHUNK_ROWS && merge.next_into(&mut columns, keys.len() as u32)? {
            keys.push(&merge.key);
        }
        if keys.is_empty() {
            return Ok(());
        }
        emit(finish(layout, keys.iter(), &columns, 0..keys.len(), Begins::All(window_start))?)?;
    }
}

/// One sorted sequence of rows.
enum Source<'a> {
    Table { table: &'a GroupTable, order: Vec<u32>, at: usize },
    Rows { rows: Vec<BorrowedRow<'a>>, at: usize },
    Run { scan: Scan<'a>, head: Option<ColdRow> },
}

impl Source<'_> {
    /// Lane and key of the next row.
    fn head(&self) -> Option<(u16, &[u8])> {
        match self {
            Source::Table { table, order, at } => {
                order.get(*at).map(|&group| (key::lane(table.hash(group)), table.key(group)))
            }
            Source::Rows { rows, at } => rows.get(*at).map(|&(lane, key, _)| (lane, key)),
            Source::Run { head, .. } => head.as_ref().map(|row| (row.lane, row.key.as_slice())),
        }
    }

    /// Adds the next row's state to a group and goes on to the row after it.
    fn consume(
        &mut self,
        columns: &mut [Box<dyn AggregateColumn>],
        group: u32,
        scratch: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        match self {
            Source::Table { table, order, at } => {
                scratch.clear();
                table.encode_state(order[*at], scratch);
                merge_state(columns, group, scratch)?;
                *at += 1;
            }
            Source::Rows { rows, at } => {
                merge_state(columns, group, rows[*at].2)?;
                *at += 1;
            }
            Source::Run { scan, head } => {
                if let Some(row) = head {
                    merge_state(columns, group, &row.state)?;
                }
                *head = scan.next().transpose()?;
            }
        }
        Ok(())
    }
}

/// Merges sorted sources; rows of the same key add up.
pub(super) struct SortedMerge<'a> {
    sources: Vec<Source<'a>>,
    /// Sources that have a row, the smallest first: a binary heap of indices.
    heap: Vec<usize>,
    /// Key and lane of the group that was merged last.
    key: Vec<u8>,
    lane: u16,
    scratch: Vec<u8>,
}

impl<'a> SortedMerge<'a> {
    /// Merges these tables, rows and runs as far as they are in these lanes.
    pub(super) fn new(
        tables: impl Iterator<Item = &'a GroupTable>,
        rows: impl Iterator<Item = &'a EncodedRows>,
        runs: impl Iterator<Item = Run>,
        lanes: Range<u16>,
        cold: &'a dyn ColdStore,
    ) -> Result<SortedMerge<'a>, StateError> {
        let mut sources = vec![];
        for table in tables {
            sources.push(Source::Table { table, order: table.sorted(lanes.clone()), at: 0 });
        }
        for rows in rows {
            let with_lane = |row: Result<(&'a [u8], &'a [u8]), StateError>| {
                row.map(|(key, state)| (key::lane(key::hash(key)), key, state))
            };
            let mut rows = rows.iter().map(with_lane).collect::<Result<Vec<_>, _>>()?;
            rows.retain(|row| lanes.contains(&row.0));
            rows.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
            sources.push(Source::Rows { rows, at: 0 });
        }
        for run in runs {
            let mut scan = cold.scan(run, lanes.clone())?;
            let head = scan.next().transpose()?;
            sources.push(Source::Run { scan, head });
        }
        let heap = (0..sources.len()).filter(|&source| sources[source].head().is_some()).collect();
        let mut merge = SortedMerge { sources, heap, key: vec![], lane: 0, scratch: vec![] };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(at);
        }
        Ok(merge)
    }

    fn is_less(&self, a: usize, b: usize) -> bool {
        // All sources in the heap have a row; among equal keys the order of the sources decides, to be deterministic.
        (self.sources[a].head(), a) < (self.sources[b].head(), b)
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.is_less(self.heap[child], self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// Adds all rows of the next key to `group` and keeps the key in `self`; `false` at the end.
    fn next_into(
        &mut self,
        columns: &mut [Box<dyn AggregateColumn>],
        group: u32,
    ) -> Result<bool, StateError> {
        let Some((lane, key)) = self.heap.first().and_then(|&top| self.sources[top].head()) else {
            return Ok(false);
        };
        self.lane = lane;
        self.key.clear();
        self.key.extend_from_slice(key);
        while let Some(&top) = self.heap.first() {
            if self.sources[top].head() != Some((self.lane, &self.key)) {
                break;
            }
            self.sources[top].consume(columns, group, &mut self.scratch)?;
            if self.sources[top].head().is_none() {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        Ok(true)
    }
}

/// The groups of one table as the rows of a run.
struct TableRun<'a> {
    table: &'a GroupTable,
    order: std::vec::IntoIter<u32>,
    state: Vec<u8>,
}

impl RunRows for TableRun<'_> {
    fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError> {
        let Some(group) = self.order.next() else { return Ok(None) };
        self.state.clear();
        self.table.encode_state(group, &mut self.state);
        Ok(Some((key::lane(self.table.hash(group)), self.table.key(group), &self.state)))
    }
}

/// A merge as the rows of a run. What goes wrong in the merge is kept here, for the store knows no such errors.
struct MergedRun<'a> {
    merge: SortedMerge<'a>,
    columns: Vec<Box<dyn AggregateColumn>>,
    state: Vec<u8>,
    error: Option<StateError>,
}

impl RunRows for MergedRun<'_> {
    fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError> {
        for column in &mut self.columns {
            column.clear();
            column.resize(1);
        }
        match self.merge.next_into(&mut self.columns, 0) {
            Ok(false) => Ok(None),
            Ok(true) => {
                self.state.clear();
                self.columns.iter().for_each(|column| column.encode_row(0, &mut self.state));
                Ok(Some((self.merge.lane, &self.merge.key, &self.state)))
            }
            Err(error) => {
                let message = error.to_string();
                self.error = Some(error);
                Err(ColdError::Failed(message))
            }
        }
    }
}

/// Writes a table as a run.
pub(super) fn ingest_table(table: &GroupTable, run: Run, cold: &dyn ColdStore) -> Result<(), StateError> {
    let order = table.sorted(0..key::LANES).into_iter();
    Ok(cold.ingest(run, &mut TableRun { table, order, state: vec![] })?)
}

/// Writes a table and older runs as one run; the older ones stay.
pub(super) fn ingest_merged(
    table: &GroupTable,
    older: &[Run],
    run: Run,
    cold: &dyn ColdStore,
) -> Result<(), StateError> {
    let tables = std::iter::once(table);
    let merge = SortedMerge::new(tables, std::iter::empty(), older.iter().copied(), 0..key::LANES, cold)?;
    let mut rows = MergedRun { merge, columns: table.layout().columns()?, state: vec![], error: None };
    let ingested = cold.ingest(run, &mut rows);
    match rows.error {
        Some(error) => Err(error),
        None => Ok(ingested?),
    }
}
