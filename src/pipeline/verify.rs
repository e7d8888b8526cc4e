//! Whether the snapshots in a checkpoint storage are whole: every file that the newest one and those kept beside it name, read to its last
//! byte. Nothing but the storage is needed, and nothing is changed.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::Path;

use onceflow_engine::state::segment::{read_extent, read_footer};
use onceflow_protocol::ManifestRef;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3Default;

use super::context::SHARD;
use super::manifest::{self, FORMAT_VERSION, Manifest};
use crate::storage::{FileName, ShardStorage, StorageError};

/// A running pipeline may retire what is being looked at; then the look begins anew, so often.
const ATTEMPTS: u32 = 3;

/// A snapshot that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedSnapshot {
    /// Its file.
    pub snapshot: String,
    /// The epoch that it ends; none if that cannot be read any more.
    pub epoch: Option<u64>,
    /// Files that a restore of it reads, its own included.
    pub files: usize,
    /// Bytes that were read and found right.
    pub bytes: u64,
    /// What is wrong; nothing, if it is whole.
    pub problems: Vec<String>,
}

/// Looks at the newest snapshot of a pipeline and at those kept beside it, newest first; `None` where there is no storage of it. `begins`
/// hears which file is read next.
///
/// # Errors
/// If the storage cannot be listed.
pub fn verify(
    root: &Path,
    namespace: &str,
    pipeline: &str,
    begins: &mut dyn FnMut(&str),
) -> Result<Option<Vec<VerifiedSnapshot>>, StorageError> {
    let Some(storage) = ShardStorage::existing(root, namespace, pipeline, SHARD)? else { return Ok(None) };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let newest = newest(&storage)?;
        let Some(name) = &newest else { return Ok(Some(vec![])) };
        let found = Look::new(&storage, begins).snapshots(name);
        let whole = found.iter().all(|snapshot| snapshot.problems.is_empty());
        if whole || attempts == ATTEMPTS || self::newest(&storage)? == newest {
            return Ok(Some(found));
        }
    }
}

/// Names sort by epoch. Of several attempts at one epoch any may be the decided one, which only the control topic knows: the last.
fn newest(storage: &ShardStorage) -> Result<Option<String>, StorageError> {
    Ok(snapshots(storage)?.pop())
}

/// The files that hold a manifest, decided or not, by epoch.
pub(super) fn snapshots(storage: &ShardStorage) -> Result<Vec<String>, StorageError> {
    let snapshot = |name: &String| name.starts_with("snapshots/") && name.ends_with(".snapshot");
    Ok(storage.list()?.iter().map(|name| name.as_str().to_owned()).filter(snapshot).collect())
}

/// A reader of snapshots that reads each part once.
pub(super) struct Look<'l> {
    storage: &'l ShardStorage,
    /// Bytes that were read of a part of a file, or what is wrong with it: snapshots share files.
    checked: BTreeMap<(String, u64), Result<u64, String>>,
    begins: &'l mut dyn FnMut(&str),
}

impl<'l> Look<'l> {
    pub(super) fn new(storage: &'l ShardStorage, begins: &'l mut dyn FnMut(&str)) -> Self {
        Look { storage, checked: BTreeMap::new(), begins }
    }

    fn snapshots(&mut self, newest: &str) -> Vec<VerifiedSnapshot> {
        let (first, read) = self.snapshot(newest, None);
        let mut found = vec![first];
        for kept in read.iter().flat_map(|(manifest, _)| &manifest.kept).rev() {
            found.push(self.snapshot(&kept.manifest.file, Some(&kept.manifest.hash)).0);
        }
        found
    }

    /// Looks at every part of one snapshot; its manifest too, if that can be read.
    pub(super) fn snapshot(
        &mut self,
        file: &str,
        hash: Option<&str>,
    ) -> (VerifiedSnapshot, Option<(Manifest, ManifestRef)>) {
        let mut snapshot =
            VerifiedSnapshot { snapshot: file.to_owned(), epoch: None, files: 0, bytes: 0, problems: vec![] };
        let (manifest, reference) = match self.manifest(file, hash) {
            Ok(read) => read,
            Err(problem) => {
                snapshot.problems.push(format!("{file}: {problem}"));
                return (snapshot, None);
            }
        };
        snapshot.epoch = Some(manifest.epoch.0);
        snapshot.files = manifest.files(file).len();
        for extent in manifest.live.extents() {
            let at = (extent.file.clone(), extent.location.offset);
            self.count(&mut snapshot, at, |look| {
                let mut file = look.open(&extent.file)?;
                read_extent(&mut file, &extent.location).map_err(|error| error.to_string())?;
                Ok(extent.location.length)
            });
        }
        for cold in manifest.cold.iter().flat_map(|cold| &cold.files) {
            self.count(&mut snapshot, (cold.stored.clone(), 0), |look| {
                let (length, checksum) = look.digest(&cold.stored)?;
                match (length == cold.length, checksum == cold.checksum) {
                    (true, true) => Ok(length),
                    (true, false) => Err("its checksum is not that of what was stored".to_owned()),
                    (false, _) => Err(format!("it has {length} bytes, {} were stored", cold.length)),
                }
            });
        }
        (snapshot, Some((manifest, reference)))
    }

    fn count(
        &mut self,
        snapshot: &mut VerifiedSnapshot,
        at: (String, u64),
        look: impl FnOnce(&mut Self) -> Result<u64, String>,
    ) {
        if !self.checked.contains_key(&at) {
            (self.begins)(&at.0);
            let found = look(self);
            self.checked.insert(at.clone(), found);
        }
        match &self.checked[&at] {
            Ok(bytes) => snapshot.bytes += bytes,
            Err(problem) => snapshot.problems.push(format!("{}: {problem}", at.0)),
        }
    }

    /// A manifest that has this hash, if one is expected.
    pub(super) fn manifest(
        &mut self,
        file: &str,
        hash: Option<&str>,
    ) -> Result<(Manifest, ManifestRef), String> {
        (self.begins)(file);
        let footer = read_footer(&mut self.open(file)?).map_err(|error| error.to_string())?;
        let found = manifest::hash(&footer);
        if let Some(hash) = hash.filter(|hash| **hash != found) {
            return Err(format!("its manifest has the hash {found}, but {hash} was kept"));
        }
        let manifest: Manifest = serde_json::from_slice(&footer)
            .map_err(|error| format!("its manifest cannot be read: {error}"))?;
        match manifest.format {
            FORMAT_VERSION => Ok((manifest, ManifestRef { file: file.to_owned(), hash: found })),
            format => Err(format!("it has format {format}; this program knows format {FORMAT_VERSION}")),
        }
    }

    fn open(&self, file: &str) -> Result<BufReader<std::fs::File>, String> {
        let name = FileName::parse(file).map_err(|error| error.to_string())?;
        Ok(BufReader::new(self.storage.open_file(&name).map_err(|error| error.to_string())?))
    }

    /// Length and xxh3-64 of a whole file.
    fn digest(&self, file: &str) -> Result<(u64, u64), String> {
        let mut content = self.open(file)?;
        let (mut hasher, mut length, mut buffer) = (Xxh3Default::new(), 0, vec![0; 1 << 18]);
        loop {
            match content.read(&mut buffer).map_err(|error| error.to_string())? {
                0 => return Ok((length, hasher.digest())),
                read => {
                    hasher.update(&buffer[..read]);
                    length += read as u64;
                }
            }
        }
    }
}
