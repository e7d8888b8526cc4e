//! Savepoints: copies of committed snapshots, complete in themselves, which nobody retires.
//!
//! A savepoint is a directory of the checkpoint storage: the snapshot's files under the names that its manifest knows, as hard links
//! where the file system has them, and `savepoint.json`, which says what it is a copy of: the decision. It appears whole or not at all.
//!
//! Restoring one copies its files back under names that nobody has used before, with a manifest of their own: an older instance may
//! still delete files by the names that it knows, and a person may delete the savepoint.

use std::io;
use std::path::PathBuf;

use chrono::DateTime;
use onceflow_engine::plan::Plan;
use onceflow_engine::state::segment::SegmentWriter;
use onceflow_protocol::coordinator::KeptSnapshot;
use onceflow_protocol::{Decision, Epoch, ManifestRef};
use serde::{Deserialize, Serialize};

use super::context::{open_storage, wall_clock_ms};
use super::manifest::{self, Manifest};
use crate::storage::{FileName, ShardStorage, StorageError, StorageErrorKind, check_savepoint_name};

/// Version of `savepoint.json`.
const FORMAT_VERSION: u32 = 1;

/// What `savepoint.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Savepoint {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Its name.
    pub name: String,
    /// The pipeline.
    pub pipeline: String,
    /// When it was made, milliseconds since the epoch, for people.
    pub created_ms: i64,
    /// The cluster that its positions belong to.
    pub cluster_id: String,
    /// What it is a copy of.
    pub decision: Decision,
    /// Its files beside `savepoint.json`, by the names that the manifest knows.
    pub files: Vec<String>,
    /// Length of all of them, bytes.
    pub bytes: u64,
}

/// A savepoint that was read, with the hash of what it says: xxh3-128, hexadecimal.
pub type WithHash = (Savepoint, String);

fn own_name() -> Result<FileName, StorageError> {
    FileName::parse("savepoint.json")
}

/// Copies the snapshot of `savepoint.decision`, of which `manifest` is the manifest, from `storage` into a savepoint there; fills in files
/// and bytes.
///
/// # Errors
/// [`StorageErrorKind::Exists`] if there is one of that name; those of the file system.
pub fn make(
    storage: &ShardStorage,
    manifest: Option<&Manifest>,
    mut savepoint: Savepoint,
) -> Result<Savepoint, StorageError> {
    let reference = savepoint.decision.manifest.as_ref();
    savepoint.files = match (manifest, reference) {
        (Some(manifest), Some(reference)) => manifest.files(&reference.file),
        _ => vec![],
    };
    let name = savepoint.name.clone();
    storage.create_savepoint(&name, |draft| {
        let names =
            savepoint.files.iter().map(|file| FileName::parse(file)).collect::<Result<Vec<_>, _>>()?;
        copy(storage, &names, draft, &names)?;
        savepoint.bytes = 0;
        for name in &names {
            savepoint.bytes += draft.length(name)?.unwrap_or(0);
        }
        let json = serde_json::to_vec_pretty(&savepoint).map_err(io::Error::from);
        draft.create(&own_name()?, |out| out.write_all(&json?)).map(drop)
    })?;
    Ok(savepoint)
}

/// What a savepoint says of itself, and the hash of that.
///
/// # Errors
/// `Missing` if there is no such savepoint, `Damaged` if it cannot be understood.
pub fn read(storage: &ShardStorage, name: &str) -> Result<WithHash, StorageError> {
    let directory = storage.savepoint(name)?;
    let own = own_name()?;
    let bytes = directory.read(&own)?;
    let damaged = |what: String| StorageError::damaged(directory.path(&own), what);
    let savepoint: Savepoint =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("cannot be read: {error}")))?;
    if savepoint.format != FORMAT_VERSION {
        let found = savepoint.format;
        return Err(damaged(format!("has format {found}; this program knows format {FORMAT_VERSION}")));
    }
    savepoint.decision.check().map_err(damaged)?;
    Ok((savepoint, manifest::hash(&bytes)))
}

/// A name for a savepoint: the one that was asked for, or the time.
///
/// # Errors
/// If it cannot be the name of a savepoint.
pub fn savepoint_name(asked: Option<String>) -> Result<String, String> {
    let name = asked.unwrap_or_else(|| {
        let now = DateTime::from_timestamp_millis(wall_clock_ms()).unwrap_or_default();
        now.format("%Y-%m-%dT%H-%M-%S-%3fZ").to_string()
    });
    check_savepoint_name(&name).map(|()| name).map_err(|error| error.to_string())
}

