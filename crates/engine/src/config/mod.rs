//! A pipeline file → [`Plan`], or everything that is wrong with it.
//!
//! ```text
//! text ─document→ nodes with positions ─spec→ typed values ─compile→ Plan
//! ```
//!
//! [`compile()`] is the one gate: after it nothing needs checking again. Nothing is skipped silently: what is documented but not
//! supported yet is a diagnostic ([`Code::NotYet`](crate::diagnostics::Code::NotYet)), as is every key that nobody knows.

mod compile;
mod document;
mod spec;

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::plan::Plan;

pub use document::Environment;
pub use spec::{Checkpoint, Kafka, Restart, State};

/// What holds where a pipeline file says nothing. What the defaults leave out as well is built in.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// How to reach the cluster; a pipeline's properties go before these, one by one.
    pub kafka: Kafka,
    /// When and where to checkpoint.
    pub checkpoint: Checkpoint,
    /// What to do after a failure.
    pub restart: Option<Restart>,
    /// Where state lives.
    pub state: State,
}

/// Compiles the pipeline `text`, which came from `file`.
///
/// # Errors
/// All mistakes of the file.
pub fn compile(
    file: &str,
    text: &str,
    defaults: &Defaults,
    environment: Environment,
) -> Result<Plan, Diagnostics> {
    let mut found: Vec<Diagnostic> = vec![];
    let root = document::parse(text, environment, &mut found);
    let spec = root.as_ref().and_then(|root| spec::read(root, &mut found));
    let plan = spec.and_then(|spec| compile::compile(&spec, defaults, &mut found));
    match (root, plan) {
        (Some(root), Some(mut plan)) if found.is_empty() => {
            plan.fingerprint = fingerprint(&root, &plan);
            Ok(plan)
        }
        _ => Err(Diagnostics::new(file, text, found)),
    }
}

/// What the file says and what it leaves to the defaults: comments, and defaults that it overrides, are not part of it.
fn fingerprint(root: &document::Node, plan: &Plan) -> u64 {
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    (&plan.kafka, &plan.checkpoint, &plan.restart, &plan.state).hash(&mut hasher);
    hasher.finish()
}

/// Reads the daemon's `defaults` (`kafka`, `checkpoint`, `restart`, `state`, as in a pipeline) from their own text.
///
/// # Errors
/// All mistakes of the text.
pub fn read_defaults(file: &str, text: &str, environment: Environment) -> Result<Defaults, Diagnostics> {
    let mut found: Vec<Diagnostic> = vec![];
    let defaults =
        document::parse(text, environment, &mut found).and_then(|root| spec::defaults(&root, &mut found));
    match defaults {
        Some(defaults) if found.is_empty() => Ok(defaults),
        _ => Err(Diagnostics::new(file, text, found)),
    }
}
