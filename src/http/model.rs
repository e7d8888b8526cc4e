//! What the API answers with. The commands read the same types, so that both sides agree.

use onceflow_protocol::coordinator::Outcome;
use serde::{Deserialize, Serialize};

use crate::pipeline::{CheckpointRecord, PipelineStatus, Progress, Why, wall_clock_ms};

/// `GET /api/v1/pipelines`. Partitions and steps are left out of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pipelines {
    /// Every pipeline.
    pub pipelines: Vec<Overview>,
}

/// `GET /api/v1/pipelines/{p}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The pipeline's name.
    pub name: String,
    /// `starting`, `running`, `restarting`, `stopping`, `stopped`, `fenced` or `failed`.
    pub state: String,
    /// Whether it does its work.
    pub ready: bool,
    /// What an operator should know; may be empty.
    pub detail: String,
    /// Where it was read.
    pub file: String,
    /// Milliseconds since it began to run without a failure; none while it does not.
    pub uptime_ms: Option<i64>,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Progress,
    /// Its newest checkpoint, completed or failed.
    pub last_checkpoint: Option<CheckpointRecord>,
}

impl Overview {
    /// Puts together what is known.
    pub fn new(
        status: PipelineStatus,
        file: String,
        progress: Progress,
        last_checkpoint: Option<CheckpointRecord>,
    ) -> Overview {
        let uptime_ms = progress.running_since_ms.map(|since| (wall_clock_ms() - since).max(0));
        let PipelineStatus { name, state, ready, detail } = status;
        Overview { name, state: state.to_owned(), ready, detail, file, uptime_ms, progress, last_checkpoint }
    }
}

/// `GET /api/v1/pipelines/{p}/why`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reasons {
    /// What each windowed step waits for.
    pub steps: Vec<Why>,
}

/// `GET /api/v1/pipelines/{p}/checkpoints`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Checkpoints {
    /// Newest first.
    pub checkpoints: Vec<CheckpointRecord>,
}

/// `POST /api/v1/pipelines/{p}/checkpoints`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Triggered {
    /// It is committed.
    Completed {
        /// The checkpoint.
        checkpoint: Box<CheckpointRecord>,
    },
    /// Nothing had changed.
    Unchanged {
        /// The newest committed epoch.
        epoch: u64,
    },
}

/// `POST /api/v1/pipelines/{p}/stop`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// The pipeline.
    pub pipeline: String,
    /// `done`, `stopped_without_checkpoint`, `abandoned`, `failed` or `refused`.
    pub outcome: String,
    /// Why, where it did not end as it should; may be empty.
    pub detail: String,
}

impl Stopped {
    /// How a pipeline ended.
    pub fn new(pipeline: &str, outcome: &Outcome) -> Stopped {
        let (name, detail) = match outcome {
            Outcome::Done => ("done", ""),
            Outcome::StoppedWithoutCheckpoint => (
                "stopped_without_checkpoint",
                "the last records could not be committed; they will be read again",
            ),
            Outcome::Abandoned => ("abandoned", ""),
            Outcome::Failed(failure) => ("failed", failure.message.as_str()),
            Outcome::Refused(reason) => ("refused", reason.as_str()),
        };
        Stopped { pipeline: pipeline.to_owned(), outcome: name.to_owned(), detail: detail.to_owned() }
    }
}
