//! Settling a pane of sessions: which of its events are whole sessions, and which go on.
//!
//! A key's events in one pane belong to one session, as a pane is no longer than the gap. So a pane keeps one row for a key, as for any
//! window, with its first and last event among the aggregates. When time has passed the pane by the gap, nothing that could
//! join its events can come any more but what later panes hold already. Then each row
//!
//! - **goes on**, where the key has a row in a later pane that begins within the gap behind the last event: the two are added up there, and the
//!   session will be settled with that pane;
//! - **is a whole session** otherwise, and is emitted.
//!
//! A record costs what it costs in any window, wherever it falls into a session and however many sessions it joins; no older state is
//! looked up when it comes. What that costs is time: a session is emitted when its last pane is settled, up to a pane (an eighth of the
//! gap, where that is a whole number of milliseconds) after the gap behind its last event has passed.
//!
//! **Without windows** (`group_by` with a `ttl`) the same panes hold totals that go on. At a barrier the totals of every key that has changed are those of
//! its newest session, whose gap is the `ttl`: a key that has had no event for so long begins anew. Settling is how its rows go.
//!
//! Rows that several workers have of a key, and rows in the cold store, are brought together by the owner of the key's lane. What goes on stays
//! with the owner.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::kernels::arity::unary;
use arrow::datatypes::Int64Type;
use onceflow_protocol::planted::{Planted, is_planted};

use super::{Bounds, ChangedGroups, Emits, Partials, WindowRows, WindowState, pane, rows_of_run};
use crate::state::StateError;
use crate::state::cold::{ColdStore, Run};
use crate::state::key;
use crate::state::merge::{self, CHUNK_ROWS, Results};
use crate::state::rows::EncodedRows;
use crate::state::table::{GroupTable, Layout};

/// Where cold runs take part, memory holds the rows of this many lanes at once.
const LANES_AT_ONCE: u16 = 4;

/// Places of a session's bounds among the aggregates of its step.
pub(super) const FIRST_EVENT: usize = 0;
pub(super) const LAST_EVENT: usize = 1;

/// Rows of later panes that are in no table of this worker, and the first events of those.
type Brought = BTreeMap<i64, (GroupTable, Int64Array)>;

/// What becomes of the rows of a pane.
#[derive(Default)]
struct Sorted {
    /// Groups that are whole sessions.
    whole: Vec<u32>,
    /// Groups that go on, by the pane in which they do.
    goes_on: BTreeMap<i64, Vec<u32>>,
}

impl WindowState {
    /// Settles the first pane of the window that ends at `end`, as far as `lanes` go, with what [`close`](WindowState::close) has of all
    /// workers. The pane's table is empty then.
    ///
    /// # Errors
    /// Those of `emit`; `Cold` and `Damaged` for what others handed over; `TooLarge` as [`GroupTable::upsert`].
    pub(super) fn settle(
        &mut self,
        gap_ms: i64,
        end: i64,
        partials: &[Partials],
        lanes: Range<u16>,
        cold: &dyn ColdStore,
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let settled = self.spec.start(end);
        let mut own = GroupTable::new(self.layout.clone())?;
        if let Some(pane) = self.panes.get_mut(&settled) {
            std::mem::swap(&mut own, &mut pane.table);
        }
        let rows = partials.iter().map(|partial| &partial.rows).filter(|rows| !rows.is_empty());
        let runs: Vec<Run> = partials.iter().flat_map(|partial| partial.runs.iter().copied()).collect();
        let later = partials.iter().flat_map(|partial| &partial.later).map(|(pane, rows)| (*pane, rows));
        let handed = self.brought(later)?;
        let own_later = self.own_later(end)?;
        if runs.is_empty()
            && partials.iter().all(|partial| partial.rows.is_empty())
            && lanes == (0..key::LANES)
        {
            return self.settle_groups(gap_ms, &own, &own_later, &[&handed], emit);
        }
        let mut theirs = GroupTable::new(self.layout.clone())?;
        for rows in rows {
            theirs.merge_rows(rows)?;
        }
        let at_once = if runs.is_empty() { key::LANES } else { LANES_AT_ONCE };
        for first in lanes.clone().step_by(usize::from(at_once)) {
            let some = first..lanes.end.min(first + at_once);
            let mut table = GroupTable::new(self.layout.clone())?;
            table.merge_table(&own, some.clone())?;
            table.merge_table(&theirs, some.clone())?;
            let mut cold_later = vec![];
            for run in &runs {
                let rows = rows_of_run(*run, some.clone(), cold)?;
                match run.pane == settled {
                    true => table.merge_rows(&rows)?,
                    false if is_planted(Planted::SessionBlindToRuns) => {}
                    false => cold_later.push((run.pane, rows)),
                }
            }
            let cold_later = self.brought(cold_later.iter().map(|(pane, rows)| (*pane, rows)))?;
            self.settle_groups(gap_ms, &table, &own_later, &[&handed, &cold_later], emit)?;
        }
        Ok(())
    }

