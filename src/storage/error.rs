//! What went wrong with a file of the checkpoint storage or of a working directory.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// The disk or a quota is full. The same call may succeed once there is room.
    Full,
    /// Any other failure of the file system. The same call may succeed later.
    Io,
    /// The file is not there.
    Missing,
    /// The file is there, but is not what was written.
    Damaged,
    /// A file of that name exists already: names are never used twice, so this is a broken invariant.
    Exists,
    /// The name would not stay within the directory, or holds characters that no name of ours holds.
    Name,
}

/// An error that names its file.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    path: PathBuf,
    source: io::Error,
}

impl StorageError {
    /// An error of the file system about `path`; the kind follows from it.
    pub fn io(path: impl Into<PathBuf>, source: io::Error) -> StorageError {
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
            io::ErrorKind::NotFound => StorageErrorKind::Missing,
            io::ErrorKind::AlreadyExists => StorageErrorKind::Exists,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StorageErrorKind::Damaged,
            _ => StorageErrorKind::Io,
        };
        StorageError { kind, path: path.into(), source }
    }

    /// `path` is not what was written; `what` says in what way.
    pub fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> StorageError {
        StorageError::io(path, io::Error::new(io::ErrorKind::InvalidData, what.into()))
    }

    pub(super) fn name(name: &str, what: &str) -> StorageError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        StorageError { kind: StorageErrorKind::Name, path: name.into(), source }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// The file or directory concerned.
    #[cfg(test)]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}
