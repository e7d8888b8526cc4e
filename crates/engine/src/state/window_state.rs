//! The windows of one step on one worker: panes, from the first record to the purge.
//!
//! A **pane** is the greatest common slice of the step's windows ([`WindowSpec`]); it has a group table, and runs of what was
//! evicted from it. A record touches one pane; a window is the sum of its panes over all workers. The calls, in the order
//! of an epoch:
//!
//! 1. [`update`](WindowState::update) with each batch. Lateness is judged by the purged frontier of the last barrier.
//! 2. At the barrier, for each window end that fires, in ascending order: every worker [`close`](WindowState::close)s, then
//!    every owner of lanes [`merge`](WindowState::merge)s what all workers handed over and emits it. Neither changes state, but of sessions
//!    and deduplications, see below.
//!    With `emit: updates`, before those: for each window that has fired and of which something has changed since
//!    ([`changed_ends`](WindowState::changed_ends)), every worker tells which groups ([`changed_keys`](WindowState::changed_keys)), and
//!    close and merge are about those of all workers ([`ChangedGroups`]).
//!    Of deduplications, the same two rounds decide which rows go on, and [`keep`](WindowState::keep) remembers those ([`duplicates`]).
//!    Of sessions, [`merge`](WindowState::merge) is what settles a pane, and it does change state: what goes on moves to a later pane
//!    ([`sessions`]).
//! 3. [`purge`](WindowState::purge): panes whose last window is purged go, with their runs.
//! 4. [`freeze`](WindowState::freeze): all panes that are left, with the rows that changed since the last freeze.
//!
//! [`evict`](WindowState::evict) may come between batches or at a barrier before the freeze. A restore fills an empty state before the first batch.
//!
//! A window of many panes adds up sums of neighbours that are kept beside them ([`sums`]).
//!
//! The order of rows within a window is that of the tables, or of (lane, key) when a run takes part: the same for the same
//! history of batches, evictions and restores, and nothing to rely on otherwise.

mod buckets;
mod changed;
mod duplicates;
mod pane;
mod restore;
mod sessions;
mod sums;
#[cfg(test)]
mod tests;
mod traces;
mod updates;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use onceflow_protocol::WindowSpec;
use onceflow_protocol::planted::{Planted, is_planted};

use super::StateError;
use super::aggregate::{Failed, Rows};
use super::cold::{ColdStore, Run};
use super::key::{self, Keys};
use super::merge::{self, Results, SortedMerge};
use super::rows::EncodedRows;
use super::table::{GroupTable, Layout, StateColumn};
use crate::plan::{self, Emits};

use self::buckets::Buckets;
pub use self::changed::{Changed, ChangedGroups, Place};
pub use self::pane::Change;
use self::pane::{Pane, pane};
pub use self::restore::{Origin, PaneRestore};
use self::sums::Sums;
pub use self::sums::most_tables;
pub use self::traces::Trace;
use self::updates::Early;

/// Runs of a pane after which the next eviction merges them into one.
pub const MAX_RUNS: usize = 4;

/// Live extents of a pane after which it is written whole, however little of it changes: manifests name every extent, and every
/// file that holds one.
const MAX_EXTENTS: u32 = 100;

/// The end of the one window of a step that has none: all that its groups have had.
pub const EVERYTHING: i64 = i64::MAX;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Rows of the batch whose windows are all purged, ascending; they were not added.
    pub late: Vec<u32>,
    /// Rows that were added although some of their windows are purged.
    pub partly_late: u64,
    /// Rows that were added.
    pub used: u64,
}

/// The rows of a run in these lanes.
fn rows_of_run(run: Run, lanes: Range<u16>, cold: &dyn ColdStore) -> Result<EncodedRows, StateError> {
    let mut rows = EncodedRows::default();
    for row in cold.scan(run, lanes)? {
        let row = row?;
        rows.push(&row.key, |out| out.extend_from_slice(&row.state));
    }
    Ok(rows)
}

