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
pub mod keys;
mod spec;

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::diagnostics::{Diagnostic, Diagnostics, Secrets, Span, is_secret};
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
    /// Values among the above that may not be shown.
    pub secrets: Secrets,
}

/// Compiles the pipeline `text`, which came from `file`.
///
/// # Errors
/// All mistakes of the file.
pub fn compile(
    file: &str,
    text: &str,
    defaults: &Defaults,
    environment: &dyn Environment,
) -> Result<Plan, Diagnostics> {
    let mut found: Vec<Diagnostic> = vec![];
    let mut document = document::parse(text, environment, &mut found);
    document.secrets.extend(&defaults.secrets);
    let spec = document.root.as_ref().and_then(|root| spec::read(root, &mut found));
    let plan = spec.and_then(|spec| compile::compile(&spec, defaults, &mut found));
    match (&document.root, plan) {
        (Some(root), Some(mut plan)) if found.is_empty() => {
            plan.fingerprint = fingerprint(root, &plan);
            plan.secrets = document.secrets;
            for (name, value) in &plan.kafka.properties {
                if is_secret(name) {
                    plan.secrets.add(value);
                }
            }
            Ok(plan)
        }
        _ => Err(refused(file, text, &document, found)),
    }
}

/// What the file says and what it leaves to the defaults: comments, tests, and defaults that it overrides, are not part of it.
fn fingerprint(root: &document::Node, plan: &Plan) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let document::Value::Map(entries) = &root.value {
        let said = entries.iter().filter(|(key, _)| key.name != "tests");
        said.for_each(|(key, node)| (&key.name, node).hash(&mut hasher));
    }
    (&plan.kafka, &plan.checkpoint, &plan.restart, &plan.state).hash(&mut hasher);
    hasher.finish()
}

/// Reads the daemon's `defaults` (`kafka`, `checkpoint`, `restart`, `state`, as in a pipeline) from their own text.
///
/// # Errors
/// All mistakes of the text.
pub fn read_defaults(file: &str, text: &str, environment: &dyn Environment) -> Result<Defaults, Diagnostics> {
    let mut found: Vec<Diagnostic> = vec![];
    let document = document::parse(text, environment, &mut found);
    let defaults = document.root.as_ref().and_then(|root| spec::defaults(root, &mut found));
    match defaults {
        Some(defaults) if found.is_empty() => Ok(Defaults { secrets: document.secrets, ..defaults }),
        _ => Err(refused(file, text, &document, found)),
    }
}

/// Puts values in place of the `${…}` of one text that stands alone. With them comes what of it may not be shown.
///
/// # Errors
/// All mistakes of the text, which `name` names.
pub fn substitute(
    name: &str,
    text: &str,
    environment: &dyn Environment,
) -> Result<(String, Secrets), Diagnostics> {
    document::substitute(text, environment).map_err(|found| Diagnostics::new(name, text, vec![*found]))
}

fn refused(file: &str, text: &str, document: &document::Document, found: Vec<Diagnostic>) -> Diagnostics {
    let hidden = found.into_iter().map(|item| {
        let of_secret = |span: &Span| span.start < item.span.end && item.span.start < span.end;
        match document.secret_spans.iter().any(of_secret) {
            true => item.map_texts(|text| document.secrets.mask_words(text)),
            false => item.map_texts(|text| document.secrets.mask(text).into_owned()),
        }
    });
    Diagnostics::new(file, text, hidden.collect())
}
