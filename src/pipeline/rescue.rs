//! The way out when the newest snapshot is damaged: a savepoint of an older one, made from the storage alone.
//!
//! Only of a snapshot that is known to be committed. A file that was left behind by an attempt whose transaction was aborted looks the same,
//! and going on from it would lose what that attempt had put out.

use std::collections::BTreeMap;
use std::path::Path;

use onceflow_protocol::{ClaimId, Decision, FORMAT_VERSION};
use thiserror::Error;

use super::context::{SHARD, wall_clock_ms};
use super::history::{CheckpointStatus, History};
use super::manifest::Manifest;
use super::savepoint::{self, Savepoint};
use super::verify::{Look, snapshots};
use crate::storage::{ShardStorage, StorageError};

/// Why there is no savepoint of that checkpoint.
#[derive(Debug, Error)]
pub enum RescueError {
    /// Of the file system.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// There is no storage of this pipeline, or none of its snapshots is known to be committed.
    #[error("there is no snapshot of `{0}` that is known to be committed")]
    Empty(String),
    /// No snapshot of that epoch that is known to be committed.
    #[error("there is no committed snapshot of epoch {epoch}; there are: {found}")]
    Unknown {
        /// The epoch that was asked for.
        epoch: u64,
        /// The epochs that there are.
        found: String,
    },
    /// The snapshot is not whole.
    #[error("the snapshot of epoch {epoch} is damaged, too:\n  {problems}")]
    Damaged {
        /// The epoch that was asked for.
        epoch: u64,
        /// What is wrong with it.
        problems: String,
    },
}

/// Makes the savepoint `name` of the committed snapshot of `epoch`, once every byte of that was read and found right. `begins` hears which file
/// is read next.
///
/// # Errors
/// If there is no such snapshot, if it is damaged, if there is a savepoint of that name, and those of the file system.
pub fn rescue(
    root: &Path,
    namespace: &str,
    pipeline: &str,
    epoch: u64,
    name: &str,
    begins: &mut dyn FnMut(&str),
) -> Result<Savepoint, RescueError> {
    let storage = ShardStorage::existing(root, namespace, pipeline, SHARD)?
        .ok_or_else(|| RescueError::Empty(pipeline.to_owned()))?;
    let mut look = Look::new(&storage, begins);
    let committed = committed(&storage, &mut look)?;
    if committed.is_empty() {
        return Err(RescueError::Empty(pipeline.to_owned()));
    }
    let Some(file) = committed.get(&epoch) else {
        let found: Vec<String> = committed.keys().map(u64::to_string).collect();
        return Err(RescueError::Unknown { epoch, found: found.join(", ") });
    };
    let (verified, read) = look.snapshot(file, None);
    let Some((manifest, reference)) = read.filter(|_| verified.problems.is_empty()) else {
        return Err(RescueError::Damaged { epoch, problems: verified.problems.join("\n  ") });
    };
    let decision = Decision { manifest: Some(reference), ..decision_of(&manifest) };
    let cluster = manifest.cluster_id.clone();
    let savepoint = Savepoint::new(name.to_owned(), pipeline.to_owned(), wall_clock_ms(), cluster, decision);
    Ok(savepoint::make(&storage, Some(&manifest), savepoint)?)
}

/// Files of snapshots that are known to be committed, by epoch: each that a later one keeps beside itself, and each that the history saw
/// complete.
fn committed(storage: &ShardStorage, look: &mut Look) -> Result<BTreeMap<u64, String>, StorageError> {
    let there = snapshots(storage)?;
    let history = History::default();
    history.read(storage)?;
    let completed = |record: &super::CheckpointRecord| record.status == CheckpointStatus::Completed;
    let mut committed: BTreeMap<u64, String> = history
        .newest(usize::MAX)
        .into_iter()
        .filter(completed)
        .filter_map(|record| Some((record.epoch, record.snapshot?)))
        .collect();
    for file in &there {
        if let Ok((manifest, _)) = look.manifest(file, None) {
            committed.extend(manifest.kept.into_iter().map(|kept| (kept.epoch.0, kept.manifest.file)));
        }
    }
    committed.retain(|_, file| there.contains(file));
    Ok(committed)
}

/// What was decided with a snapshot, as far as a start needs it; who decided is not written there.
fn decision_of(manifest: &Manifest) -> Decision {
    Decision {
        version: FORMAT_VERSION,
        epoch: manifest.epoch,
        attempt: manifest.attempt.clone(),
        claim: ClaimId(String::new()),
        transactional_id: String::new(),
        positions: manifest.positions.clone(),
        counts: manifest.counts,
        requests: vec![],
        manifest: None,
        discarded: vec![],
        topics: manifest.topics.clone(),
    }
}
