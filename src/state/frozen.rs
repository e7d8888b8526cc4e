//! From a working directory into the checkpoint storage, and back.
//!
//! A [`FrozenCold`] is the cold store as it stood at one barrier: a directory of hard links, made while the workers stand
//! still. [`FrozenCold::store`] brings it into the storage afterwards, beside the workers.
//!
//! - **Tables** (`*.sst`) never change, and keep their number for as long as a store lives: each is stored once, as
//!   `cold/<incarnation>/<number>.sst`, and named again by every later snapshot that holds it, also those after a restore.
//! - **Everything else** (which tables there are, settings) is small and stored anew with every snapshot, as
//!   `cold/<incarnation>/<snapshot>-<name>`.
//!
//! The way back opens nothing of the snapshot itself: tables become hard links in a new working directory, the rest is
//! copied. What is missing or not what was stored refuses, by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use onceflow_engine::state::cold::{ColdFile, ColdSnapshot, TAIL_BYTES};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::work_directory::WorkDirectory;
use crate::storage::{FileName, ShardStorage, StorageError, check_component};

/// Bytes read at once while a checksum is taken.
const READ_BUFFER: usize = 256 * 1024;

/// What the storage holds already of one working store.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tables: Mutex<BTreeMap<String, ColdFile>>,
    /// The newest change that a stored snapshot holds.
    stored: AtomicU64,
}

impl Ledger {
    /// The ledger of a store that was restored from `snapshot`.
    pub(super) fn restored(snapshot: &ColdSnapshot) -> Ledger {
        let tables = snapshot
            .files
            .iter()
            .filter(|file| is_table(&file.local))
            .map(|file| (file.local.clone(), file.clone()))
            .collect();
        Ledger { tables: Mutex::new(tables), stored: AtomicU64::new(0) }
    }

