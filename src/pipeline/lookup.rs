//! Asking a running pipeline for one key: a question to all workers, and what their answers come to.

use std::sync::Arc;

use onceflow_engine::lookup::{Held, Key, held, parse_key};
use onceflow_engine::plan::Plan;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::messages::{FoundByStep, Question};
use super::requests::Request;

/// What a step has of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OfKey {
    /// What it holds, possibly nothing.
    Held(Held),
    /// It has no such keys: how they are written.
    NoKey(String),
}

/// Why nothing can be said of a key.
#[derive(Clone, Debug, PartialEq)]
pub enum NoAnswer {
    /// No step has such keys.
    NoSuchKey(String),
    /// The pipeline does not run, or was started again meanwhile.
    NotRunning,
    /// The workers had something else to do for too long.
    Busy,
    /// The cold store could not be read.
    Failed(String),
}

/// A question under way.
pub struct Search {
    plan: Arc<Plan>,
    /// By windowed step.
    keys: Vec<Result<Key, String>>,
    answers: UnboundedReceiver<Result<FoundByStep, String>>,
}

impl Search {
    /// Looks for the key that a text names, in all steps that have such keys; and what has to be asked of the pipeline.
    ///
    /// # Errors
    /// [`NoAnswer::NoSuchKey`].
    pub fn new(plan: Arc<Plan>, text: &str) -> Result<(Search, Request), NoAnswer> {
        let keys: Vec<_> = plan.windows().map(|(_, window)| parse_key(&window.group_by, text)).collect();
        if keys.iter().all(Result::is_err) {
            let steps =
                plan.windows().zip(&keys).filter_map(|((step, _), key)| Some((step, key.as_ref().err()?)));
            let reasons: Vec<_> = steps.map(|(step, reason)| format!("`{}`: {reason}", step.name)).collect();
            return Err(NoAnswer::NoSuchKey(match reasons.is_empty() {
                true => "the pipeline has no step that keeps anything by key".to_owned(),
                false => format!("no step has such a key; {}", reasons.join("; ")),
            }));
        }
        let (reply, answers) = unbounded_channel();
        let asked = keys.iter().map(|key| key.as_ref().ok().cloned()).collect();
        let request = Request::Find(Question { keys: Arc::new(asked), reply });
        Ok((Search { plan, keys, answers }, request))
    }

    /// What each windowed step has of it, with the step's name, once all workers have answered.
    ///
    /// # Errors
    /// [`NoAnswer::NotRunning`] and [`NoAnswer::Failed`].
    pub async fn found(mut self) -> Result<Vec<(String, OfKey)>, NoAnswer> {
        let mut answers = vec![];
        // Workers that are gone have dropped the question.
        while let Some(answer) = self.answers.recv().await {
            answers.push(answer.map_err(NoAnswer::Failed)?);
        }
        if answers.len() < self.plan.parallelism {
            return Err(NoAnswer::NotRunning);
        }
        let steps = self.plan.windows().zip(self.keys).enumerate();
        let of_key = steps.map(|(number, ((step, window), key))| {
            let found = answers.iter_mut().filter_map(|answer| answer.get_mut(number)?.take());
            let of_key = match key {
                Ok(_) => OfKey::Held(held(window, &found.collect::<Vec<_>>())),
                Err(reason) => OfKey::NoKey(reason),
            };
            (step.name.clone(), of_key)
        });
        Ok(of_key.collect())
    }
}
