//! Which stream reads which: names resolved, circles refused, steps in an order that flows down.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::config::spec::{Part, Spanned, Spec};
use crate::diagnostics::{Code, Diagnostic, Span};

/// A stream as the file numbers it; in a [`Plan`](crate::plan::Plan) steps are in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reads {
    /// A source, by its place in the file.
    Source(usize),
    /// A step, by its place in the file.
    Step(usize),
    /// The late rows of a step.
    Late(usize),
    /// The records of a source that failed.
    Errors(usize),
}

/// Who reads what.
#[derive(Debug)]
pub(super) struct Graph {
    /// For each step of the file its inputs; `None` for those that do not exist.
    pub inputs: Vec<Vec<Option<Reads>>>,
    /// For each sink of the file its input.
    pub sinks: Vec<Option<Reads>>,
    /// The steps of the file in an order in which each comes after what it reads. Steps in a circle are missing.
    pub order: Vec<usize>,
}

impl Graph {
    /// Whether a sink reads this stream.
    pub fn is_read(&self, stream: Reads) -> bool {
        self.sinks.contains(&Some(stream))
    }
}

pub(super) fn resolve(spec: &Spec, found: &mut Vec<Diagnostic>) -> Graph {
    let mut names: BTreeMap<&str, Reads> = BTreeMap::new();
    let sources = spec.sources.iter().enumerate().map(|(i, source)| (&source.name, Reads::Source(i)));
    let steps = spec.steps.iter().enumerate().map(|(i, step)| (&step.name, Reads::Step(i)));
    for (name, reads) in sources.chain(steps) {
        if names.contains_key(name.value.as_str()) {
            let message = format!("`{}` names a source already", name.value);
            found.push(
                Diagnostic::new(Code::Repeated, name.span, message)
                    .hint("sources and steps share their names"),
            );
        } else {
            names.insert(&name.value, reads);
        }
    }
    check_former_names(spec, &names, found);
    let mut find = |from: &Spanned<String>, reader: Option<&str>| {
        let stream = match names.get(from.value.as_str()) {
            Some(stream) => Ok(*stream),
            None => side_stream(spec, from, reader.is_none(), &names)
                .unwrap_or_else(|| Err(unknown(from, reader, &names))),
        };
        stream.map_err(|diagnostic| found.push(diagnostic)).ok()
    };
    let mut inputs = vec![];
    for step in &spec.steps {
        inputs.push(step.from.iter().map(|from| find(from, Some(&step.name.value))).collect());
    }
    let sinks = spec.sinks.iter().map(|sink| sink.from.as_ref().and_then(|from| find(from, None))).collect();
    let order = order(spec, &inputs, found);
    Graph { inputs, sinks, order }
}

/// `STEP.late` or `SOURCE.errors`; `None` if it is not of this form.
fn side_stream(
    spec: &Spec,
    from: &Spanned<String>,
    by_sink: bool,
    names: &BTreeMap<&str, Reads>,
) -> Option<Result<Reads, Diagnostic>> {
    let (name, side @ ("late" | "errors")) = from.value.rsplit_once('.')? else { return None };
    let wrong = |code, message: String| Err(Diagnostic::new(code, from.span, message));
    Some(match (names.get(name)?, side) {
        _ if !by_sink => wrong(Code::ByDesign, format!("`{}` can only be read by a sink", from.value)),
        (Reads::Source(i), "errors") => Ok(Reads::Errors(*i)),
        (Reads::Step(i), "late") if !matches!(spec.steps[*i].window, Part::Absent) => Ok(Reads::Late(*i)),
        (_, "late") => {
            wrong(Code::UnknownStream, format!("`{name}` has no `window`: nothing comes too late for it"))
        }
        _ => wrong(
            Code::UnknownStream,
            format!("`{name}` is a step: errors are collected by source, whatever step they happen in"),
        ),
    })
}

/// A former name belongs to one stream that has another name now.
fn check_former_names(spec: &Spec, names: &BTreeMap<&str, Reads>, found: &mut Vec<Diagnostic>) {
    let sources = spec.sources.iter().filter_map(|source| source.was.as_ref());
    let steps = spec.steps.iter().filter_map(|step| step.was.as_ref());
    let mut taken = BTreeSet::new();
    for was in sources.chain(steps) {
        if names.contains_key(was.value.as_str()) {
            let message =
                format!("`{}` is a name that is in use: what it stands for goes on under it", was.value);
            let hint = "`was` says under which name, no longer used, its state or its offsets were kept";
            found.push(Diagnostic::new(Code::Repeated, was.span, message).hint(hint));
        } else if !taken.insert(was.value.as_str()) {
            let message = format!("two streams cannot both have been `{}`", was.value);
            found.push(Diagnostic::new(Code::Repeated, was.span, message));
        }
    }
}

