//! Cold runs in RocksDB.
//!
//! # How it is used
//!
//! A run is written once, sorted, and dropped whole. So each is **one table file**, written beside the database and moved into
//! it, and since no two runs share a range of keys, RocksDB puts every one into its last level. Nothing passes through
//! the memtable or the write-ahead log, nothing is ever compacted, and a run is removed by dropping its file: there are no
//! tombstones to step over. RocksDB is told to refuse a file that would not fit this picture.
//!
//! # Keys
//!
//! ```text
//! run  = step (u32) · pane (i64, sign bit flipped) · generation (u64)      big-endian: bytes sort like the numbers
//! row  = run · lane (u16) · group key   →  aggregate state
//! ```
//!
//! The first entry of each file is the bare run with no value, so that a run without rows has a file too, and a file tells
//! whose it is.
//!
//! # Filters
//!
//! A scan reads a run's blocks one after the other. A look-up reads the one block that may hold its key, and mostly none where the
//! run does not have it: each table has a Bloom filter of its keys. Filters and indexes are cut into small blocks of their own, which
//! are read when they are needed, and live in the cache. Without a filter, as in tables of former versions, or with one whose
//! checksum is wrong, every key may be there: a filter spares reading and decides nothing else.
//!
//! # Recovery
//!
//! The database lives in a working directory that is new with every start, and is as durable as the snapshots taken of it
//! (see [`super::frozen`]). Blocks carry checksums: damage in one is found when it is read, and reported as
//! [`ColdError::Damaged`] with the file's name.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use onceflow_engine::state::cold::{ColdError, ColdRow, ColdSnapshot, ColdStore, Run, RunRows, Scan};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, ErrorKind,
    IngestExternalFileOptions, LogLevel, LruCacheOptions, Options, ReadOptions, SstFileWriter,
};

use super::frozen::{FrozenCold, Ledger, bring_back, find_damage};
use super::work_directory::WorkDirectory;
use crate::storage::{ShardStorage, StorageError, StorageErrorKind};

/// Uncompressed bytes of a block. Most of what is read of runs is read from end to end, where larger blocks only compress better; a
/// look-up that finds its key pays for a whole one.
const BLOCK_BYTES: usize = 32 * 1024;

/// Bytes of a block of a filter or an index. Smaller ones are less to read for a single key; what finds them, a key for each, grows: with
/// this, to about a megabyte for 100 million rows.
const METADATA_BYTES: usize = 8 * 1024;

/// Bits of the filter for each row: of the keys that a table does not have, one in a hundred passes.
const FILTER_BITS: f64 = 10.0;

/// The cache is cut into two to the power of this many parts, and nothing larger than its part stays in it. By itself RocksDB makes
/// parts of half a megabyte, too small for what finds the blocks of a large filter: every look-up would read that again. Parts are
/// for threads not to wait for each other, and few threads read at once.
const CACHE_PART_BITS: i32 = 2;

/// Keys that are looked up at once. RocksDB takes no more in one go whatever it is given, and keeps the block of each until all
/// are found: a megabyte at most.
const KEYS_AT_ONCE: usize = 32;

/// Where there is a key to look for in so many bytes of a run, reading all of them is cheaper.
const DENSE_BYTES: u64 = 1024;

/// How far a scan reads ahead, in bytes.
const READ_AHEAD: usize = 256 * 1024;

/// The length of a run's part of a key, in bytes.
const RUN_BYTES: usize = 20;

/// A [`ColdStore`] in RocksDB. Several workers may write and read at once.
pub struct RocksCold {
    // Fields are dropped in this order: the database is closed before its directory goes.
    db: DB,
    options: Options,
    /// What the store holds: run, length of its file in bytes.
    runs: Mutex<BTreeMap<Run, u64>>,
    /// Counts writes and removals. Raised after the fact: a snapshot that has read it holds all that it counts.
    changes: AtomicU64,
    /// Numbers the names made in the working directory.
    names: AtomicU64,
    incarnation: String,
    ledger: Arc<Ledger>,
    work: Arc<WorkDirectory>,
}

impl std::fmt::Debug for RocksCold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksCold").field("work", &self.work).field("incarnation", &self.incarnation).finish()
    }
}

impl RocksCold {
    /// An empty store in a new directory below `root`. `incarnation` is random per start and names its files in the storage;
    /// `cache_bytes` is the size of RocksDB's cache.
    pub fn create(root: &Path, incarnation: &str, cache_bytes: usize) -> Result<RocksCold, StorageError> {
        RocksCold::open(WorkDirectory::create(root)?, incarnation, cache_bytes, Ledger::default(), true)
    }

