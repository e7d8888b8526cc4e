//! Names of files in a shard's directory.

use std::fmt;

use super::StorageError;

/// A file's name relative to the shard's directory, such as `snapshots/00000000000000000007-5f1c.snapshot`.
///
/// One to three components joined by `/`, each of letters, digits, `-`, `_` and `.`, none starting with a dot: so no name
/// leaves the directory, and every name is the same on every file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

/// The longest component in bytes; with the suffix of a temporary file still below the 255 of common file systems.
const MAX_COMPONENT: usize = 200;

impl FileName {
    /// Reads a name back from a manifest or a listing.
    pub fn parse(name: &str) -> Result<FileName, StorageError> {
        let mut count = 0;
        for component in name.split('/') {
            check_component(component).map_err(|what| StorageError::name(name, what))?;
            count += 1;
        }
        if count > 3 {
            return Err(StorageError::name(name, "a file name has at most three components"));
        }
        Ok(FileName(name.to_owned()))
    }

    /// The snapshot of an epoch by one attempt. Zero-padded, so that names sort by epoch.
    pub fn snapshot(epoch: u64, attempt: &str) -> Result<FileName, StorageError> {
        FileName::parse(&format!("snapshots/{epoch:020}-{attempt}.snapshot"))
    }

    /// A file that the cold store of one incarnation brought.
    pub fn cold(incarnation: &str, file: &str) -> Result<FileName, StorageError> {
        FileName::parse(&format!("cold/{incarnation}/{file}"))
    }

    /// The marker of the newest confirmed epoch; it is replaced with every one.
    pub fn confirmed() -> FileName {
        FileName("confirmed".to_owned())
    }

    /// What is remembered of checkpoints, for people: lines are added to it, and now and then it is written anew.
    pub fn history() -> FileName {
        FileName("history.jsonl".to_owned())
    }

    /// The directory of the incarnation that a file of the cold store belongs to, relative like the name.
    pub(super) fn incarnation(&self) -> Option<&str> {
        let (directory, _) = self.0.rsplit_once('/')?;
        directory.starts_with("cold/").then_some(directory)
    }

    /// The name as it stands in a manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses what may not stand between two slashes of a path.
pub(crate) fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() || component.len() > MAX_COMPONENT {
        return Err("a component of a file name has 1 to 200 bytes");
    }
    if component.starts_with('.') {
        return Err("a component of a file name does not start with a dot");
    }
    if !component.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err("a file name has only letters, digits, '-', '_' and '.'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageErrorKind;

    #[test]
    fn names_stay_inside() {
        let long = "a".repeat(201);
        for name in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            ".hidden",
            "a/.b",
            "a b",
            "ü",
            "a\0",
            "a\\b",
            "a/b/c/d",
            &long,
        ] {
            let error = FileName::parse(name).expect_err(name);
            assert_eq!(error.kind(), StorageErrorKind::Name, "{name}");
        }
        assert!(FileName::snapshot(1, "a/../../b").is_err());
        assert!(FileName::cold("..", "x").is_err());
    }

    #[test]
    fn snapshots_sort_by_epoch() {
        let mut names: Vec<FileName> =
            [100, 9, u64::MAX, 10].iter().map(|&epoch| FileName::snapshot(epoch, "f").unwrap()).collect();
        names.sort();
        assert_eq!(
            names.iter().map(FileName::as_str).collect::<Vec<_>>(),
            [
                "snapshots/00000000000000000009-f.snapshot",
                "snapshots/00000000000000000010-f.snapshot",
                "snapshots/00000000000000000100-f.snapshot",
                "snapshots/18446744073709551615-f.snapshot",
            ]
        );
        assert_eq!(FileName::parse(names[0].as_str()).unwrap(), names[0]);
    }
}