fn unknown(from: &Spanned<String>, itself: Option<&str>, names: &BTreeMap<&str, Reads>) -> Diagnostic {
    let message = format!("there is no source or step `{}`", from.value);
    let others = names.keys().copied().filter(|name| Some(*name) != itself);
    Diagnostic::new(Code::UnknownStream, from.span, message).nearest(&from.value, others)
}

/// Kahn's algorithm, always taking the earliest step of the file that is ready.
fn order(spec: &Spec, inputs: &[Vec<Option<Reads>>], found: &mut Vec<Diagnostic>) -> Vec<usize> {
    let waits: Vec<BTreeSet<usize>> = inputs
        .iter()
        .map(|inputs| {
            inputs
                .iter()
                .filter_map(|input| match input {
                    Some(Reads::Step(i)) => Some(*i),
                    _ => None,
                })
                .collect()
        })
        .collect();
    let mut order: Vec<usize> = vec![];
    let mut done = vec![false; waits.len()];
    while let Some(next) = (0..waits.len()).find(|i| !done[*i] && waits[*i].iter().all(|input| done[*input]))
    {
        done[next] = true;
        order.push(next);
    }
    // What is left is in a circle or below one. Each circle is reported once, where it is entered first.
    let mut told = done;
    for start in 0..waits.len() {
        let (mut path, mut at) = (vec![], start);
        while !told[at] && !path.contains(&at) {
            path.push(at);
            // Every step that is left waits for another one that is left.
            let Some(input) = waits[at].iter().find(|input| !order.contains(*input)) else { break };
            at = *input;
        }
        // Back on the path of this very walk: a circle. On that of an earlier one: it has been told.
        if let Some(entry) = path.iter().position(|step| *step == at)
            && !told[at]
        {
            let circle: Vec<&str> =
                path[entry..].iter().chain([&at]).map(|step| spec.steps[*step].name.value.as_str()).collect();
            let message = format!("steps read each other in a circle: {}", circle.join(" ← "));
            found.push(Diagnostic::new(Code::Cycle, spec.steps[at].name.span, message));
        }
        path.into_iter().for_each(|step| told[step] = true);
    }
    order
}

/// A topic is read once, and what is read is not written. A source with a cluster of its own meets nobody there.
pub(super) fn check_topics(spec: &Spec, found: &mut Vec<Diagnostic>) {
    let mut read: HashMap<(Option<usize>, &str), &str> = HashMap::new();
    let cluster = |source: usize| spec.sources[source].kafka.as_ref().map(|_| source);
    for (i, source) in spec.sources.iter().enumerate() {
        for topic in &source.topics {
            match read.insert((cluster(i), &topic.value), &source.name.value) {
                Some(first) if first == source.name.value => {
                    let message = format!("`{}` is there twice", topic.value);
                    found.push(Diagnostic::new(Code::Repeated, topic.span, message));
                }
                Some(first) => found.push(read_twice(topic.span, &topic.value, first)),
                None => {}
            }
        }
    }
    for (i, source) in spec.sources.iter().enumerate() {
        for pattern in &source.patterns {
            let mut twice: Vec<_> = read
                .iter()
                .filter(|((of, topic), reader)| {
                    *of == cluster(i) && **reader != source.name.value && pattern.value.matches(topic)
                })
                .collect();
            twice.sort();
            found.extend(twice.first().map(|((_, topic), reader)| read_twice(pattern.span, topic, reader)));
        }
    }
    let outputs = spec.sinks.iter().flat_map(|sink| sink.topics());
    for topic in outputs.chain(spec.dead_letter.get().map(|letters| &letters.topic)) {
        let reads = |source: &&crate::config::spec::Source| {
            let named = source.topics.iter().any(|named| named.value == topic.value);
            source.kafka.is_none()
                && (named || source.patterns.iter().any(|pattern| pattern.value.matches(&topic.value)))
        };
        if let Some(source) = spec.sources.iter().find(reads) {
            let (source, topic_name) = (&source.name.value, &topic.value);
            let message =
                format!("the source `{source}` reads `{topic_name}`: the pipeline would feed itself");
            found.push(Diagnostic::new(Code::TopicLoop, topic.span, message));
        }
    }
}

fn read_twice(span: Span, topic: &str, first: &str) -> Diagnostic {
    let message = format!("`{topic}` is read by the source `{first}` already");
    Diagnostic::new(Code::TopicTwice, span, message).hint("several steps can read one source")
}