/// What one worker hands to one owner when a window closes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partials {
    /// Rows of the owner's lanes; a key may occur several times. Of sessions, those of the pane that is settled.
    pub rows: EncodedRows,
    /// Of sessions, the rows of the panes behind that.
    pub later: BTreeMap<i64, EncodedRows>,
    /// The worker's cold runs of the window's panes, all lanes.
    pub runs: Vec<Run>,
    /// Of a deduplication, when rows of the [`ChangedGroups`] were kept: place of the group there, event time in milliseconds.
    pub kept: Vec<(u32, i64)>,
}

/// Results of a window: a chunk of at most 4,096 rows.
#[derive(Clone, Debug)]
pub struct WindowRows {
    /// Group columns in the order of the plan.
    pub groups: Vec<ArrayRef>,
    /// Where each row's window begins and ends.
    pub bounds: Bounds,
    /// Aggregates in the order of the plan; but those that are a session's bounds are not among them.
    pub aggregates: Vec<ArrayRef>,
    /// Rows of which an aggregate cannot be represented (it is NULL here), ascending, with the reason.
    pub failed: Failed,
}

/// The windows of some rows, milliseconds.
#[derive(Clone, Debug)]
pub enum Bounds {
    /// All rows are of this window, which ends before its end.
    One {
        /// Its first instant.
        start: i64,
        /// The instant after its last.
        end: i64,
    },
    /// A session each, to which an event at its very end would still belong.
    Sessions {
        /// The first event of each.
        starts: Int64Array,
        /// The last event of each, and the gap.
        ends: Int64Array,
    },
    /// There are no windows.
    None {
        /// The last event of each.
        last_events: Int64Array,
    },
}

/// A pane at a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenPane {
    /// Start of the pane, milliseconds.
    pub pane: i64,
    /// Its rows.
    pub change: Change,
    /// Its runs in the cold store.
    pub runs: Vec<Run>,
}

/// Panes of a windowed step on one worker.
#[derive(Debug)]
pub struct WindowState {
    id: u32,
    spec: WindowSpec,
    emits: Emits,
    early: Option<Early>,
    layout: Arc<Layout>,
    panes: BTreeMap<i64, Pane>,
    sums: Sums,
    // Filled anew by each batch; kept for their memory.
    keys: Keys,
    groups: Vec<u32>,
    buckets: Buckets,
}

impl WindowState {
    /// Empty state of the step with the durable number `state_id`, its aggregates in the order of `columns`.
    ///
    /// # Errors
    /// `Bug` if the window has types or aggregates that state does not know, or `columns` are not its aggregates.
    pub fn new(
        state_id: u32,
        window: &plan::Window,
        columns: Vec<StateColumn>,
    ) -> Result<WindowState, StateError> {
        let layout = Arc::new(Layout::of(window, columns)?);
        let early = window.emits.early_ms().map(|every_ms| Early { every_ms, last: None, emitted: None });
        Ok(WindowState {
            emits: window.emits,
            early,
            ..WindowState::with_layout(state_id, window.spec, layout)
        })
    }

    /// Empty state of rows that look like `layout`.
    pub fn with_layout(state_id: u32, spec: WindowSpec, layout: Arc<Layout>) -> WindowState {
        WindowState {
            id: state_id,
            spec,
            emits: Emits::Final,
            early: None,
            layout,
            panes: BTreeMap::new(),
            sums: Sums::default(),
            keys: Keys::default(),
            groups: vec![],
            buckets: Buckets::default(),
        }
    }

    /// Durable number of the step's state.
    pub fn state_id(&self) -> u32 {
        self.id
    }

