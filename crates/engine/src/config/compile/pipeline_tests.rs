//! `tests`: names of sources and sinks in place.

use crate::config::spec::{self, Given, GivenRecord, Spanned, Spec};
use crate::diagnostics::{Code, Diagnostic};
use crate::plan::{Expected, Happening, PipelineTest};

pub(super) fn compile(spec: &Spec, found: &mut Vec<Diagnostic>) -> Vec<PipelineTest> {
    let test = |test: &spec::PipelineTest| {
        let given = |given: &Given, found: &mut Vec<Diagnostic>| match given {
            Given::Happening(happening) => Some(happening.clone()),
            Given::Record(given) => record(given, spec, found),
        };
        let input = test.input.iter().filter_map(|one| given(one, found)).collect();
        let sink = |(name, records): &(Spanned<String>, Vec<Expected>)| {
            let names: Vec<&str> = spec.sinks.iter().map(|sink| sink.name.value.as_str()).collect();
            Some((place(name, "sink", &names, found)?, records.clone()))
        };
        PipelineTest {
            name: test.name.value.clone(),
            input,
            output: test.output.iter().filter_map(sink).collect(),
            dead_letters: test.dead_letters.clone(),
        }
    };
    spec.tests.iter().map(test).collect()
}

/// A record of the source that it names, or of the only one.
fn record(given: &GivenRecord, spec: &Spec, found: &mut Vec<Diagnostic>) -> Option<Happening> {
    let names: Vec<&str> = spec.sources.iter().map(|source| source.name.value.as_str()).collect();
    let source = match &given.source {
        Some(name) => place(name, "source", &names, found)?,
        None if names.len() < 2 => 0,
        None => {
            let message = "a record of which `source`?";
            let hint = format!("there are {}", names.join(", "));
            found.push(Diagnostic::new(Code::MissingKey, given.span, message).hint(hint));
            return None;
        }
    };
    let of = spec.sources.get(source)?;
    let topic = match (&given.topic, of.topics.first()) {
        (Some(topic), _) => {
            let read = of.topics.iter().any(|name| name.value == topic.value)
                || of.patterns.iter().any(|pattern| pattern.value.matches(&topic.value));
            if !read {
                let message = format!("`{}` does not read the topic `{}`", of.name.value, topic.value);
                found.push(Diagnostic::new(Code::BadValue, topic.span, message));
                return None;
            }
            topic.value.clone()
        }
        (None, Some(first)) => first.value.clone(),
        (None, None) => {
            let message = "a record of which `topic`? The source reads whatever matches a pattern";
            found.push(Diagnostic::new(Code::MissingKey, given.span, message));
            return None;
        }
    };
    Some(Happening::Record { source, topic, partition: given.partition, message: given.message.clone() })
}

fn place(name: &Spanned<String>, what: &str, names: &[&str], found: &mut Vec<Diagnostic>) -> Option<usize> {
    let place = names.iter().position(|known| *known == name.value);
    if place.is_none() {
        let message = format!("there is no {what} `{}`", name.value);
        let diagnostic = Diagnostic::new(Code::UnknownStream, name.span, message);
        found.push(diagnostic.nearest(&name.value, names.iter().copied()));
    }
    place
}
