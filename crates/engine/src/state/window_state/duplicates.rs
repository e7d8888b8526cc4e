//! Which rows a deduplication keeps.
//!
//! Of rows with the same key that are no further apart in event time than `within`, one is kept: one of an earlier epoch before one of a later, and
//! of those that came in one epoch the first by event time, partition and offset. So no two kept rows of a key are within
//! `within` of each other, and each row that is not kept is within it of one that is.
//!
//! What is remembered of a kept row is its key and its time, with the worker that has kept it, in the pane of its time. As a pane is no longer
//! than `within`, it has one time for a key, on all workers together. Rows wait for the barrier as **candidates**. There each worker tells all others the keys of its
//! candidates, and where they belong ([`Changed`]); then each hands all others the times that it remembers of those keys ([`Partials`]);
//! and then each worker knows enough to decide about its own candidates alone, and all decide alike.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use onceflow_protocol::EventTime;
use onceflow_protocol::planted::{Planted, is_planted};

use super::changed::{Candidate, Changed, ChangedGroups};
use super::sessions::{FIRST_EVENT, events};
use super::{Partials, WindowState, pane};
use crate::state::StateError;
use crate::state::aggregate::Rows;
use crate::state::cold::{ColdStore, Run};
use crate::state::key;
use crate::state::rows::EncodedRows;
use crate::state::table::GroupTable;

/// A group of [`ChangedGroups`], by its place there, and when a row of it was kept, milliseconds.
type Kept = (u32, i64);

/// Lane and key of a row to look for, and the place of its group.
type Asked<'k> = (u16, &'k [u8], u32);

impl WindowState {
    /// What every worker gets to know from this one: when rows were kept here, in memory, of the keys of `candidates`, and which runs may say
    /// more. Possibly some more than could matter.
    pub(super) fn remembered(
        &self,
        within_ms: i64,
        candidates: &ChangedGroups,
        workers: usize,
    ) -> Result<Vec<Partials>, StateError> {
        let mut found: BTreeMap<i64, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for (place, times) in candidates.spans() {
            let (key, hash) = candidates.key(place);
            for (start, pane) in self.panes.range(self.near(within_ms, times)) {
                if !pane.runs.is_empty() {
                    touched.insert(*start);
                }
                if let Some(group) = pane.table.find(key, hash) {
                    let (places, groups) = found.entry(*start).or_default();
                    places.push(place);
                    groups.push(group);
                }
            }
        }
        let mut kept = vec![];
        for (start, (places, groups)) in found {
            let mut table = GroupTable::new(self.layout.clone())?;
            if let Some(pane) = self.panes.get(&start) {
                table.merge_groups(&pane.table, &groups)?;
            }
            kept.extend(dated(places, &table)?);
        }
        let runs = touched.iter().filter_map(|start| self.panes.get(start)).flat_map(|pane| &pane.runs);
        let partials = Partials { kept, runs: runs.copied().collect(), ..Partials::default() };
        Ok(vec![partials; workers])
    }

    /// The panes that can hold a row within `within_ms` of these times.
    fn near(&self, within_ms: i64, times: RangeInclusive<i64>) -> RangeInclusive<i64> {
        times.start() - within_ms - self.spec.every_ms()..=times.end() + within_ms
    }

    /// Decides which of worker `worker`'s candidates are kept, with what [`close`](WindowState::close) has of all workers, and remembers those. `told` is
    /// what it has told of them; the answer is their places there, ascending.
    ///
    /// # Errors
    /// `Cold` and `Damaged` for what others handed over; `TooLarge` as [`GroupTable::upsert`].
    pub fn keep(
        &mut self,
        candidates: &ChangedGroups,
        partials: &[Partials],
        worker: usize,
        told: &Changed,
        cold: &dyn ColdStore,
    ) -> Result<Vec<u32>, StateError> {
        let Some(within_ms) = self.spec.session_gap_ms() else {
            return Err(StateError::bug("a window keeps no rows"));
        };
        let own = candidates.groups_of(worker);
        let is_told = |from: &usize| *from == worker || !is_planted(Planted::DuplicateBlindToOthers);
        let handed = partials.iter().enumerate().filter(|(from, _)| is_told(from));
        let handed = handed.flat_map(|(_, partial)| partial.kept.iter().copied());
        let mut kept: Vec<Kept> = handed.filter(|(group, _)| own[*group as usize]).collect();
        if !is_planted(Planted::DuplicateBlindToRuns) {
            kept.extend(self.kept_cold(within_ms, &own, candidates, partials, cold)?);
        }
        kept.sort_unstable();
        let mut rows = vec![];
        for (group, candidates) in candidates.by_group().filter(|(group, _)| own[*group as usize]) {
            let from = kept.partition_point(|(other, _)| *other < group);
            let to = kept.partition_point(|(other, _)| *other <= group);
            rows.extend(first_of(candidates, &kept[from..to], within_ms, worker));
        }
        rows.sort_unstable();
        self.remember(told, &rows)?;
        Ok(rows)
    }