    /// The number of the newest change that a stored snapshot holds.
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::SeqCst)
    }

    /// The name in the storage of a table of the working directory, if it is there.
    pub(super) fn name_of(&self, local: &str) -> Option<String> {
        self.tables().get(local).map(|file| file.stored.clone())
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<String, ColdFile>> {
        self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The cold store at one barrier, not stored yet. Its working directory lives on until this is dropped.
#[derive(Debug)]
pub struct FrozenCold {
    /// Hard links and small files that nobody writes to.
    pub(super) directory: PathBuf,
    /// Never used twice in an incarnation.
    pub(super) number: u64,
    /// The newest change within.
    pub(super) change: u64,
    pub(super) incarnation: String,
    pub(super) ledger: Arc<Ledger>,
    pub(super) _work: Arc<WorkDirectory>,
}

/// A cold store in the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCold {
    /// What the manifest names.
    pub snapshot: ColdSnapshot,
    /// Bytes that were not there before.
    pub written_bytes: u64,
}

impl FrozenCold {
    /// Brings what the storage does not have yet into it. Durable when it returns; may be repeated after a failure.
    pub fn store(&self, storage: &ShardStorage) -> Result<StoredCold, StorageError> {
        let mut files = Vec::new();
        let mut new = Vec::new();
        for local in self.names()? {
            let known = if is_table(&local) { self.ledger.tables().get(&local).cloned() } else { None };
            if let Some(file) = known {
                files.push(file);
                continue;
            }
            let path = self.directory.join(&local);
            let name = if is_table(&local) {
                FileName::cold(&self.incarnation, &local)?
            } else {
                FileName::cold(&self.incarnation, &format!("{:08}-{local}", self.number))?
            };
            files.push(describe(&path, name.as_str(), local)?);
            new.push((path, name, files.len() - 1));
        }
        let links: Vec<(&Path, &FileName)> =
            new.iter().map(|(path, name, _)| (path.as_path(), name)).collect();
        storage.link_in(&links)?;

        let written_bytes = new.iter().filter_map(|&(_, _, at)| files.get(at)).map(|file| file.length).sum();
        *self.ledger.tables() = files
            .iter()
            .filter(|file| is_table(&file.local))
            .map(|file| (file.local.clone(), file.clone()))
            .collect();
        self.ledger.stored.fetch_max(self.change, Ordering::SeqCst);
        Ok(StoredCold { snapshot: ColdSnapshot { files }, written_bytes })
    }

    /// Names of the files within, ascending.
    fn names(&self) -> Result<Vec<String>, StorageError> {
        let failed = |error| StorageError::io(&self.directory, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

impl Drop for FrozenCold {
    fn drop(&mut self) {
        // The links inside the storage stay; what stays here goes with the working directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Makes the files of a snapshot appear in `directory`, each verified: tables by length and tail, everything else whole.
pub(super) fn bring_back(
    storage: &ShardStorage,
    snapshot: &ColdSnapshot,
    directory: &Path,
) -> Result<(), StorageError> {
    for file in &snapshot.files {
        let name = FileName::parse(&file.stored)?;
        let path = storage.path(&name);
        check_component(&file.local).map_err(|what| StorageError::damaged(&path, what))?;
        let to = directory.join(&file.local);
        if is_table(&file.local) {
            let stored = storage.open_file(&name)?;
            let failed = |error| StorageError::io(&path, error);
            check_length(&path, stored.metadata().map_err(failed)?.len(), file)?;
            if tail(&stored, file.length).map_err(failed)? != file.tail {
                return Err(StorageError::damaged(&path, "its last bytes are not those that were stored"));
            }
            storage.link_out(&name, &to)?;
        } else {
            let content = storage.read(&name)?;
            check_length(&path, content.len() as u64, file)?;
            if xxh3_64(&content) != file.checksum {
                return Err(StorageError::damaged(&path, "its checksum is not that of what was stored"));
            }
            fs::write(&to, content).map_err(|error| StorageError::io(&to, error))?;
        }
    }
    Ok(())
}

/// Reads every file of a snapshot whole. Returns what is wrong with the first that is not what was stored.
pub(super) fn find_damage(
    storage: &ShardStorage,
    snapshot: &ColdSnapshot,
) -> Result<Option<StorageError>, StorageError> {
    for file in &snapshot.files {
        let path = storage.path(&FileName::parse(&file.stored)?);
        if describe(&path, &file.stored, file.local.clone())? != *file {
            return Ok(Some(StorageError::damaged(path, "its checksum is not that of what was stored")));
        }
    }
    Ok(None)
}

fn check_length(path: &Path, length: u64, file: &ColdFile) -> Result<(), StorageError> {
    if length == file.length {
        return Ok(());
    }
    Err(StorageError::damaged(path, format!("has {length} bytes, {} were stored", file.length)))
}

/// Whether a file of a working store is a table, which never changes and is stored once.
pub(super) fn is_table(local: &str) -> bool {
    local.ends_with(".sst")
}

fn describe(path: &Path, stored: &str, local: String) -> Result<ColdFile, StorageError> {
    let read = || -> io::Result<ColdFile> {
        let mut file = File::open(path)?;
        let mut hasher = Xxh3Default::new();
        let mut buffer = vec![0; READ_BUFFER];
        let mut length = 0;
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            length += count as u64;
        }
        let tail = tail(&file, length)?;
        Ok(ColdFile { stored: stored.to_owned(), local, length, checksum: hasher.digest(), tail })
    };
    read().map_err(|error| StorageError::io(path, error))
}

/// Checksum of the last [`TAIL_BYTES`] bytes of a file of that length.
fn tail(file: &File, length: u64) -> io::Result<u64> {
    let mut bytes = [0; TAIL_BYTES as usize];
    let start = length.saturating_sub(TAIL_BYTES);
    let bytes = &mut bytes[..(length - start) as usize];
    file.read_exact_at(bytes, start)?;
    Ok(xxh3_64(bytes))
}
