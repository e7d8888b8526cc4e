//! Steps on the file system that are durable when they return.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::StorageError;

/// Bytes gathered before a write reaches the file.
const WRITE_BUFFER: usize = 256 * 1024;

/// Makes a directory's entries durable: what was created, linked, renamed or removed in it.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(|error| StorageError::io(directory, error))
}

/// Makes a file's content durable.
pub(super) fn sync_file(path: &Path) -> Result<(), StorageError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| StorageError::io(path, error))
}

/// Creates a directory with its parents. Each entry it made is durable, and so is one that somebody else made at the same
/// time.
pub(super) fn create_directory(directory: &Path) -> Result<(), StorageError> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        // A relative path of one component: its parent is the working directory of the process.
        _ => Path::new("."),
    };
    create_directory(parent)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(StorageError::io(directory, error));
        }
        _ => {}
    }
    sync_directory(parent)
}

/// A file under a name of its own beside its target, gone again unless it is published.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Temporary {
    /// Creates an empty file in the target's directory.
    pub(super) fn beside(target: &Path) -> Result<Temporary, StorageError> {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{:016x}.tmp", rand::random::<u64>()));
        let path = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(Temporary { path, file, published: false }),
            Err(error) => Err(StorageError::io(target, error)),
        }
    }

    /// Writes the content and makes it durable. Returns what `write` returned, and the length in bytes.
    pub(super) fn fill<T>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
    ) -> io::Result<(T, u64)> {
        let mut out = BufWriter::with_capacity(WRITE_BUFFER, &self.file);
        let result = write(&mut out)?;
        out.flush()?;
        drop(out);
        self.file.sync_all()?;
        Ok((result, self.file.metadata()?.len()))
    }

    /// Gives the file its name, unless there is one of that name already.
    pub(super) fn publish_new(mut self, target: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, target) {
            // The temporary name goes when `self` is dropped.
            Ok(()) => Ok(()),
            Err(error) if links_unsupported(&error) => {
                if target.try_exists()? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(&self.path, target)?;
                self.published = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the file its name in place of the one that had it.
    pub(super) fn publish_over(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What stays behind is an orphan like any other: the next start lists it, and drops it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the file system has no hard link between these two places, so that a copy is needed.
pub(super) fn links_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::Unsupported
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::PermissionDenied
    )
}
