//! Working directories: one per start, random, gone with their owner.
//!
//! # Layout
//!
//! ```text
//! <state.dir>/<namespace>/<pipeline>/<shard>/
//!     <16 hex digits>.lock     locked (flock) by the owner for as long as it lives
//!     <16 hex digits>/         its files
//! ```
//!
//! # Guarantee
//!
//! A directory is removed by its owner, or by somebody who holds its lock; and the lock outlives neither the process nor the
//! owner. The lock file exists before the directory and goes after it, so a directory of a living owner is never found
//! unlocked. Nothing in here survives a restart: what counts is in the checkpoint storage.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::storage::StorageError;

/// A directory of this process's own, removed when dropped.
#[derive(Debug)]
pub struct WorkDirectory {
    path: PathBuf,
    lock_path: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
}

impl WorkDirectory {
    /// Creates a new, empty directory below `root`, which is created where it is missing.
    pub fn create(root: &Path) -> Result<WorkDirectory, StorageError> {
        fs::create_dir_all(root).map_err(|error| StorageError::io(root, error))?;
        loop {
            let name = format!("{:016x}", rand::random::<u64>());
            let lock_path = root.join(format!("{name}.lock"));
            let failed = |error| StorageError::io(&lock_path, error);
            let lock = match OpenOptions::new().write(true).create_new(true).open(&lock_path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            };
            // Between its creation and our lock, another start may take the file for an orphan's. Then that start removes it,
            // and we take another name.
            if !try_lock(&lock).map_err(failed)? {
                continue;
            }
            let path = root.join(name);
            fs::create_dir(&path).map_err(|error| StorageError::io(&path, error))?;
            return Ok(WorkDirectory { path, lock_path, _lock: lock });
        }
    }

    /// Where the files go.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is an orphan for the next start.
        let _ = remove(&self.path, &self.lock_path);
    }
}

/// Removes the directories below `root` whose owners are gone. Returns their number.
pub fn remove_orphans(root: &Path) -> Result<usize, StorageError> {
    let failed = |error| StorageError::io(root, error);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut removed = 0;
    for entry in entries {
        let lock_path = entry.map_err(failed)?.path();
        let path = lock_path.with_extension("");
        let ours = lock_path.extension().is_some_and(|extension| extension == "lock")
            && path.file_name().and_then(|name| name.to_str()).is_some_and(is_random_name);
        if !ours {
            continue;
        }
        let lock = match OpenOptions::new().write(true).open(&lock_path) {
            Ok(lock) => lock,
            // Its owner or another start was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StorageError::io(lock_path, error)),
        };
        if try_lock(&lock).map_err(|error| StorageError::io(&lock_path, error))? {
            remove(&path, &lock_path).map_err(|error| StorageError::io(&path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Takes the lock unless another owner has it, or removed the file in the meantime: an unlinked lock protects nothing.
fn try_lock(lock: &File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(lock.metadata()?.nlink() > 0),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a directory and then its lock file. The caller holds the lock.
fn remove(path: &Path, lock_path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(lock_path)
}

fn is_random_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("onceflow/orders/0");
        let one = WorkDirectory::create(&root).unwrap();
        let two = WorkDirectory::create(&root).unwrap();
        assert_ne!(one.path(), two.path());
        fs::write(one.path().join("file"), b"x").unwrap();
        drop(one);
        let mut left: Vec<_> = fs::read_dir(&root).unwrap().map(|it| it.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [two.path.clone(), two.lock_path.clone()]);
    }

    #[test]
    fn only_the_dead_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let alive = WorkDirectory::create(root).unwrap();
        fs::write(alive.path().join("file"), b"x").unwrap();
        // A process that died left its directory and an unlocked lock file; another died before it made the directory.
        fs::create_dir_all(root.join("00000000000000aa/db")).unwrap();
        fs::write(root.join("00000000000000aa/db/000012.sst"), b"x").unwrap();
        fs::write(root.join("00000000000000aa.lock"), b"").unwrap();
        fs::write(root.join("00000000000000bb.lock"), b"").unwrap();
        // And somebody keeps things of his own here.
        fs::create_dir(root.join("notes")).unwrap();
        fs::write(root.join("notes.lock"), b"").unwrap();
        fs::create_dir(root.join("00000000000000cc")).unwrap();

        assert_eq!(remove_orphans(root).unwrap(), 2);
        assert_eq!(remove_orphans(root).unwrap(), 0);
        assert!(alive.path().join("file").exists());
        assert!(!root.join("00000000000000aa").exists());
        assert!(!root.join("00000000000000bb.lock").exists());
        for kept in ["notes", "notes.lock", "00000000000000cc"] {
            assert!(root.join(kept).exists(), "{kept}");
        }
        assert_eq!(remove_orphans(&root.join("missing")).unwrap(), 0);
    }

    #[test]
    fn starts_and_clean_ups_do_not_hurt_each_other() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        std::thread::scope(|scope| {
            let starts: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            let directory = WorkDirectory::create(root).unwrap();
                            let file = directory.path().join("file");
                            fs::write(&file, b"x").unwrap();
                            std::thread::yield_now();
                            assert_eq!(fs::read(&file).unwrap(), b"x");
                        }
                    })
                })
                .collect();
            scope.spawn(move || {
                while !starts.iter().all(|it| it.is_finished()) {
                    remove_orphans(root).unwrap();
                }
            });
        });
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    }
}
