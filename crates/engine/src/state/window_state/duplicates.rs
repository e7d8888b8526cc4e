//! Which rows a deduplication keeps.
//!
//! Of rows with the same key that are no further apart in event time than `within`, one is kept: one that a row of an earlier epoch has been kept for
//! never, and of those that came in one epoch the first by event time, partition and offset. So no two kept rows of a key are within
//! `within` of each other, and each row that is not kept is within it of one that is.
//!
//! What is remembered of a kept row is its key and its time, with the worker that has kept it, in the pane of its time. As a pane is no longer than `within`, it has
//! one time for a key, on all workers together. Rows wait for the barrier as **candidates**. There each worker tells all others the keys of its
//! candidates, and where they belong ([`Changed`]); then each hands all others the times that it remembers of those keys ([`Partials`]);
//! and then each worker knows enough to decide about its own candidates alone, and all decide alike.

use std::collections::BTreeMap;
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
use crate::state::cold::ColdStore;
use crate::state::key;
use crate::state::rows::EncodedRows;
use crate::state::table::GroupTable;

/// A group of [`ChangedGroups`], by its place there, and when a row of it was kept, milliseconds.
type Kept = (u32, i64);

impl WindowState {
    /// When rows were kept here, in memory, of the keys of `candidates`; possibly some more than could matter.
    pub(super) fn kept(&self, within_ms: i64, candidates: &ChangedGroups) -> Result<Vec<Kept>, StateError> {
        let mut kept = vec![];
        for (start, pane) in &self.panes {
            let (mut places, mut groups) = (vec![], vec![]);
            for (place, first, last) in candidates.spans() {
                let (key, hash) = candidates.key(place);
                if self.is_near(*start, within_ms, first..=last)
                    && let Some(group) = pane.table.find(key, hash)
                {
                    places.push(place);
                    groups.push(group);
                }
            }
            let mut found = GroupTable::new(self.layout.clone())?;
            found.merge_groups(&pane.table, &groups)?;
            kept.extend(places.into_iter().zip(events(&found, FIRST_EVENT)?.values().iter().copied()));
        }
        Ok(kept)
    }

    /// Whether a row in a pane can be within `within_ms` of these times.
    fn is_near(&self, pane: i64, within_ms: i64, times: RangeInclusive<i64>) -> bool {
        pane - within_ms <= *times.end() && self.spec.pane_end(pane) + within_ms > *times.start()
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

    /// When rows of these groups were kept, of which all that is left are rows of cold runs.
    fn kept_cold(
        &self,
        within_ms: i64,
        own: &[bool],
        candidates: &ChangedGroups,
        partials: &[Partials],
        cold: &dyn ColdStore,
    ) -> Result<Vec<Kept>, StateError> {
        let mut kept = vec![];
        for run in partials.iter().flat_map(|partial| &partial.runs) {
            let spans = candidates.spans().filter(|(group, first, last)| {
                own[*group as usize] && self.is_near(run.pane, within_ms, *first..=*last)
            });
            let keys = spans.map(|(group, ..)| {
                let (key, hash) = candidates.key(group);
                (group, key::lane(hash), key)
            });
            let mut keys: Vec<_> = keys.collect();
            keys.sort_unstable_by_key(|(_, lane, key)| (*lane, *key));
            let wanted: Vec<(u16, &[u8])> = keys.iter().map(|(_, lane, key)| (*lane, *key)).collect();
            let states = cold.get(*run, &wanted)?;
            let (mut places, mut rows) = (vec![], EncodedRows::default());
            for ((place, _, key), state) in keys.iter().zip(states) {
                if let Some(state) = state {
                    places.push(*place);
                    rows.push(key, |out| out.extend_from_slice(&state));
                }
            }
            let mut found = GroupTable::new(self.layout.clone())?;
            found.merge_rows(&rows)?;
            kept.extend(places.into_iter().zip(events(&found, FIRST_EVENT)?.values().iter().copied()));
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
