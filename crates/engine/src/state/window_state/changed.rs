//! What workers tell each other before something is emitted again.

use std::ops::{Range, RangeInclusive};

use crate::state::StateError;
use crate::state::cold::{ColdStore, Run};
use crate::state::key::{self, Keys};
use crate::state::rows::EncodedRows;
use crate::state::table::GroupTable;
use hashbrown::HashTable;

/// What one worker tells: the groups of a window that have changed since it was last emitted; or the keys of rows that wait, which may be duplicates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    /// Keys; one may occur several times.
    pub keys: Keys,
    /// Of rows that may be duplicates, where each belongs.
    pub places: Vec<Place>,
}

/// Where a row belongs among others of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Event time, milliseconds.
    pub time: i64,
    /// Partition of its record; -1 without one.
    pub partition: i32,
    /// Offset of its record; 0 without one.
    pub offset: i64,
    /// Hash of its record's topic; 0 without one.
    pub topic: i64,
}

/// A row that may be a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Place of its key among the [`ChangedGroups`].
    pub group: u32,
    pub place: Place,
    /// Who has it.
    pub worker: u32,
    /// Which of the rows that this worker has told of.
    pub row: u32,
}

/// What all workers have told.
#[derive(Debug, Default)]
pub struct ChangedGroups {
    keys: Keys,
    /// Places in `keys`, each key once.
    index: HashTable<u32>,
    /// Rows that may be duplicates, by key and then in their order.
    candidates: Vec<Candidate>,
}

impl ChangedGroups {
    /// What the workers told, in their order.
    pub fn new<'c>(of_workers: impl Iterator<Item = &'c Changed>) -> ChangedGroups {
        let mut groups = ChangedGroups::default();
        for (worker, changed) in of_workers.enumerate() {
            for row in 0..changed.keys.len() {
                let group = groups.add(changed.keys.get(row), changed.keys.hash(row));
                if let Some(place) = changed.places.get(row) {
                    let (worker, row) = (worker as u32, row as u32);
                    groups.candidates.push(Candidate { group, place: *place, worker, row });
                }
            }
        }
        groups.candidates.sort_unstable();
        groups
    }

    fn add(&mut self, key: &[u8], hash: u64) -> u32 {
        if let Some(place) = self.index.find(hash, |place| self.keys.get(*place as usize) == key) {
            return *place;
        }
        let place = self.keys.len() as u32;
        self.keys.push_hashed(key, hash);
        let keys = &self.keys;
        self.index.insert_unique(hash, place, |place| keys.hash(*place as usize));
        place
    }

    /// A key, by its place, and its hash.
    pub(super) fn key(&self, group: u32) -> (&[u8], u64) {
        (self.keys.get(group as usize), self.keys.hash(group as usize))
    }

    /// The rows that may be duplicates, by key and then in their order.
    pub(super) fn by_group(&self) -> impl Iterator<Item = (u32, &[Candidate])> {
        let of_key = self.candidates.chunk_by(|a, b| a.group == b.group);
        of_key.filter_map(|candidates| Some((candidates.first()?.group, candidates)))
    }

    /// From when to when each key has such rows, milliseconds.
    pub(super) fn spans(&self) -> impl Iterator<Item = (u32, RangeInclusive<i64>)> {
        let span = |(group, candidates): (u32, &[Candidate])| {
            Some((group, candidates.first()?.place.time..=candidates.last()?.place.time))
        };
        self.by_group().filter_map(span)
    }

    /// For each key, whether a worker has such rows of it.
    pub(super) fn groups_of(&self, worker: usize) -> Vec<bool> {
        let mut groups = vec![false; self.keys.len()];
        let own = self.candidates.iter().filter(|candidate| candidate.worker as usize == worker);
        own.for_each(|candidate| groups[candidate.group as usize] = true);
        groups
    }

    /// All keys, with their hashes.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&[u8], u64)> {
        (0..self.keys.len()).map(|row| (self.keys.get(row), self.keys.hash(row)))
    }

    fn keys_of(&self, lanes: &Range<u16>) -> impl Iterator<Item = (&[u8], u64)> {
        self.keys().filter(|(_, hash)| lanes.contains(&key::lane(*hash)))
    }

    /// Those of a table's groups, in these lanes, that are among them.
    pub(super) fn of_table(&self, table: &GroupTable, lanes: &Range<u16>) -> Vec<u32> {
        self.keys_of(lanes).filter_map(|(key, hash)| table.find(key, hash)).collect()
    }

    /// The rows of a run, in these lanes, of groups that are among them.
    pub(super) fn of_run(
        &self,
        run: Run,
        lanes: &Range<u16>,
        cold: &dyn ColdStore,
    ) -> Result<EncodedRows, StateError> {
        let mut keys: Vec<_> = self.keys_of(lanes).map(|(key, hash)| (key::lane(hash), key)).collect();
        keys.sort_unstable();
        let mut rows = EncodedRows::default();
        for ((_, key), state) in keys.iter().zip(cold.get(run, &keys)?) {
            if let Some(state) = state {
                rows.push(key, |out| out.extend_from_slice(&state));
            }
        }
        Ok(rows)
    }
}
