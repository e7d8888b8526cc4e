//! Where state goes that memory cannot hold.
//!
//! The rules of eviction live in the engine, over its [`ColdStore`]. Here are the store that ships, [`Cold`], its working
//! directory, and its way into the checkpoint storage and back. Only this directory names RocksDB.
//!
//! The life of a store: [`open_cold`] makes it, empty or from the snapshot that the restored manifest names. At a barrier, if it
//! [changed](Cold::changed_since_snapshot), it is [frozen](Cold::freeze) while the workers stand still, and
//! [stored](FrozenCold::store) while they go on; the manifest names what came of it, or once more the snapshot before. When
//! the store is dropped, its working directory goes.

#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "without RocksDB there is nothing to freeze"))]
mod frozen;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "memory needs no directory"))]
mod work_directory;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use onceflow_engine::plan::{Backend, State};
use onceflow_engine::state::cold::{ColdError, ColdSnapshot, ColdStore, Run, RunRows, Scan};

pub use frozen::FrozenCold;
#[cfg(feature = "rocksdb")]
pub use rocksdb::RocksCold;

use crate::storage::{ShardStorage, StorageError};

/// RocksDB's cache gets one part in so many of `state.memory`. It holds little but the indexes and filters of the tables.
const CACHE_SHARE: u64 = 16;

/// Which store to open.
#[derive(Clone, Copy, Debug)]
pub struct ColdSettings<'a> {
    /// `state:` of the pipeline.
    pub state: &'a State,
    /// Namespace of the daemon.
    pub namespace: &'a str,
    /// Name of the pipeline.
    pub pipeline: &'a str,
    /// Number of the shard.
    pub shard: u32,
    /// Random per start; names the store's files in the checkpoint storage.
    #[cfg_attr(not(feature = "rocksdb"), allow(dead_code, reason = "memory stores no files"))]
    pub incarnation: &'a str,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenColdError {
    /// A setting must be changed first.
    #[error("{0}")]
    Config(String),
    /// A file is missing or damaged, or the file system failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The store behind the group tables of one shard.
#[derive(Clone, Debug)]
pub enum Cold {
    /// None: `state.backend: memory`.
    MemoryOnly,
    /// RocksDB in a working directory.
    #[cfg(feature = "rocksdb")]
    RocksDb(Arc<RocksCold>),
}

/// Opens the store, as it was at `restored` (without files: an empty one). Before that, removes the working directories of
/// this shard whose processes are gone.
///
/// # Errors
///
/// [`OpenColdError::Config`] if `restored` has files and the backend cannot hold them, or if this binary has no such backend.
/// [`OpenColdError::Storage`] names the file that is missing or damaged.
pub fn open_cold(
    settings: ColdSettings<'_>,
    storage: &ShardStorage,
    restored: &ColdSnapshot,
) -> Result<Cold, OpenColdError> {
    let root = work_root(settings);
    match work_directory::remove_orphans(&root) {
        Ok(0) => {}
        Ok(removed) => {
            tracing::info!(directory = %root.display(), removed, "removed orphaned working directories")
        }
        // They only take room. Whatever is wrong with the directory will be met again where it matters.
        Err(error) => tracing::warn!(%error, "orphaned working directories could not be removed"),
    }
    match settings.state.backend {
        Backend::Memory if restored.files.is_empty() => Ok(Cold::MemoryOnly),
        Backend::Memory => Err(OpenColdError::Config(
            "the checkpoint holds state that was evicted to RocksDB: start with state.backend: rocksdb, \
             until its windows are closed"
                .to_owned(),
        )),
        #[cfg(feature = "rocksdb")]
        Backend::RocksDb => {
            let cache_bytes = usize::try_from(cache_bytes(settings.state)).unwrap_or(usize::MAX);
            let cold = if restored.files.is_empty() {
                RocksCold::create(&root, settings.incarnation, cache_bytes)?
            } else {
                RocksCold::restore(&root, storage, restored, settings.incarnation, cache_bytes)?
            };
            Ok(Cold::RocksDb(Arc::new(cold)))
        }
        #[cfg(not(feature = "rocksdb"))]
        Backend::RocksDb => {
            let _ = storage;
            Err(OpenColdError::Config(
                "this binary was built without RocksDB: set state.backend: memory, or build it with the feature \
                 `rocksdb`"
                    .to_owned(),
            ))
        }
    }
}

/// Bytes of `state.memory` that the backend takes for itself.
pub fn cache_bytes(state: &State) -> u64 {
    match state.backend {
        Backend::Memory => 0,
        Backend::RocksDb => state.memory_bytes / CACHE_SHARE,
    }
}

/// Below it, every start has a working directory of its own.
fn work_root(settings: ColdSettings<'_>) -> PathBuf {
    let mut root = settings.state.dir.join(settings.namespace);
    root.push(settings.pipeline);
    root.push(settings.shard.to_string());
    root
}

impl Cold {
    /// The store as the workers see it.
    pub fn store(&self) -> Arc<dyn ColdStore> {
        match self {
            Cold::MemoryOnly => Arc::new(NoCold),
            #[cfg(feature = "rocksdb")]
            Cold::RocksDb(cold) => Arc::<RocksCold>::clone(cold),
        }
    }

