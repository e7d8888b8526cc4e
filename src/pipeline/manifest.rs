//! The manifest: what one snapshot consists of. It is the footer of the snapshot's own segment file, so that a checkpoint is one
//! file and one fsync; the decision holds its hash.

use std::collections::BTreeMap;

use onceflow_engine::state::cold::{ColdSnapshot, Run};
use onceflow_engine::state::extents::LiveExtents;
use onceflow_protocol::coordinator::KeptSnapshot;
use onceflow_protocol::{Counts, Epoch, Frontiers, ManifestRef, Position, TopicIdentity};
use serde::{Deserialize, Serialize};

/// Version of the manifest's form and of the layouts that it refers to (keys, rows, lanes, segments).
pub const FORMAT_VERSION: u32 = 3;

/// Everything that a restore needs, apart from the rows themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The pipeline.
    pub pipeline: String,
    /// The shard.
    pub shard: u32,
    /// The epoch that the snapshot ends.
    pub epoch: Epoch,
    /// Names the attempt; unique.
    pub attempt: String,
    /// The cluster that the sinks are on, and the sources that have none of their own.
    pub cluster_id: String,
    /// The clusters of the other sources, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub source_clusters: BTreeMap<String, String>,
    /// The source topics.
    pub topics: Vec<TopicIdentity>,
    /// Next offsets and watermarks.
    pub positions: Vec<Position>,
    /// Cumulative over the life of the pipeline.
    pub counts: Counts,
    /// Windowed steps.
    pub steps: Vec<StepState>,
    /// The number that the next new step gets.
    pub next_step_id: u32,
    /// Worker threads that the extents belong to.
    pub workers: usize,
    /// Live extents: the open panes' rows.
    pub live: LiveExtents,
    /// Cold runs.
    pub runs: Vec<Run>,
    /// The generation that the next eviction gets.
    pub next_generation: u64,
    /// Files of the cold store, if it ever held anything.
    pub cold: Option<ColdSnapshot>,
    /// Snapshots kept beside this one, oldest first.
    pub kept: Vec<Kept>,
}

/// A windowed step in a snapshot. State belongs to the step's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    /// Number of its state in extents and runs; never used for another step.
    pub id: u32,
    /// Its name in the pipeline file.
    pub name: String,
    /// What its state depends on: window and groups.
    pub identity: String,
    /// Its aggregates, in the order of the state's bytes.
    pub aggregates: Vec<AggregateState>,
    /// What rows had to pass to get here, and what became of them.
    pub above: String,
    /// How far its windows have got.
    pub frontiers: Frontiers,
}

/// An aggregate in the state of a windowed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregateState {
    /// Its name in the pipeline file.
    pub name: String,
    /// What its state depends on.
    pub identity: String,
    /// Windows that begin before this instant, milliseconds, were open when the aggregate was added: it is not known for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

/// A snapshot that is not to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its epoch.
    pub epoch: Epoch,
    /// Where its manifest is.
    pub manifest: ManifestRef,
    /// Every file it names.
    pub files: Vec<String>,
}

impl From<KeptSnapshot> for Kept {
    fn from(kept: KeptSnapshot) -> Kept {
        Kept { epoch: kept.epoch, manifest: kept.manifest, files: kept.files }
    }
}

impl From<Kept> for KeptSnapshot {
    fn from(kept: Kept) -> KeptSnapshot {
        KeptSnapshot { epoch: kept.epoch, manifest: kept.manifest, files: kept.files }
    }
}

impl Manifest {
    /// Whether the snapshot holds any row of the state with this number.
    pub fn holds(&self, state_id: u32) -> bool {
        self.panes_of(state_id).next().is_some()
    }

    /// The panes of the state with this number, in memory or cold.
    pub fn panes_of(&self, state_id: u32) -> impl Iterator<Item = i64> {
        let live = self.live.extents().iter().map(|extent| (extent.step, extent.pane));
        let cold = self.runs.iter().map(|run| (run.step, run.pane));
        live.chain(cold).filter(move |(step, _)| *step == state_id).map(|(_, pane)| pane)
    }

    /// Every file that a restore of this snapshot needs; `own` is the file that holds the manifest.
    pub fn files(&self, own: &str) -> Vec<String> {
        let extents = self.live.files().map(str::to_string);
        let cold = self.cold.iter().flat_map(|cold| cold.files.iter().map(|file| file.stored.clone()));
        let mut files: Vec<String> = extents.chain(cold).chain([own.to_string()]).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// Hash of a manifest's bytes, as the decision holds it: xxh3-128, hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(bytes))
}