    /// The first events of the groups in this worker's own tables of the panes behind the one that is settled.
    fn own_later(&self, end: i64) -> Result<BTreeMap<i64, Int64Array>, StateError> {
        let panes = self.spec.panes(end).skip(1).filter_map(|start| Some((start, self.panes.get(&start)?)));
        panes.map(|(start, pane)| Ok((start, events(&pane.table, FIRST_EVENT)?))).collect()
    }

    /// Tables of rows of panes.
    fn brought<'r>(&self, rows: impl Iterator<Item = (i64, &'r EncodedRows)>) -> Result<Brought, StateError> {
        let mut tables: BTreeMap<i64, GroupTable> = BTreeMap::new();
        for (pane, rows) in rows {
            table_of(&mut tables, pane, &self.layout)?.merge_rows(rows)?;
        }
        let dated = |(pane, table)| {
            let firsts = events(&table, FIRST_EVENT)?;
            Ok((pane, (table, firsts)))
        };
        tables.into_iter().map(dated).collect()
    }

    /// Emits the groups of `table` that are whole sessions, and moves the others on. `own_later` may be of before others have moved: no key
    /// is settled twice.
    fn settle_groups(
        &mut self,
        gap_ms: i64,
        table: &GroupTable,
        own_later: &BTreeMap<i64, Int64Array>,
        brought: &[&Brought],
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let Sorted { whole, goes_on } = self.sort_out(gap_ms, table, own_later, brought)?;
        if !matches!(self.emits, Emits::Totals | Emits::Rows) {
            self.emit_sessions(table, &whole, emit, |starts, last_events| Bounds::Sessions {
                starts,
                ends: unary(&last_events, |last| last + gap_ms),
            })?;
        }
        for (later, groups) in goes_on {
            let later = pane(&mut self.panes, later, &self.layout)?;
            later.table.merge_groups(table, &groups)?;
            if is_planted(Planted::SessionMovedUnwritten) {
                later.table.forget_changes();
            }
        }
        Ok(())
    }

    fn emit_sessions(
        &self,
        table: &GroupTable,
        groups: &[u32],
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
        bounds: impl Fn(Int64Array, Int64Array) -> Bounds,
    ) -> Result<(), StateError> {
        for some in groups.chunks(CHUNK_ROWS) {
            let mut sessions = GroupTable::new(self.layout.clone())?;
            sessions.merge_groups(table, some)?;
            let starts = events(&sessions, FIRST_EVENT)?;
            let Results { groups, mut aggregates, failed } = merge::sessions(&sessions, &starts)?;
            aggregates.drain(FIRST_EVENT..=LAST_EVENT);
            let bounds = bounds(starts, events(&sessions, LAST_EVENT)?);
            emit(WindowRows { groups, bounds, aggregates, failed })?;
        }
        Ok(())
    }

    /// Emits what the groups in `only` add up to since they were last silent for longer than `gap_ms`, as far as `lanes` go. Changes nothing.
    ///
    /// # Errors
    /// Those of [`settle`](Self::settle).
    pub(super) fn totals(
        &self,
        gap_ms: i64,
        only: &ChangedGroups,
        partials: &[Partials],
        lanes: Range<u16>,
        cold: &dyn ColdStore,
        emit: &mut dyn FnMut(WindowRows) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        // What there is of these groups, by pane.
        let mut rows: BTreeMap<i64, GroupTable> = BTreeMap::new();
        for (start, pane) in &self.panes {
            let groups = only.of_table(&pane.table, &lanes);
            table_of(&mut rows, *start, &self.layout)?.merge_groups(&pane.table, &groups)?;
        }
        for (pane, handed) in partials.iter().flat_map(|partial| &partial.later) {
            table_of(&mut rows, *pane, &self.layout)?.merge_rows(handed)?;
        }
        for run in partials.iter().flat_map(|partial| &partial.runs) {
            let found = only.of_run(*run, &lanes, cold)?;
            table_of(&mut rows, run.pane, &self.layout)?.merge_rows(&found)?;
        }
        let mut newest_first = vec![];
        for table in rows.values().rev() {
            newest_first.push((table, events(table, FIRST_EVENT)?, events(table, LAST_EVENT)?, vec![]));
        }
        for (key, hash) in only.keys() {
            let mut begins = None;
            for (table, firsts, lasts, picked) in &mut newest_first {
                let Some(group) = table.find(key, hash) else { continue };
                let (first, last) = (firsts.value(group as usize), lasts.value(group as usize));
                if begins.is_some_and(|begins| begins - last > gap_ms) {
                    break;
                }
                begins = Some(begins.map_or(first, |begins| first.min(begins)));
                picked.push(group);
            }
        }
        let mut totals = GroupTable::new(self.layout.clone())?;
        for (table, _, _, picked) in &newest_first {
            totals.merge_groups(table, picked)?;
        }
        let groups: Vec<u32> = totals.groups().collect();
        self.emit_sessions(&totals, &groups, emit, |_, last_events| Bounds::None { last_events })
    }

    fn sort_out(
        &self,
        gap_ms: i64,
        table: &GroupTable,
        own_later: &BTreeMap<i64, Int64Array>,
        brought: &[&Brought],
    ) -> Result<Sorted, StateError> {
        let own =
            own_later.iter().filter_map(|(pane, firsts)| Some((*pane, &self.panes.get(pane)?.table, firsts)));
        let brought = brought.iter().copied().flatten().map(|(pane, (table, firsts))| (*pane, table, firsts));
        let mut later: Vec<_> = own.chain(brought).filter(|(.., firsts)| !firsts.is_empty()).collect();
        later.sort_by_key(|(pane, ..)| *pane);
        let lasts = events(table, LAST_EVENT)?;
        let mut sorted = Sorted::default();
        for group in table.groups() {
            let (key, hash) = (table.key(group), table.hash(group));
            let reach = lasts.value(group as usize) + gap_ms;
            let joins = |(_, later, firsts): &&(i64, &GroupTable, &Int64Array)| {
                // A group that is younger than the firsts is of another key's lane.
                let first = later.find(key, hash).and_then(|group| firsts.values().get(group as usize));
                first.is_some_and(|first| *first <= reach)
            };
            match later.iter().find(joins).filter(|_| !is_planted(Planted::SessionCutAtPane)) {
                Some((pane, ..)) => sorted.goes_on.entry(*pane).or_default().push(group),
                None => sorted.whole.push(group),
            }
        }
        Ok(sorted)
    }
}

