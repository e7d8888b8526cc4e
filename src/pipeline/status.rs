//! How a pipeline is, for probes and metrics.

use std::sync::Arc;

use onceflow_protocol::coordinator::{Outcome, Phase};

use crate::http::{PipelineStatus, Statuses};
use crate::metrics::PipelineMetrics;

/// Tells the probes and the metrics what state a pipeline is in.
pub struct Status {
    pipeline: String,
    statuses: Statuses,
    metrics: Arc<PipelineMetrics>,
}

impl Status {
    /// The status of a pipeline that is starting.
    pub fn new(pipeline: &str, statuses: Statuses, metrics: Arc<PipelineMetrics>) -> Status {
        let status = Status { pipeline: pipeline.to_string(), statuses, metrics };
        status.set("starting", false, String::new());
        status
    }

    /// The coordinator has entered a phase.
    pub fn entered(&self, phase: Phase, fenced_by: Option<&str>) {
        match phase {
            Phase::Fenced => {
                let by = fenced_by.unwrap_or("another instance");
                self.set("fenced", false, format!("another instance has taken over: {by}"));
            }
            Phase::BackingOff | Phase::Looking => self.set("restarting", false, String::new()),
            Phase::Ended => self.set("stopping", false, String::new()),
            phase if phase.has_workers() => self.set("running", true, String::new()),
            _ => self.set("starting", false, String::new()),
        }
    }

    /// The pipeline has come to its end.
    pub fn ended(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Done | Outcome::StoppedWithoutCheckpoint => self.set("stopped", true, String::new()),
            Outcome::Failed(failure) => self.set("failed", false, failure.message.clone()),
            Outcome::Refused(reason) => self.set("failed", false, reason.clone()),
        }
    }

    fn set(&self, state: &'static str, ready: bool, detail: String) {
        self.metrics.set_state(state);
        self.statuses.set(PipelineStatus { name: self.pipeline.clone(), state, ready, detail });
    }
}