    /// Whether panes can be evicted. Where they cannot, a pipeline stops when its budget is reached.
    pub fn can_evict(&self) -> bool {
        !matches!(self, Cold::MemoryOnly)
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        match self {
            Cold::MemoryOnly => 0,
            #[cfg(feature = "rocksdb")]
            Cold::RocksDb(cold) => cold.bytes(),
        }
    }

    /// Whether the next manifest needs a new snapshot. If not, it names the one before again.
    pub fn changed_since_snapshot(&self) -> bool {
        match self {
            Cold::MemoryOnly => false,
            #[cfg(feature = "rocksdb")]
            Cold::RocksDb(cold) => cold.changed_since_snapshot(),
        }
    }

    /// The store as it is now, to be stored while the workers go on. Called while all of them stand at a barrier. `None` where
    /// there is nothing that could be stored.
    pub fn freeze(&self) -> Result<Option<FrozenCold>, StorageError> {
        match self {
            Cold::MemoryOnly => Ok(None),
            #[cfg(feature = "rocksdb")]
            Cold::RocksDb(cold) => cold.freeze().map(Some),
        }
    }
}

/// The store of `state.backend: memory`: it holds nothing.
#[derive(Debug)]
struct NoCold;

impl ColdStore for NoCold {
    fn ingest(&self, run: Run, _: &mut dyn RunRows) -> Result<(), ColdError> {
        Err(ColdError::Failed(format!("{run:?} cannot be evicted with state.backend: memory")))
    }

    fn scan(&self, run: Run, _: Range<u16>) -> Result<Scan<'_>, ColdError> {
        Err(ColdError::Damaged(format!("{run:?} is missing: state.backend: memory holds none")))
    }

    fn get(&self, run: Run, _: &[(u16, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
        Err(ColdError::Damaged(format!("{run:?} is missing: state.backend: memory holds none")))
    }

    fn remove(&self, _: Run) -> Result<(), ColdError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onceflow_engine::state::cold::{BorrowedRow, ColdFile};

    /// A run of one row.
    struct OneRow(bool);

    impl RunRows for OneRow {
        fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError> {
            Ok(std::mem::take(&mut self.0).then_some((3, b"key", b"state")))
        }
    }

    fn open(backend: Backend, restored: &ColdSnapshot) -> (tempfile::TempDir, Result<Cold, OpenColdError>) {
        let root = tempfile::tempdir().unwrap();
        let storage = ShardStorage::open(&root.path().join("checkpoints"), "onceflow", "orders", 0).unwrap();
        let state = State { backend, dir: root.path().join("state"), memory_bytes: 64 << 20 };
        let settings = ColdSettings {
            state: &state,
            namespace: "onceflow",
            pipeline: "orders",
            shard: 0,
            incarnation: "5f1c",
        };
        let cold = open_cold(settings, &storage, restored);
        (root, cold)
    }

    const RUN: Run = Run { step: 1, pane: 0, generation: 1 };

    #[test]
    fn memory_holds_nothing_and_says_so() {
        let (_root, cold) = open(Backend::Memory, &ColdSnapshot::default());
        let cold = cold.unwrap();
        assert!(!cold.can_evict() && !cold.changed_since_snapshot());
        assert!(cold.freeze().unwrap().is_none());
        let error = cold.store().ingest(RUN, &mut OneRow(true)).unwrap_err();
        assert!(error.to_string().contains("state.backend: memory"), "{error}");
        assert!(cold.store().scan(RUN, 0..1).is_err());
        assert!(cold.store().get(RUN, &[]).is_err());
        cold.store().remove(RUN).unwrap();
    }

    #[test]
    fn memory_refuses_a_checkpoint_with_cold_state() {
        let file = ColdFile {
            stored: "cold/9a7e/000012.sst".to_owned(),
            local: "000012.sst".to_owned(),
            length: 1,
            checksum: 1,
            tail: 1,
        };
        let (_root, cold) = open(Backend::Memory, &ColdSnapshot { files: vec![file] });
        assert!(matches!(cold, Err(OpenColdError::Config(_))), "{cold:?}");
    }

    #[cfg(not(feature = "rocksdb"))]
    #[test]
    fn a_binary_without_rocksdb_refuses_it() {
        let (_root, cold) = open(Backend::RocksDb, &ColdSnapshot::default());
        assert!(matches!(cold, Err(OpenColdError::Config(_))), "{cold:?}");
    }

    #[cfg(feature = "rocksdb")]
    #[test]
    fn rocksdb_works_below_the_state_directory() {
        let (root, cold) = open(Backend::RocksDb, &ColdSnapshot::default());
        let cold = cold.unwrap();
        assert!(cold.can_evict() && !cold.changed_since_snapshot());
        cold.store().ingest(RUN, &mut OneRow(true)).unwrap();
        assert!(cold.changed_since_snapshot() && cold.bytes() > 0);
        let work = root.path().join("state/onceflow/orders/0");
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 2);
        drop(cold);
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0);
    }
}