/// All savepoints of a pipeline, oldest first; of those that cannot be read, why.
///
/// # Errors
/// If the checkpoint storage cannot be read.
pub fn savepoints(
    plan: &Plan,
    namespace: &str,
) -> Result<Vec<Result<Savepoint, StorageError>>, StorageError> {
    let storage = open_storage(plan, namespace)?;
    let names = storage.savepoints()?;
    let mut all: Vec<_> =
        names.iter().map(|name| read(&storage, name).map(|(savepoint, _)| savepoint)).collect();
    all.sort_by_key(|savepoint| savepoint.as_ref().map_or(i64::MAX, |savepoint| savepoint.created_ms));
    Ok(all)
}

/// Copies a savepoint's files back, and writes the manifest that names them. `incarnation` and `attempt` make names that nobody has
/// used; `kept` are the snapshots to keep beside it.
///
/// # Errors
/// Those of the file system.
pub fn import(
    storage: &ShardStorage,
    from: &ShardStorage,
    mut manifest: Manifest,
    epoch: Epoch,
    attempt: &str,
    incarnation: &str,
    kept: Vec<KeptSnapshot>,
) -> Result<ManifestRef, StorageError> {
    let mut sources = vec![];
    let mut targets = vec![];
    let segments: Vec<String> = manifest.live.files().map(str::to_owned).collect();
    for (number, file) in segments.iter().enumerate() {
        sources.push(FileName::parse(file)?);
        targets.push(FileName::snapshot(epoch.0, &format!("{attempt}-{number}"))?);
    }
    manifest.live = manifest.live.renamed(|file| {
        let number = segments.iter().position(|segment| segment == file);
        number.map_or_else(String::new, |number| targets[number].as_str().to_owned())
    });
    for file in manifest.cold.iter_mut().flat_map(|cold| &mut cold.files) {
        sources.push(FileName::parse(&file.stored)?);
        let target = FileName::cold(&format!("{incarnation}-imported"), &file.local)?;
        file.stored = target.as_str().to_owned();
        targets.push(target);
    }
    copy(from, &sources, storage, &targets)?;
    manifest.epoch = epoch;
    manifest.attempt = attempt.to_owned();
    manifest.kept = kept.into_iter().map(Into::into).collect();
    let name = FileName::snapshot(epoch.0, attempt)?;
    let json =
        serde_json::to_vec(&manifest).map_err(|error| StorageError::io(storage.path(&name), error.into()))?;
    storage.create(&name, |out| {
        let (mut out, _) = SegmentWriter::new(out)?.finish(&json)?;
        io::Write::flush(&mut out)
    })?;
    Ok(ManifestRef { file: name.as_str().to_owned(), hash: manifest::hash(&json) })
}

/// Links or copies files from one directory into another, under other names; durable when it returns.
fn copy(
    from: &ShardStorage,
    sources: &[FileName],
    to: &ShardStorage,
    targets: &[FileName],
) -> Result<(), StorageError> {
    let paths: Vec<PathBuf> = sources.iter().map(|name| from.path(name)).collect();
    let files: Vec<_> = paths.iter().map(PathBuf::as_path).zip(targets).collect();
    to.link_in(&files)
}

impl Savepoint {
    /// A savepoint that is yet to be made.
    pub fn new(
        name: String,
        pipeline: String,
        created_ms: i64,
        cluster_id: String,
        decision: Decision,
    ) -> Savepoint {
        let format = FORMAT_VERSION;
        Savepoint { format, name, pipeline, created_ms, cluster_id, decision, files: vec![], bytes: 0 }
    }
}

/// Why there is no such savepoint, for people.
pub fn unreadable(storage: &ShardStorage, name: &str, error: &StorageError) -> String {
    if error.kind() != StorageErrorKind::Missing {
        return error.to_string();
    }
    match storage.savepoints() {
        Ok(names) if !names.is_empty() => {
            format!("there is no savepoint `{name}`; there are {}", names.join(", "))
        }
        _ => format!("there is no savepoint `{name}`"),
    }
}