    /// Adds a batch: group columns, one argument per aggregate (`None` for `count(*)`), and event times, row by row. `purged`
    /// is the step's purged frontier.
    ///
    /// # Errors
    /// `Bug` if columns are not as planned or an event time is out of range, `TooLarge` as [`GroupTable::upsert`].
    pub fn update(
        &mut self,
        groups: &[ArrayRef],
        arguments: &[Option<ArrayRef>],
        event_time: &Int64Array,
        purged: i64,
    ) -> Result<Updated, StateError> {
        let mut updated = Updated::default();
        if event_time.is_empty() {
            return Ok(updated);
        }
        self.keys.encode(groups, event_time.len())?;
        if let Some(other) = arguments.iter().flatten().find(|argument| argument.len() != event_time.len()) {
            return Err(StateError::bug(format!(
                "an argument of {} rows in a batch of {}",
                other.len(),
                event_time.len()
            )));
        }
        self.buckets.fill(self.spec, event_time.values())?;
        for (start, rows) in self.buckets.iter() {
            let count = match rows {
                Rows::All => event_time.len(),
                Rows::These(rows) => rows.len(),
            };
            if self.spec.last_end(start) <= purged {
                match rows {
                    Rows::All => updated.late.extend(0..count as u32),
                    Rows::These(rows) => updated.late.extend_from_slice(rows),
                }
                continue;
            }
            if self.spec.first_end(start) <= purged {
                updated.partly_late += count as u64;
            }
            updated.used += count as u64;
            self.sums.forget(self.spec, start);
            let table = &mut pane(&mut self.panes, start, &self.layout)?.table;
            table.upsert(&self.keys, rows, &mut self.groups)?;
            table.update(rows, &self.groups, arguments)?;
        }
        updated.late.sort_unstable();
        Ok(updated)
    }

    /// The smallest window end after `fired` of a window that holds a pane present here, in memory or cold.
    pub fn next_end(&self, fired: i64) -> Option<i64> {
        if self.emits == Emits::Rows {
            return None;
        }
        self.panes.keys().find_map(|&pane| self.spec.next_end(pane, fired))
    }

