//! A simulated checkpoint storage: files that are written, become visible, and become durable in steps of their own.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use onceflow_engine::state::cold::{ColdRow, Run};
use onceflow_engine::state::extents::LiveExtents;
use onceflow_protocol::coordinator::KeptSnapshot;
use onceflow_protocol::{Decision, Epoch, Frontiers};

use crate::fold::FoldState;

/// What a snapshot says of itself.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// The epoch it ends.
    pub epoch: u64,
    /// Frontiers of the windowed steps.
    pub frontiers: Vec<Frontiers>,
    /// Workers that wrote it.
    pub workers: usize,
    /// The engine's live extents.
    pub live: LiveExtents,
    /// The engine's cold runs, and the files that hold them.
    pub cold: Vec<(String, Run)>,
    /// The first generation that is free.
    pub next_generation: u64,
    /// Snapshots that stay beside this one.
    pub kept: Vec<KeptSnapshot>,
}

impl Manifest {
    /// Every file that it names, `own` included.
    pub fn files(&self, own: &str) -> Vec<String> {
        let segments = self.live.files().map(str::to_owned);
        let cold = self.cold.iter().map(|(file, _)| file.clone());
        let mut files: Vec<String> = segments.chain(cold).chain([own.to_owned()]).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// A copy of a committed snapshot, complete in itself.
#[derive(Clone, Debug)]
pub struct Savepoint {
    /// What it is a copy of.
    pub decision: Decision,
    /// Its files, by the names that they had.
    pub files: BTreeMap<String, File>,
}

impl Savepoint {
    /// The manifest, unless nothing had been written when it was made; an error says what is missing.
    pub fn manifest(&self) -> Result<Option<(&File, Rc<Manifest>)>, String> {
        let Some(reference) = &self.decision.manifest else { return Ok(None) };
        let file = self.files.get(&reference.file);
        let Some((file, manifest)) = file.and_then(|file| Some((file, file.manifest.clone()?))) else {
            return Err(format!("{} is missing in the savepoint", reference.file));
        };
        match manifest.files(&reference.file).iter().find(|name| !self.files.contains_key(*name)) {
            Some(missing) => Err(format!("{missing} is missing in the savepoint")),
            None => Ok(Some((file, manifest))),
        }
    }
}

/// What is in a file.
#[derive(Clone, Debug)]
pub enum Content {
    /// A fold's state, by worker.
    Fold(Rc<Vec<FoldState>>),
    /// A segment of the engine.
    Segment(Rc<Vec<u8>>),
    /// A cold run of the engine.
    Cold(Arc<Vec<ColdRow>>),
}

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its manifest, if it is a snapshot's.
    pub manifest: Option<Rc<Manifest>>,
    /// The rest.
    pub content: Content,
    /// The process that wrote it, until it is fsynced with its directory.
    pub unsynced_by: Option<u64>,
    /// Cut off in the middle.
    pub torn: bool,
}

/// The storage of one shard.
#[derive(Debug, Default)]
pub struct Storage {
    files: BTreeMap<String, File>,
    /// Savepoints by name: they lie apart, where nobody lists or deletes.
    pub savepoints: BTreeMap<String, Savepoint>,
    /// What the `confirmed` object says: epoch, and requests applied.
    pub confirmed: Option<(Epoch, Vec<String>)>,
}

impl Storage {
    /// The names of all files.
    pub fn list(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// A whole file.
    pub fn read(&self, name: &str) -> Option<&File> {
        self.files.get(name).filter(|file| !file.torn)
    }

    /// Makes a file visible; it is durable only after [`sync`](Self::sync).
    pub fn write(&mut self, name: String, file: File) {
        self.files.insert(name, file);
    }

    /// Makes a file durable.
    pub fn sync(&mut self, name: &str) {
        if let Some(file) = self.files.get_mut(name) {
            file.unsynced_by = None;
        }
    }

    /// Deletes a file.
    pub fn delete(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// The machine of a process lost its power: each file that it had not fsynced is gone, or cut off.
    pub fn lose_power(&mut self, process: u64, mut torn: impl FnMut() -> bool) -> usize {
        let lost: Vec<String> = self
            .files
            .iter()
            .filter(|(_, file)| file.unsynced_by == Some(process))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &lost {
            if torn() {
                let file = self.files.get_mut(name).expect("it was just listed");
                file.torn = true;
                file.unsynced_by = None;
            } else {
                self.files.remove(name);
            }
        }
        lost.len()
    }
}