    /// The store as it was at a snapshot, in a new directory below `root`. Nothing is read but what names the tables and
    /// their last bytes.
    ///
    /// # Errors
    ///
    /// [`Missing`](crate::storage::StorageErrorKind::Missing) or [`Damaged`](crate::storage::StorageErrorKind::Damaged) name
    /// the file of the storage that is to blame.
    pub fn restore(
        root: &Path,
        storage: &ShardStorage,
        snapshot: &ColdSnapshot,
        incarnation: &str,
        cache_bytes: usize,
    ) -> Result<RocksCold, StorageError> {
        let work = WorkDirectory::create(root)?;
        let database = database_path(&work);
        fs::create_dir(&database).map_err(|error| StorageError::io(&database, error))?;
        bring_back(storage, snapshot, &database)?;
        RocksCold::open(work, incarnation, cache_bytes, Ledger::restored(snapshot), false).map_err(|error| {
            if error.kind() != StorageErrorKind::Damaged {
                return error;
            }
            // RocksDB blames its list of files for what it finds in a table. Checksums know better.
            match find_damage(storage, snapshot) {
                Ok(None) => error,
                Ok(Some(damage)) | Err(damage) => damage,
            }
        })
    }

    fn open(
        work: WorkDirectory,
        incarnation: &str,
        cache_bytes: usize,
        ledger: Ledger,
        create: bool,
    ) -> Result<RocksCold, StorageError> {
        let path = database_path(&work);
        let mut options = options(cache_bytes);
        options.create_if_missing(create);
        let db = DB::open(&options, &path).map_err(|error| storage_error(&path, error))?;
        let mut runs = BTreeMap::new();
        for file in db.live_files().map_err(|error| storage_error(&path, error))? {
            let run = file.start_key.as_deref().and_then(decode_run).ok_or_else(|| {
                StorageError::damaged(
                    path.join(file.name.trim_start_matches('/')),
                    "is not the file of a run",
                )
            })?;
            runs.insert(run, file.size as u64);
        }
        Ok(RocksCold {
            db,
            options,
            runs: Mutex::new(runs),
            changes: AtomicU64::new(0),
            names: AtomicU64::new(0),
            incarnation: incarnation.to_owned(),
            ledger: Arc::new(ledger),
            work: Arc::new(work),
        })
    }

    /// Bytes of all runs, as they lie on the disk.
    pub fn bytes(&self) -> u64 {
        self.runs().values().sum()
    }

    /// Whether anything was written or removed since the newest snapshot that was stored, or since the restore.
    pub fn changed_since_snapshot(&self) -> bool {
        self.changes.load(Ordering::SeqCst) > self.ledger.stored()
    }

    /// The store as it is now, by hard links: about a millisecond, whatever its size. Called while no worker writes; what is
    /// written later is not in it.
    pub fn freeze(&self) -> Result<FrozenCold, StorageError> {
        let change = self.changes.load(Ordering::SeqCst);
        let number = self.next_name();
        let directory = self.work.path().join(format!("frozen-{number}"));
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(&directory))
            .map_err(|error| storage_error(&directory, error))?;
        Ok(FrozenCold {
            directory,
            number,
            change,
            incarnation: self.incarnation.clone(),
            ledger: Arc::clone(&self.ledger),
            _work: Arc::clone(&self.work),
        })
    }

    fn next_name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<Run, u64>> {
        self.runs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn check_held(&self, run: Run) -> Result<(), ColdError> {
        match self.runs().contains_key(&run) {
            true => Ok(()),
            false => Err(ColdError::Damaged(format!("{run:?} is missing"))),
        }
    }

    /// Writes the table of a run. Returns its length in bytes.
    fn write_table(&self, path: &Path, run: Run, rows: &mut dyn RunRows) -> Result<u64, ColdError> {
        let failed = |error| cold_error(path.display(), error);
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(path).map_err(failed)?;
        let mut buffer = encode_run(run).to_vec();
        writer.put(&buffer, []).map_err(failed)?;
        while let Some((lane, key, state)) = rows.next_row()? {
            if lane == u16::MAX {
                // No range of lanes holds it, and it would sort behind the end of the run.
                return Err(ColdError::Failed(format!("lane {lane} of {run:?} is out of range")));
            }
            buffer.truncate(RUN_BYTES);
            buffer.extend_from_slice(&lane.to_be_bytes());
            buffer.extend_from_slice(key);
            writer.put(&buffer, state).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        Ok(writer.file_size())
    }

    fn move_in(&self, path: &Path) -> Result<(), ColdError> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Both would only be needed for a file that overlaps with something, and so for a run that was written twice.
        options.set_allow_global_seqno(false);
        options.set_allow_blocking_flush(false);
        self.db
            .ingest_external_file_opts(&options, vec![path])
            .map_err(|error| cold_error(path.display(), error))
    }

    /// The files that hold a run, for messages: the name in the working directory and the one in the storage.
    fn file_of(&self, run: Run) -> String {
        let prefix = encode_run(run);
        let local = self.db.live_files().ok().and_then(|files| {
            files
                .into_iter()
                .find(|file| file.start_key.as_deref().is_some_and(|key| key.starts_with(&prefix)))
        });
        let Some(local) = local.map(|file| file.name.trim_start_matches('/').to_owned()) else {
            return format!("the file of {run:?}");
        };
        let path = database_path(&self.work).join(&local);
        match self.ledger.name_of(&local) {
            Some(stored) => format!("{} (stored as {stored})", path.display()),
            None => path.display().to_string(),
        }
    }
}