    /// When rows of these groups were kept, as far as cold runs say so.
    fn kept_cold(
        &self,
        within_ms: i64,
        own: &[bool],
        candidates: &ChangedGroups,
        partials: &[Partials],
        cold: &dyn ColdStore,
    ) -> Result<Vec<Kept>, StateError> {
        let mut runs: BTreeMap<i64, Vec<Run>> = BTreeMap::new();
        partials
            .iter()
            .flat_map(|partial| &partial.runs)
            .for_each(|run| runs.entry(run.pane).or_default().push(*run));
        let mut wanted: BTreeMap<Run, Vec<Asked<'_>>> = BTreeMap::new();
        for (place, times) in candidates.spans().filter(|(place, _)| own[*place as usize]) {
            let (key, hash) = candidates.key(place);
            for run in runs.range(self.near(within_ms, times)).flat_map(|(_, runs)| runs) {
                wanted.entry(*run).or_default().push((key::lane(hash), key, place));
            }
        }
        let mut kept = vec![];
        for (run, mut keys) in wanted {
            keys.sort_unstable();
            let asked: Vec<(u16, &[u8])> = keys.iter().map(|(lane, key, _)| (*lane, *key)).collect();
            let (mut places, mut rows) = (vec![], EncodedRows::default());
            for ((_, key, place), state) in keys.iter().zip(cold.get(run, &asked)?) {
                if let Some(state) = state {
                    places.push(*place);
                    rows.push(key, |out| out.extend_from_slice(&state));
                }
            }
            let mut table = GroupTable::new(self.layout.clone())?;
            table.merge_rows(&rows)?;
            kept.extend(dated(places, &table)?);
        }
        Ok(kept)
    }

    /// Remembers when these rows, ascending, were.
    fn remember(&mut self, Changed { keys, places }: &Changed, rows: &[u32]) -> Result<(), StateError> {
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values(places.iter().map(|place| place.time)));
        let mut by_pane: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for row in rows {
            let time = places[*row as usize].time;
            let time = EventTime::new(time)
                .ok_or_else(|| StateError::bug(format!("event time {time} is out of range")))?;
            by_pane.entry(self.spec.pane_of(time)).or_default().push(*row);
        }
        for (start, rows) in by_pane {
            let table = &mut pane(&mut self.panes, start, &self.layout)?.table;
            table.upsert(keys, Rows::These(&rows), &mut self.groups)?;
            table.update(Rows::These(&rows), &self.groups, &[Some(times.clone())])?;
            if is_planted(Planted::DuplicateUnwritten) {
                table.forget_changes();
            }
        }
        Ok(())
    }
}

/// When the rows were kept that these groups' only table remembers, group by group.
fn dated(places: Vec<u32>, table: &GroupTable) -> Result<impl Iterator<Item = Kept>, StateError> {
    let times = events(table, FIRST_EVENT)?;
    Ok(places.into_iter().zip(times.values().to_vec()))
}