/// The first or last events of a table's groups, milliseconds.
pub(super) fn events(table: &GroupTable, which: usize) -> Result<Int64Array, StateError> {
    let values = merge::values(table, which)?;
    let events = values.as_primitive_opt::<Int64Type>().filter(|events| events.null_count() == 0);
    events.cloned().ok_or_else(|| StateError::damaged("a row without its time"))
}

/// The table of a pane, made if it is not there.
fn table_of<'t>(
    tables: &'t mut BTreeMap<i64, GroupTable>,
    pane: i64,
    layout: &Arc<Layout>,
) -> Result<&'t mut GroupTable, StateError> {
    Ok(match tables.entry(pane) {
        Entry::Occupied(table) => table.into_mut(),
        Entry::Vacant(missing) => missing.insert(GroupTable::new(layout.clone())?),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};
    use arrow::datatypes::DataType;
    use onceflow_protocol::WindowSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::AggregateFunction::{Count, Max, Min, Sum};
    use crate::state::aggregate::AggregateSpec;
    use crate::state::cold::MemoryColdStore;

    const GAP: i64 = 16;

    fn layout() -> Arc<Layout> {
        let spec = |function, argument| AggregateSpec { function, argument, result: DataType::Int64 };
        let aggregates = vec![
            spec(Min, DataType::Int64),
            spec(Max, DataType::Int64),
            spec(Count, DataType::Null),
            spec(Sum, DataType::Int64),
        ];
        Arc::new(Layout::new(vec![DataType::Utf8], aggregates).unwrap())
    }

    /// Key, first event, end, count, sum.
    type Session = (String, i64, i64, i64, i64);

    /// Workers, and beside them the events that are in no session that is over.
    struct World {
        spec: WindowSpec,
        workers: Vec<WindowState>,
        cold: MemoryColdStore,
        generation: u64,
        purged: i64,
        model: BTreeMap<u8, Vec<i64>>,
    }

    impl World {
        fn batch(&mut self, worker: usize, rows: &[(u8, i64)]) {
            let keys = rows.iter().map(|(key, _)| Some(key.to_string())).collect::<StringArray>();
            let times = rows.iter().map(|(_, time)| Some(*time)).collect::<Int64Array>();
            let time: ArrayRef = Arc::new(times.clone());
            let arguments = [Some(time.clone()), Some(time.clone()), None, Some(time)];
            let worker = worker % self.workers.len();
            let updated =
                self.workers[worker].update(&[Arc::new(keys)], &arguments, &times, self.purged).unwrap();
            let every = self.spec.every_ms();
            let is_late = |time: i64| (time.div_euclid(every) + 1) * every + GAP <= self.purged;
            let late = (0..).zip(rows).filter(|(_, (_, time))| is_late(*time)).map(|(row, _)| row);
            assert_eq!(updated.late, late.collect::<Vec<u32>>());
            for (key, time) in rows.iter().filter(|(_, time)| !is_late(*time)) {
                self.model.entry(*key).or_default().push(*time);
            }
        }

        /// By definition: events of a key, in order, belong together as long as no gap is longer than `GAP`; and a session is over when the
        /// pane of its last event is settled.
        fn over(&mut self, purged: i64) -> Vec<Session> {
            let every = self.spec.every_ms();
            let mut over = vec![];
            for (key, events) in &mut self.model {
                events.sort_unstable();
                let mut open = vec![];
                for session in events.chunk_by(|a, b| b - a <= GAP) {
                    let (first, last) = (session[0], session[session.len() - 1]);
                    if (last.div_euclid(every) + 1) * every + GAP <= purged {
                        let count = session.len() as i64;
                        over.push((key.to_string(), first, last + GAP, count, session.iter().sum()));
                    } else {
                        open.extend_from_slice(session);
                    }
                }
                *events = open;
            }
            over.sort();
            over
        }

        fn barrier(&mut self, purged: i64) {
            let count = self.workers.len();
            let purged = purged.max(self.purged);
            let (mut frontier, mut emitted) = (self.purged, vec![]);
            while let Some(end) = self.workers.iter().filter_map(|state| state.next_end(frontier)).min()
                && end <= purged
            {
                frontier = end;
                let closed = self.workers.iter_mut().enumerate();
                let closed: Vec<Vec<Partials>> =
                    closed.map(|(at, state)| state.close(end, None, at, count).unwrap()).collect();
                for (owner, state) in self.workers.iter_mut().enumerate() {
                    let partials: Vec<Partials> = closed.iter().map(|owners| owners[owner].clone()).collect();
                    let lanes = key::lanes_of(owner, count);
                    let mut emit = |rows: WindowRows| {
                        let Bounds::Sessions { starts, ends } = &rows.bounds else { panic!("no sessions") };
                        let long = |at: usize| rows.aggregates[at].as_primitive::<Int64Type>();
                        for row in 0..starts.len() {
                            let key = rows.groups[0].as_string::<i32>().value(row).to_owned();
                            let (count, sum) = (long(0).value(row), long(1).value(row));
                            emitted.push((key, starts.value(row), ends.value(row), count, sum));
                        }
                        Ok(())
                    };
                    state.merge(end, None, &partials, lanes, &self.cold, &mut emit).unwrap();
                }
            }
            emitted.sort();
            assert_eq!(emitted, self.over(purged));
            self.purged = purged;
            for state in &mut self.workers {
                state.purge(purged, &self.cold).unwrap();
                state.freeze();
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Batch(usize, Vec<(u8, i64)>),
        Evict(usize),
        Barrier(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Time goes on with the steps; events lie around it.
        let rows = proptest::collection::vec((0u8..4, -60i64..60), 1..12);
        prop_oneof![
            4 => (0usize..3, rows).prop_map(|(worker, rows)| Step::Batch(worker, rows)),
            1 => (0usize..3).prop_map(Step::Evict),
            2 => (-40i64..40).prop_map(Step::Barrier),
        ]
    }

    proptest! {
        #[test]
        fn sessions_are_what_their_definition_says(
            workers in 1usize..4, steps in proptest::collection::vec(step(), 1..60),
        ) {
            let spec = WindowSpec::session(GAP).unwrap();
            let states = (0..workers).map(|_| WindowState::with_layout(7, spec, layout()));
            let mut world = World {
                spec,
                workers: states.collect(),
                cold: MemoryColdStore::new(),
                generation: 0,
                purged: i64::MIN,
                model: BTreeMap::new(),
            };
            for (at, step) in steps.into_iter().enumerate() {
                let now = 1_000 + at as i64 * 7;
                match step {
                    Step::Batch(worker, rows) => {
                        let rows: Vec<_> = rows.into_iter().map(|(key, time)| (key, now + time)).collect();
                        world.batch(worker, &rows);
                    }
                    Step::Evict(worker) => {
                        let World { generation, cold, workers, .. } = &mut world;
                        let worker = worker % workers.len();
                        let mut next = || { *generation += 1; *generation };
                        workers[worker].evict(&*cold, None, &mut next).unwrap();
                    }
                    Step::Barrier(behind) => world.barrier(now + behind),
                }
            }
            world.barrier(1_000_000);
            prop_assert!(world.model.values().all(Vec::is_empty));
        }
    }
}
