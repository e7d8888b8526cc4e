//! Where panes go that memory cannot hold: sorted runs, written once, read once.
//!
//! A **run** is everything that one eviction wrote of one pane: rows in ascending order of `(lane, group key)`, each with its
//! aggregate state. A pane may have several runs, told apart by their generation; their rows for the same key are partial
//! states that add up. Runs never change. RocksDB implements this in the shell, an ordered map in tests and in the simulator.
//!
//! All calls come from workers between barriers, or while every worker stands at a barrier; so whoever takes a snapshot
//! there finds no half of an epoch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

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

/// What went wrong in the store: a message that names the file where one is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ColdError(pub String);

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

    /// Forgets a run.
    fn remove(&self, run: Run) -> Result<(), ColdError>;
}

/// Runs in an ordered map: for tests and the simulator.
#[derive(Debug, Default)]
pub struct MemoryColdStore {
    runs: Mutex<BTreeMap<Run, Vec<ColdRow>>>,
}

impl MemoryColdStore {
    /// An empty store.
    pub fn new() -> MemoryColdStore {
        MemoryColdStore::default()
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, BTreeMap<Run, Vec<ColdRow>>> {
        self.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ColdStore for MemoryColdStore {
    fn ingest(&self, run: Run, rows: &mut dyn RunRows) -> Result<(), ColdError> {
        let mut copied = vec![];
        while let Some((lane, key, state)) = rows.next_row()? {
            copied.push(ColdRow { lane, key: key.to_vec(), state: state.to_vec() });
        }
        self.runs().insert(run, copied);
        Ok(())
    }

    fn scan(&self, run: Run, lanes: Range<u16>) -> Result<Scan<'_>, ColdError> {
        let rows = self.runs().get(&run).cloned().ok_or_else(|| ColdError(format!("{run:?} is missing")))?;
        Ok(Box::new(rows.into_iter().filter(move |row| lanes.contains(&row.lane)).map(Ok)))
    }

    fn remove(&self, run: Run) -> Result<(), ColdError> {
        self.runs().remove(&run);
        Ok(())
    }
}