    /// The panes of the window that ends at `end`, as far as there are some here.
    fn panes_of(&self, end: i64) -> Box<dyn Iterator<Item = (i64, &Pane)> + '_> {
        match end {
            EVERYTHING => Box::new(self.panes.iter().map(|(start, pane)| (*start, pane))),
            end => Box::new(self.spec.panes(end).filter_map(|start| Some((start, self.panes.get(&start)?)))),
        }
    }

    /// What this worker, number `worker` of `workers`, has to contribute to the window that ends at `end`: one [`Partials`]
    /// per owner of lanes, of all groups or of those in `only`. The rows of its own lanes are not among them: [`merge`](Self::merge) takes those
    /// from the tables, so that a single worker copies nothing.
    pub fn close(
        &mut self,
        end: i64,
        only: Option<&ChangedGroups>,
        worker: usize,
        workers: usize,
    ) -> Result<Vec<Partials>, StateError> {
        let gap_ms = self.spec.session_gap_ms();
        if let (Emits::Rows, Some(within_ms), Some(candidates)) = (self.emits, gap_ms, only) {
            return self.remembered(within_ms, candidates, workers);
        }
        if gap_ms.is_none() && only.is_none() {
            self.make_sums(end)?;
        }
        let runs: Vec<Run> = self.panes_of(end).flat_map(|(_, pane)| pane.runs.iter().copied()).collect();
        let partials = || Partials { runs: runs.clone(), ..Partials::default() };
        let mut partials: Vec<Partials> = (0..workers).map(|_| partials()).collect();
        if workers == 1 {
            return Ok(partials);
        }
        for (later, table) in self.parts(end) {
            let mut hand_over = |group: u32| {
                let owner = key::owner_of(key::lane(table.hash(group)), workers);
                if owner != worker {
                    let partials = &mut partials[owner];
                    let rows =
                        later.map_or(&mut partials.rows, |pane| partials.later.entry(pane).or_default());
                    table.encode_row(group, rows);
                }
            };
            match only {
                None => table.groups().for_each(&mut hand_over),
                Some(only) => only.of_table(table, &(0..key::LANES)).into_iter().for_each(&mut hand_over),
            }
        }
        Ok(partials)
    }

    /// The tables of the window that ends at `end`; of sessions, each behind the pane that is settled with its pane.
    fn parts(&self, end: i64) -> Vec<(Option<i64>, &GroupTable)> {
        if self.spec.session_gap_ms().is_none() {
            return self.tables(end).into_iter().map(|table| (None, table)).collect();
        }
        let is_later = |start: &i64| end == EVERYTHING || *start > self.spec.start(end);
        self.panes_of(end).map(|(start, pane)| (Some(start).filter(is_later), &pane.table)).collect()
    }

    /// Emits the window that ends at `end`, or the groups of it that are in `only`, as far as this worker's `lanes` go: its own tables and what
    /// all workers, itself included, handed over by [`close`](Self::close), in the order of the workers. Nothing may be added in between. Without
    /// cold runs the rows are added up in one more table, unless there is but one to begin with.
    ///
    /// # Errors
    /// Those of `emit`; `Cold` and `Damaged` for what others handed over.
    pub fn merge(
        &mut self,
        end: i64,
        only: Option<&ChangedGroups>,
        partials: &[Partials],
        lanes: Range<u16>,
        cold: &dyn ColdStore,
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        match (self.spec.session_gap_ms(), only) {
            (Some(gap_ms), Some(only)) => self.totals(gap_ms, only, partials, lanes, cold, emit),
            (Some(gap_ms), None) => self.settle(gap_ms, end, partials, lanes, cold, emit),
            (None, only) => self.add_up(end, only, partials, lanes, cold, emit),
        }
    }

    fn add_up(
        &self,
        end: i64,
        only: Option<&ChangedGroups>,
        partials: &[Partials],
        lanes: Range<u16>,
        cold: &dyn ColdStore,
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let tables = self.tables(end);
        let rows: Vec<&EncodedRows> =
            partials.iter().map(|partial| &partial.rows).filter(|rows| !rows.is_empty()).collect();
        let runs = partials.iter().flat_map(|partial| partial.runs.iter().copied());
        let start = self.spec.start(end);
        let mut emit = |Results { groups, aggregates, failed }: Results| {
            emit(WindowRows { groups, bounds: Bounds::One { start, end }, aggregates, failed })
        };
        let mut merged = GroupTable::new(self.layout.clone())?;
        if let Some(only) = only {
            for table in tables {
                merged.merge_groups(table, &only.of_table(table, &lanes))?;
            }
            for run in runs {
                merged.merge_rows(&only.of_run(run, &lanes, cold)?)?;
            }
        } else if partials.iter().any(|partial| !partial.runs.is_empty()) {
            let merge = SortedMerge::new(tables.into_iter(), rows.into_iter(), runs, lanes, cold)?;
            return merge::emit_merge(&self.layout, merge, start, &mut emit);
        } else if let ([table], []) = (tables.as_slice(), rows.as_slice())
            && lanes == (0..key::LANES)
        {
            return merge::emit_table(table, start, &mut emit);
        } else {
            for table in tables {
                merged.merge_table(table, lanes.clone())?;
            }
        }
        for rows in rows {
            merged.merge_rows(rows)?;
        }
        merge::emit_table(&merged, start, &mut emit)
    }

    /// Drops the panes whose last window ends at or before `purged`, with their runs.
    ///
    /// # Errors
    /// `Cold` if a run cannot be removed.
    pub fn purge(&mut self, purged: i64, cold: &dyn ColdStore) -> Result<(), StateError> {
        while let Some(first) = self.panes.first_entry()
            && self.spec.last_end(*first.key()) <= purged
        {
            let (start, pane) = first.remove_entry();
            self.sums.forget(self.spec, start);
            for run in pane.runs {
                cold.remove(run)?;
            }
        }
        Ok(())
    }

    /// Lets go of what can be computed again. Returns the bytes freed.
    pub fn let_go(&mut self) -> u64 {
        self.sums.let_go(self.panes.keys().next_back().copied()) as u64
    }

    /// Moves the largest table into the cold store, as a run of the generation that `next_generation` names. Beyond
    /// [`MAX_RUNS`] runs the pane's runs and the table become one run. Returns the bytes freed, 0 if no table has a row. What has changed in
    /// panes of windows up to `emitted`, which are to be emitted again, is remembered.
    ///
    /// # Errors
    /// `Cold` if the run cannot be written, `Damaged` if an older one cannot be read.
    pub fn evict(
        &mut self,
        cold: &dyn ColdStore,
        emitted: Option<i64>,
        next_generation: &mut dyn FnMut() -> u64,
    ) -> Result<u64, StateError> {
        let filled = self.panes.iter_mut().filter(|(_, pane)| !pane.table.is_empty());
        let Some((&start, pane)) = filled.max_by_key(|(_, pane)| pane.table.memory_bytes()) else {
            return Ok(0);
        };
        self.sums.forget(self.spec, start);
        let run = Run { step: self.id, pane: start, generation: next_generation() };
        if is_planted(Planted::OlderGenerationLost) {
            pane.runs.clear();
        }
        if pane.runs.len() < MAX_RUNS {
            merge::ingest_table(&pane.table, run, cold)?;
        } else {
            merge::ingest_merged(&pane.table, &pane.runs, run, cold)?;
            for older in pane.runs.drain(..) {
                cold.remove(older)?;
            }
        }
        pane.runs.push(run);
        // The rows are in the run now: their extents must not come back beside it.
        pane.rewrite = !is_planted(Planted::RowsDoubledByEviction);
        if is_planted(Planted::RowsLostByEviction) && pane.table.dirty_groups() > 0 {
            pane.runs.pop();
        }
        let emitted = emitted.filter(|_| !is_planted(Planted::ChangesLostByEviction));
        if emitted.is_some_and(|emitted| self.spec.first_end(start) <= emitted) {
            for group in pane.table.changed() {
                pane.unsent.push_hashed(pane.table.key(group), pane.table.hash(group));
            }
        }
        for group in pane.table.pending() {
            pane.pending.push_hashed(pane.table.key(group), pane.table.hash(group));
        }
        let evicted = std::mem::replace(&mut pane.table, GroupTable::new(self.layout.clone())?);
        Ok(evicted.memory_bytes() as u64)
    }

    /// All panes, ascending, with what changed since the last freeze.
    pub fn freeze(&mut self) -> Vec<FrozenPane> {
        let early = self.early.as_ref();
        let frozen = self.panes.iter_mut().map(|(&start, pane)| {
            if let Some(early) = early {
                // Others are in windows that have not begun.
                pane.keep_pending(early.emitted.is_some_and(|fired| start <= fired));
            }
            FrozenPane { pane: start, change: pane.freeze(), runs: pane.runs.clone() }
        });
        frozen.collect()
    }

    /// Makes the next freeze write the whole pane, so that its older extents die. Without effect if the pane is gone.
    pub fn rewrite(&mut self, pane: i64) {
        if let Some(pane) = self.panes.get_mut(&pane) {
            pane.rewrite = true;
        }
    }

    /// Whether some pane has runs in the cold store.
    pub fn has_runs(&self) -> bool {
        self.panes.values().any(|pane| !pane.runs.is_empty())
    }

    /// Bytes held by tables and scratch memory, unused capacity included.
    pub fn memory_bytes(&self) -> u64 {
        let scratch = self.keys.memory_bytes() + self.groups.capacity() * 4 + self.buckets.memory_bytes();
        (self.pane_bytes() + self.sums.memory_bytes() + scratch) as u64
    }

    fn pane_bytes(&self) -> usize {
        let of_pane = |pane: &Pane| {
            pane.table.memory_bytes() + pane.unsent.memory_bytes() + pane.pending.memory_bytes()
        };
        self.panes.values().map(of_pane).sum()
    }

    /// Groups in memory, over all panes.
    pub fn groups(&self) -> u64 {
        self.panes.values().map(|pane| pane.table.len() as u64).sum()
    }

    /// Number of windows after the fired frontier that hold a pane present here.
    pub fn open_windows(&self, fired: i64) -> u64 {
        if self.emits == Emits::Rows {
            return 0;
        }
        let mut counted_to = fired;
        let mut windows = 0;
        for &pane in self.panes.keys() {
            if let Some(first) = self.spec.next_end(pane, counted_to) {
                let last = self.spec.last_end(pane);
                windows += ((last - first) / self.spec.every_ms() + 1) as u64;
                counted_to = last;
            }
        }
        windows
    }
}