/// The rows of `worker` among the candidates of a key, in their order, that are kept. `kept`: when others were, ascending.
fn first_of(candidates: &[Candidate], kept: &[Kept], within_ms: i64, worker: usize) -> Vec<u32> {
    let mut rows = vec![];
    let mut last: Option<i64> = None;
    for candidate in candidates {
        let time = candidate.place.time;
        let next = kept.partition_point(|(_, kept)| *kept < time - within_ms);
        let is_known = kept.get(next).is_some_and(|(_, kept)| *kept <= time + within_ms);
        // Candidates come in order of time: the last that is kept is the nearest.
        if is_known || last.is_some_and(|last| time - last <= within_ms) {
            continue;
        }
        last = Some(time);
        if candidate.worker as usize == worker {
            rows.push(candidate.row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use onceflow_protocol::WindowSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::AggregateFunction::Min;
    use crate::plan::Emits;
    use crate::state::aggregate::AggregateSpec;
    use crate::state::cold::MemoryColdStore;
    use crate::state::key::Keys;
    use crate::state::table::Layout;
    use crate::state::window_state::Place;

    /// Key, time, partition.
    type Row = (i64, i64, i32);

    fn workers(within_ms: i64, count: usize) -> Vec<WindowState> {
        let time = AggregateSpec { function: Min, argument: DataType::Int64, result: DataType::Int64 };
        let layout = Arc::new(Layout::new(vec![DataType::Int64], vec![time]).unwrap());
        let spec = WindowSpec::session(within_ms).unwrap();
        let state =
            || WindowState { emits: Emits::Rows, ..WindowState::with_layout(1, spec, layout.clone()) };
        (0..count).map(|_| state()).collect()
    }

    fn told(rows: &[Row], first_offset: i64) -> Changed {
        let mut keys = Keys::default();
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(key, ..)| *key)));
        keys.encode(&[column], rows.len()).unwrap();
        let place = |((_, time, partition), offset): (&Row, i64)| Place {
            time: *time,
            partition: *partition,
            offset,
            topic: 7,
        };
        Changed { keys, places: rows.iter().zip(first_offset..).map(place).collect() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Against the rule, taken at its word, whatever is evicted meanwhile and whichever worker has a row.
        #[test]
        fn of_duplicates_one_is_kept(
            epochs in prop::collection::vec(
                prop::collection::vec((0i64..3, 1_000i64..1_080, 0i32..6), 1..12), 1..6),
            (within_ms, count) in (1i64..30, 1usize..4),
            evictions in prop::collection::vec(0usize..6, 6),
        ) {
            let cold = MemoryColdStore::new();
            let mut states = workers(within_ms, count);
            let (mut generation, mut known) = (0, vec![]);
            for (epoch, rows) in epochs.iter().enumerate() {
                let of_worker = |at: usize| -> Vec<Row> {
                    rows.iter().filter(|row| row.2 as usize % count == at).copied().collect()
                };
                let all: Vec<Changed> =
                    (0..count).map(|at| told(&of_worker(at), 100 * epoch as i64)).collect();
                let groups = ChangedGroups::new(all.iter());
                let handed: Vec<Vec<Partials>> = states
                    .iter()
                    .map(|state| state.remembered(within_ms, &groups, count).unwrap())
                    .collect();

                let mut expected = vec![];
                let mut candidates: Vec<(i64, Place, usize, u32)> = vec![];
                for (at, told) in all.iter().enumerate() {
                    let rows = of_worker(at);
                    candidates.extend((0u32..).zip(&told.places).map(|(row, place)| (rows[row as usize].0, *place, at, row)));
                }
                candidates.sort();
                for (key, place, at, row) in candidates {
                    let near = |kept: &(i64, i64)| kept.0 == key && (kept.1 - place.time).abs() <= within_ms;
                    if !known.iter().any(near) {
                        known.push((key, place.time));
                        expected.push((at, row));
                    }
                }
                expected.sort_unstable();
                let mut kept = vec![];
                for (at, state) in states.iter_mut().enumerate() {
                    let partials: Vec<Partials> = handed.iter().map(|parts| parts[at].clone()).collect();
                    let rows = state.keep(&groups, &partials, at, &all[at], &cold).unwrap();
                    kept.extend(rows.into_iter().map(|row| (at, row)));
                }
                prop_assert_eq!(kept, expected);
                for state in states.iter_mut().skip(evictions[epoch]).take(1) {
                    state.evict(&cold, None, &mut || { generation += 1; generation }).unwrap();
                }
            }
        }
    }
}
