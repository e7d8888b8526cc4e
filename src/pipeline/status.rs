//! How a pipeline is, for probes and metrics.

use std::sync::{Arc, Mutex, MutexGuard};

use onceflow_protocol::coordinator::{Outcome, Phase};

use crate::metrics::PipelineMetrics;

/// How one pipeline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// One of [`PIPELINE_STATES`](crate::metrics::PIPELINE_STATES).
    pub state: &'static str,
    /// Whether it does its work.
    pub ready: bool,
    /// What an operator should know: whom it was fenced by, why it failed. May be empty.
    pub detail: String,
}

/// The pipelines of this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    shared: Arc<Mutex<Vec<PipelineStatus>>>,
}

impl Statuses {
    /// Sets what is known of a pipeline; it is found by its name.
    pub fn set(&self, status: PipelineStatus) {
        let mut all = self.lock();
        match all.iter_mut().find(|known| known.name == status.name) {
            Some(known) => *known = status,
            None => all.push(status),
        }
    }

    /// Forgets a pipeline.
    pub fn remove(&self, pipeline: &str) {
        self.lock().retain(|known| known.name != pipeline);
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<PipelineStatus> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PipelineStatus>> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

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
            Outcome::Done | Outcome::StoppedWithoutCheckpoint | Outcome::Abandoned => {
                self.set("stopped", true, String::new())
            }
            Outcome::Failed(failure) => self.set("failed", false, failure.message.clone()),
            Outcome::Refused(reason) => self.set("failed", false, reason.clone()),
        }
    }

    fn set(&self, state: &'static str, ready: bool, detail: String) {
        self.metrics.set_state(state);
        self.statuses.set(PipelineStatus { name: self.pipeline.clone(), state, ready, detail });
    }
}