impl ColdStore for RocksCold {
    fn ingest(&self, run: Run, rows: &mut dyn RunRows) -> Result<(), ColdError> {
        if self.runs().contains_key(&run) {
            return Err(ColdError::Failed(format!("{run:?} exists already")));
        }
        let path = self.work.path().join(format!("incoming-{}.sst", self.next_name()));
        let written = self.write_table(&path, run, rows).and_then(|length| {
            self.move_in(&path)?;
            Ok(length)
        });
        match written {
            Ok(length) => {
                self.runs().insert(run, length);
                self.changes.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => {
                // A full disk should get its room back before anybody tries again.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn scan(&self, run: Run, lanes: Range<u16>) -> Result<Scan<'_>, ColdError> {
        self.check_held(run)?;
        if lanes.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        let first = encode_lane(run, lanes.start);
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(first);
        options.set_iterate_upper_bound(encode_lane(run, lanes.end));
        options.set_readahead_size(READ_AHEAD);
        // A run is read once: its blocks would only drive out what is needed again.
        options.fill_cache(false);
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek(first);
        Ok(Box::new(RunScan { store: self, run, rows, ended: false }))
    }

    fn get(&self, run: Run, keys: &[(u16, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
        self.check_held(run)?;
        // Ascending, so that keys that share a block come together.
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_unstable_by_key(|&at| keys[at]);
        let mut states = vec![None; keys.len()];
        let length = self.runs().get(&run).copied().unwrap_or_default();
        if keys.len() as u64 * DENSE_BYTES > length {
            self.read_through(run, keys, &order, &mut states)?;
            return Ok(states);
        }
        for some in order.chunks(KEYS_AT_ONCE) {
            let rows = some.iter().map(|&at| encode_row(run, keys[at]));
            // As nothing else is said, checksums are verified, and blocks are kept in the cache: the next keys may lie in the same.
            for (&at, state) in some.iter().zip(self.db.multi_get(rows)) {
                states[at] = state.map_err(|error| cold_error(self.file_of(run), error))?;
            }
        }
        Ok(states)
    }

    fn remove(&self, run: Run) -> Result<(), ColdError> {
        if self.runs().remove(&run).is_none() {
            return Ok(());
        }
        let (first, last) = (encode_run(run), encode_lane(run, u16::MAX));
        self.db
            .delete_file_in_range(first.as_slice(), last.as_slice())
            .map_err(|error| cold_error(self.file_of(run), error))?;
        self.changes.fetch_add(1, Ordering::SeqCst);

        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(last);
        options.fill_cache(false);
        let mut rest = self.db.raw_iterator_opt(options);
        rest.seek(first);
        match rest.status() {
            Ok(()) if rest.valid() => {
                Err(ColdError::Failed(format!("{}: was not removed with {run:?}", self.file_of(run))))
            }
            Ok(()) => Ok(()),
            Err(error) => Err(cold_error(self.file_of(run), error)),
        }
    }
}

impl RocksCold {
    /// Finds keys, ascending in this order, by reading the run from the first of their lanes to the last.
    fn read_through(
        &self,
        run: Run,
        keys: &[(u16, &[u8])],
        order: &[usize],
        states: &mut [Option<Vec<u8>>],
    ) -> Result<(), ColdError> {
        let (Some(&first), Some(&last)) = (order.first(), order.last()) else { return Ok(()) };
        let mut wanted = order.iter().peekable();
        for row in self.scan(run, keys[first].0..keys[last].0.saturating_add(1))? {
            let row = row?;
            let here = (row.lane, row.key.as_slice());
            while wanted.next_if(|at| keys[**at] < here).is_some() {}
            while let Some(at) = wanted.next_if(|at| keys[**at] == here) {
                states[*at] = Some(row.state.clone());
            }
        }
        Ok(())
    }
}

/// Rows of one run.
struct RunScan<'a> {
    store: &'a RocksCold,
    run: Run,
    rows: DBRawIterator<'a>,
    ended: bool,
}

impl Iterator for RunScan<'_> {
    type Item = Result<ColdRow, ColdError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Some((key, state)) = self.rows.item() else {
            self.ended = true;
            // An iterator ends on damage as it does at the end: only its status tells.
            return match self.rows.status() {
                Ok(()) => None,
                Err(error) => Some(Err(cold_error(self.store.file_of(self.run), error))),
            };
        };
        let row = key.get(RUN_BYTES..).and_then(|rest| rest.split_first_chunk()).map(|(lane, key)| ColdRow {
            lane: u16::from_be_bytes(*lane),
            key: key.to_vec(),
            state: state.to_vec(),
        });
        let Some(row) = row else {
            self.ended = true;
            let file = self.store.file_of(self.run);
            return Some(Err(ColdError::Damaged(format!("{file}: holds a key that is too short"))));
        };
        self.rows.next();
        Some(Ok(row))
    }
}

fn database_path(work: &WorkDirectory) -> PathBuf {
    work.path().join("db")
}

fn options(cache_bytes: usize) -> Options {
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(cache_bytes);
    cache.set_num_shard_bits(CACHE_PART_BITS);

    // Nothing here changes what can be read: each table tells how it was written.
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES);
    table.set_block_cache(&Cache::new_lru_cache_opts(&cache));
    table.set_bloom_filter(FILTER_BITS, false);
    // In one piece, the filter of 100 million rows would be 125 MB to read for a single key, and more than the cache holds. And scans,
    // which leave the cache alone, would read a whole index each.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BYTES);
    // Indexes and filters count against the cache, all of them, and none is held on to while its table is open: so the memory used
    // does not grow with the number of runs or of their rows. Only while a table is written and moved in, its filter is in memory
    // whole, with ten bits for each row.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(false);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_disable_auto_compactions(true);
    // Files stay open: they are few, and opening one again at a scan would cost more than it saves.
    options.set_max_open_files(-1);
    options.set_skip_stats_update_on_db_open(true);
    // The memtable stays empty.
    options.set_write_buffer_size(64 * 1024);
    // The list of files is copied with every snapshot: keep its history short.
    options.set_max_manifest_file_size(256 * 1024);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options
}

fn encode_run(run: Run) -> [u8; RUN_BYTES] {
    let mut key = [0; RUN_BYTES];
    let (step, rest) = key.split_at_mut(4);
    let (pane, generation) = rest.split_at_mut(8);
    step.copy_from_slice(&run.step.to_be_bytes());
    // The order of signed numbers is that of unsigned ones with the sign bit flipped.
    pane.copy_from_slice(&(run.pane ^ i64::MIN).to_be_bytes());
    generation.copy_from_slice(&run.generation.to_be_bytes());
    key
}

fn encode_lane(run: Run, lane: u16) -> [u8; RUN_BYTES + 2] {
    let mut key = [0; RUN_BYTES + 2];
    let (prefix, suffix) = key.split_at_mut(RUN_BYTES);
    prefix.copy_from_slice(&encode_run(run));
    suffix.copy_from_slice(&lane.to_be_bytes());
    key
}

fn encode_row(run: Run, (lane, key): (u16, &[u8])) -> Vec<u8> {
    [encode_lane(run, lane).as_slice(), key].concat()
}

/// The run that a key belongs to.
fn decode_run(key: &[u8]) -> Option<Run> {
    let (step, rest) = key.split_first_chunk()?;
    let (pane, rest) = rest.split_first_chunk()?;
    let (generation, _) = rest.split_first_chunk()?;
    Some(Run {
        step: u32::from_be_bytes(*step),
        pane: i64::from_be_bytes(*pane) ^ i64::MIN,
        generation: u64::from_be_bytes(*generation),
    })
}

fn cold_error(file: impl std::fmt::Display, error: rocksdb::Error) -> ColdError {
    let message = format!("{file}: {error}");
    match error.kind() {
        ErrorKind::Corruption => ColdError::Damaged(message),
        _ => ColdError::Failed(message),
    }
}

fn storage_error(path: &Path, error: rocksdb::Error) -> StorageError {
    match error.kind() {
        ErrorKind::Corruption => StorageError::damaged(path, error.into_string()),
        _ if error.as_ref().contains("No space left on device") => {
            StorageError::io(path, std::io::Error::new(std::io::ErrorKind::StorageFull, error.into_string()))
        }
        _ => StorageError::io(path, std::io::Error::other(error.into_string())),
    }
}

#[cfg(test)]
#[path = "rocksdb_tests.rs"]
mod tests;
