//! [`Spec`] → [`Plan`]: everything is checked against everything else.
//!
//! 1. [`graph`]: names → streams, in an order in which each step comes after what it reads.
//! 2. [`streams`] and [`window`]: types and expressions of each step, from the sources down.
//! 3. [`sinks`]: what is written, and under which key.
//! 4. [`build`]: when nothing was wrong, the columns that nobody uses are left out, and expressions are bound to what remains.

mod build;
mod graph;
mod pipeline_tests;
mod settings;
mod sinks;
mod streams;
mod window;

use super::Defaults;
use super::spec::{Part, Spec};
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::expr::Mistake;
use crate::plan::Plan;

/// `None` where something is wrong; `found` then says what.
pub fn compile(spec: &Spec, defaults: &Defaults, found: &mut Vec<Diagnostic>) -> Option<Plan> {
    let settings = settings::settle(spec, defaults, found);
    let dead_letter = DeadLetter::of(&spec.dead_letter);
    let graph = graph::resolve(spec, found);
    let streams = streams::analyze(spec, &graph, dead_letter, found);
    let sinks = sinks::analyze(spec, &graph, &streams, found);
    graph::check_topics(spec, found);
    let tests = pipeline_tests::compile(spec, found);
    if !found.is_empty() {
        return None;
    }
    let plan = build::build(spec, settings?, graph, streams, sinks, found)?;
    Some(Plan { tests, ..plan })
}

/// Whether there is a dead letter topic, as far as that can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadLetter {
    Absent,
    There,
}

impl DeadLetter {
    fn of(part: &Part<super::spec::DeadLetter>) -> DeadLetter {
        match part {
            Part::Absent => DeadLetter::Absent,
            // One that is there and wrong is no reason to complain that there is none.
            Part::Invalid | Part::Is(_) => DeadLetter::There,
        }
    }

    /// Reports at `span` that `what` needs the topic.
    fn require(self, span: Span, what: &str, found: &mut Vec<Diagnostic>) {
        if self == DeadLetter::Absent {
            let message = format!("{what} needs a dead letter topic, and the pipeline has none");
            let hint = "add `dead_letter: { topic: … }` to the pipeline";
            found.push(Diagnostic::new(Code::NoDeadLetter, span, message).hint(hint));
        }
    }
}

/// Reports the mistakes of an expression at their places in the file.
fn report(sql: &super::spec::Sql, mistakes: Vec<Mistake>, found: &mut Vec<Diagnostic>) {
    for mistake in mistakes {
        let span = sql.span_of(mistake.at);
        let Mistake { code, message, label, hint, .. } = mistake;
        found.push(Diagnostic { code, span, message, label, hint });
    }
}
