//! Where panes go that memory cannot hold: sorted runs, written once, read whole or asked for single keys.
//!
//! A **run** is everything that one eviction wrote of one pane: rows in ascending order of `(lane, group key)`, each with its
//! aggregate state. A pane may have several runs, told apart by their generation; their rows for the same key are partial
//! states that add up. Runs never change. RocksDB implements this in the shell, an ordered map in tests and in the simulator.
//!
//! All calls come from workers between barriers, or while every worker stands at a barrier; so whoever takes a snapshot
//! there finds no half of an epoch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Names one run. `step` is the durable number of a step's state, `pane` the start of the pane (ms), `generation` is never
/// used twice in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Run {
    /// Durable number of the step's state.
    pub step: u32,
    /// Start of the pane, milliseconds since the epoch.
    pub pane: i64,
    /// Never used twice in a shard.
    pub generation: u64,
}

/// A row of a run: lane, group key, aggregate state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdRow {
    /// Lane of the key.
    pub lane: u16,
    /// Group key in the engine's encoding.
    pub key: Vec<u8>,
    /// Aggregate state in the engine's encoding.
    pub state: Vec<u8>,
}

/// What went wrong in the store; the message names the file where one is known. The variants differ in what a restart
/// would bring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColdError {
    /// The store could not do it (disk full, I/O). The epoch fails; a restart may help.
    #[error("{0}")]
    Failed(String),
    /// What comes back is not what was written. A restart would meet it again, so the pipeline stops.
    #[error("{0}")]
    Damaged(String),
}

/// Rows of a scan, ascending by `(lane, key)`.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<ColdRow, ColdError>> + 'a>;

/// Lane, group key and aggregate state of a row that somebody else holds.
pub type BorrowedRow<'a> = (u16, &'a [u8], &'a [u8]);

/// Rows on their way into a run, ascending by `(lane, key)`, each once. Each is lent until the next, so that a run of any size
/// passes through in little memory; and it may fail, for the rows of a merge come from other runs.
pub trait RunRows {
    /// The next row; `None` after the last.
    fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError>;
}

/// Storage of runs.
pub trait ColdStore: Send + Sync {
    /// Writes a run whole. Not durable before a snapshot. After an error, its own or one of `rows`, no part of the run remains.
    fn ingest(&self, run: Run, rows: &mut dyn RunRows) -> Result<(), ColdError>;

    /// The rows of a run in these lanes.
    fn scan(&self, run: Run, lanes: Range<u16>) -> Result<Scan<'_>, ColdError>;

    /// The states of those of these keys that a run has, each given as lane and group key, in their order: `None` where the run has no such key.
    fn get(&self, run: Run, keys: &[(u16, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, ColdError>;

    /// Forgets a run.
    fn remove(&self, run: Run) -> Result<(), ColdError>;
}

/// One file of a cold store as the checkpoint storage holds it. Names, lengths and checksums go into the manifest.
///
/// A restore compares a table's length and tail, which costs the same whatever its size, and reads everything else whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ColdFile {
    /// Name in the checkpoint storage, relative to the shard's directory; never used twice.
    pub stored: String,
    /// Name in the store's working directory.
    pub local: String,
    /// Length in bytes.
    pub length: u64,
    /// xxh3-64 of the whole content, taken when the file was stored.
    pub checksum: u64,
    /// xxh3-64 of the last [`TAIL_BYTES`] bytes (of everything, where the file is shorter).
    pub tail: u64,
}

/// How many bytes at its end [`ColdFile::tail`] covers: a table's footer lies within them.
pub const TAIL_BYTES: u64 = 64;

/// A cold store at one barrier: every file that a restore needs, also those that earlier snapshots stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ColdSnapshot {
    /// Files in ascending order of their name in the working directory.
    pub files: Vec<ColdFile>,
}

/// Runs in memory; their rows are shared with whoever took a copy, as runs never change.
pub type MemoryRuns = BTreeMap<Run, Arc<Vec<ColdRow>>>;

/// Runs in an ordered map: for tests and the simulator.
#[derive(Debug, Default)]
pub struct MemoryColdStore {
    runs: Mutex<MemoryRuns>,
}

impl MemoryColdStore {
    /// An empty store.
    pub fn new() -> MemoryColdStore {
        MemoryColdStore::default()
    }

    /// A store that holds these runs.
    pub fn restored(runs: MemoryRuns) -> MemoryColdStore {
        MemoryColdStore { runs: Mutex::new(runs) }
    }

    /// All runs as they are now.
    pub fn snapshot(&self) -> MemoryRuns {
        self.runs().clone()
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, MemoryRuns> {
        self.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn rows(&self, run: Run) -> Result<Arc<Vec<ColdRow>>, ColdError> {
        let rows = self.runs().get(&run).cloned();
        rows.ok_or_else(|| ColdError::Damaged(format!("{run:?} is missing")))
    }
}

impl ColdStore for MemoryColdStore {
    fn ingest(&self, run: Run, rows: &mut dyn RunRows) -> Result<(), ColdError> {
        let mut copied = vec![];
        while let Some((lane, key, state)) = rows.next_row()? {
            copied.push(ColdRow { lane, key: key.to_vec(), state: state.to_vec() });
        }
        self.runs().insert(run, Arc::new(copied));
        Ok(())
    }

    fn scan(&self, run: Run, lanes: Range<u16>) -> Result<Scan<'_>, ColdError> {
        let rows = self.rows(run)?;
        let rows: Vec<_> = rows.iter().filter(|row| lanes.contains(&row.lane)).cloned().map(Ok).collect();
        Ok(Box::new(rows.into_iter()))
    }

    fn get(&self, run: Run, keys: &[(u16, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
        let rows = self.rows(run)?;
        let find = |key| rows.binary_search_by_key(&key, |row| (row.lane, row.key.as_slice())).ok();
        Ok(keys.iter().map(|key| find(*key).map(|at| rows[at].state.clone())).collect())
    }

    fn remove(&self, run: Run) -> Result<(), ColdError> {
        self.runs().remove(&run);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(generation: u64) -> Run {
        Run { step: 1, pane: 0, generation }
    }

    #[test]
    fn a_look_up_finds_what_a_scan_finds() {
        let row = |lane, key: &[u8], state: &[u8]| ColdRow { lane, key: key.to_vec(), state: state.to_vec() };
        let first = vec![row(1, b"a", b"1a"), row(1, b"b", b""), row(2, b"a", b"2a"), row(7, b"", b"7")];
        let second = vec![row(1, b"a", b"other"), row(2, b"ab", b"2ab")];
        let runs = [(run(1), Arc::new(first)), (run(2), Arc::new(second)), (run(3), Arc::default())];
        let cold = MemoryColdStore::restored(runs.into());
        let keys: [(u16, &[u8]); 7] =
            [(7, b""), (1, b"b"), (2, b"ab"), (1, b""), (1, b"a"), (8, b"a"), (1, b"a")];
        for generation in 1..=3 {
            let rows: Vec<ColdRow> = cold.scan(run(generation), 0..9).unwrap().map(Result::unwrap).collect();
            let scanned = keys.map(|(lane, key)| {
                let row = rows.iter().find(|row| row.lane == lane && row.key == key);
                row.map(|row| row.state.clone())
            });
            assert_eq!(cold.get(run(generation), &keys).unwrap(), scanned, "run {generation}");
            assert_eq!(cold.get(run(generation), &[]), Ok(vec![]));
        }
        assert!(matches!(cold.get(run(4), &keys), Err(ColdError::Damaged(_))));
        assert!(matches!(cold.get(run(4), &[]), Err(ColdError::Damaged(_))));
    }
}
