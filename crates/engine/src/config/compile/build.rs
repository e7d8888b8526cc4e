//! What was checked → [`Plan`], without the columns that nobody uses.
//!
//! A sink uses all columns of what it reads; a step with `select` or a window those that its expressions name; any other step
//! those that its filter names and those that its readers use. What no one uses is not decoded: a member of the input that the
//! pipeline does not look at can hold anything.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::graph::{Graph, Reads};
use super::settings::Settings;
use super::sinks::AnalyzedSink;
use super::streams::{AnalyzedStep, Shape, Streams, event_time_from};
use super::window::AnalyzedWindow;
use crate::config::spec::{Part, Spec};
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::expr::{Expr, Scope, Typed};
use crate::plan::{Aggregate, Column, Group, Plan, Sink, Source, Start, Step, Stream, Window};

pub(super) fn build(
    spec: &Spec,
    settings: Settings,
    graph: Graph,
    streams: Streams,
    sinks: Vec<Option<AnalyzedSink>>,
    found: &mut Vec<Diagnostic>,
) -> Option<Plan> {
    let used = Used::of(&graph, &streams);
    let places: HashMap<usize, usize> =
        graph.order.iter().enumerate().map(|(place, i)| (*i, place)).collect();
    let stream = |reads: Reads| match reads {
        Reads::Source(i) => Stream::Source(i),
        Reads::Step(i) => Stream::Step(places.get(&i).copied().unwrap_or_default()),
    };

    let sources: Vec<Source> = (0..spec.sources.len()).map(|i| source(i, spec, &streams, &used)).collect();
    let mut schemas: HashMap<Reads, SchemaRef> = HashMap::new();
    schemas
        .extend(sources.iter().enumerate().map(|(i, source)| (Reads::Source(i), Arc::clone(&source.schema))));

    let mut steps = vec![];
    for &i in &graph.order {
        let analyzed = streams.steps[i].as_ref()?;
        let inputs: Vec<Reads> = graph.inputs[i].iter().copied().collect::<Option<_>>()?;
        let input_schema = match inputs[..] {
            [input] => Arc::clone(schemas.get(&input)?),
            _ => analyzed.input.scope.schema(|name| used.inputs[i].contains(name)),
        };
        let built = step(&spec.steps[i].name.value, analyzed, input_schema)
            .map_err(|message| found.push(unbuilt(spec.steps[i].name.span, &message)))
            .ok()?;
        schemas.insert(Reads::Step(i), Arc::clone(&built.output_schema));
        steps.push(Step { inputs: inputs.into_iter().map(stream).collect(), ..built });
    }

    let mut output_topics: Vec<String> = vec![];
    let mut topic = |name: &str| {
        let place = output_topics.iter().position(|topic| topic == name).unwrap_or_else(|| {
            output_topics.push(name.to_owned());
            output_topics.len() - 1
        });
        u16::try_from(place).ok()
    };
    let mut built_sinks = vec![];
    for ((sink, input), analyzed) in spec.sinks.iter().zip(&graph.sinks).zip(sinks) {
        let (input, analyzed) = ((*input)?, analyzed?);
        let schema = Arc::clone(schemas.get(&input)?);
        let filter = bind(analyzed.filter.as_ref(), &schema)
            .map_err(|message| found.push(unbuilt(sink.name.span, &message)))
            .ok()?;
        built_sinks.push(Sink {
            name: sink.name.value.clone(),
            input: stream(input),
            topic: topic(&sink.topic.as_ref()?.value)?,
            filter,
            key: analyzed.key,
            schema,
            timestamps: sink.timestamps,
            forward_headers: analyzed.forward_headers,
            on_error: analyzed.on_error,
        });
    }
    let dead_letter = match &spec.dead_letter {
        Part::Is(name) => Some(topic(&name.value)?),
        Part::Absent | Part::Invalid => None,
    };
    let Settings { pipeline, kafka, parallelism, checkpoint, restart, state } = settings;
    Some(Plan {
        // Whoever has the document knows them.
        fingerprint: 0,
        secrets: Default::default(),
        pipeline,
        kafka,
        sources,
        steps,
        sinks: built_sinks,
        dead_letter,
        output_topics,
        parallelism,
        checkpoint,
        restart,
        state,
    })
}

/// An expression that was checked and cannot be bound: no mistake of the user, but better said than hidden.
fn unbuilt(span: Span, message: &str) -> Diagnostic {
    Diagnostic::new(Code::TypeMismatch, span, format!("an expression cannot be evaluated: {message}"))
}

/// Names of the columns that are used, by place in the file.
struct Used {
    sources: Vec<BTreeSet<String>>,
    /// Of what comes into each step.
    inputs: Vec<BTreeSet<String>>,
}

impl Used {
    fn of(graph: &Graph, streams: &Streams) -> Used {
        let mut used = Used {
            sources: vec![BTreeSet::new(); streams.sources.len()],
            inputs: vec![BTreeSet::new(); streams.steps.len()],
        };
        let mut outputs = vec![BTreeSet::new(); streams.steps.len()];
        let all =
            |shape: &Shape| shape.scope.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        for input in graph.sinks.iter().flatten() {
            match input {
                Reads::Source(i) => used.sources[*i].extend(all(&streams.sources[*i])),
                Reads::Step(i) => outputs[*i].extend(all(&streams.shape(*input))),
            }
        }
        for (source, event_time) in streams.event_times.iter().enumerate() {
            if let Some((column, ..)) = event_time {
                used.sources[source].insert(streams.sources[source].scope.columns[*column].name.clone());
            }
        }
        // From the last step up, so that each knows what its readers use.
        for &i in graph.order.iter().rev() {
            let Some(step) = &streams.steps[i] else { continue };
            let mut names: BTreeSet<String> =
                step.filter.iter().flat_map(|typed| typed.columns.clone()).collect();
            match (&step.project, &step.window) {
                (Some(project), _) => {
                    names.extend(project.iter().flat_map(|(_, typed)| typed.columns.clone()))
                }
                (None, Some(window)) => names.extend(window_columns(window)),
                (None, None) => names.extend(outputs[i].iter().cloned()),
            }
            for input in graph.inputs[i].iter().flatten() {
                match input {
                    Reads::Source(i) => used.sources[*i].extend(names.iter().cloned()),
                    Reads::Step(i) => outputs[*i].extend(names.iter().cloned()),
                }
            }
            used.inputs[i] = names;
        }
        used
    }
}

fn window_columns(window: &AnalyzedWindow) -> impl Iterator<Item = String> {
    let groups = window.groups.iter().map(|(_, typed)| typed);
    let arguments = window.aggregates.iter().filter_map(|(_, call)| call.argument.as_ref());
    groups.chain(arguments).flat_map(|typed| typed.columns.clone())
}

fn source(i: usize, spec: &Spec, streams: &Streams, used: &Used) -> Source {
    let source = &spec.sources[i];
    let columns = source.schema.as_deref().unwrap_or_default();
    let kept: Vec<usize> =
        (0..columns.len()).filter(|column| used.sources[i].contains(&columns[*column].name.value)).collect();
    Source {
        name: source.name.value.clone(),
        topics: source.topics.iter().map(|topic| topic.value.clone()).collect(),
        start: Start::Earliest,
        columns: kept
            .iter()
            .map(|&column| Column {
                name: columns[column].name.value.clone(),
                path: columns[column].path.clone(),
                data_type: columns[column].data_type.clone().unwrap_or(DataType::Null),
                not_null: columns[column].not_null,
            })
            .collect(),
        schema: streams.sources[i].scope.schema(|name| used.sources[i].contains(name)),
        event_time: event_time_from(streams.event_times[i], &kept),
        watermark_delay_ms: source.delay.map_or(0, |delay| delay.as_millis() as i64),
        idle_after: source.idle_after,
        on_error: streams.sources[i].on_error,
    }
}

/// The step, but for its inputs.
fn step(name: &str, analyzed: &AnalyzedStep, input_schema: SchemaRef) -> Result<Step, String> {
    let (project, projected_schema) = match &analyzed.project {
        None => (None, Arc::clone(&input_schema)),
        Some(project) => {
            let exprs: Result<Vec<Expr>, String> =
                project.iter().map(|(_, typed)| typed.build(&input_schema)).collect();
            let fields: Vec<Field> = project
                .iter()
                .map(|(name, typed)| Field::new(name, typed.data_type.clone(), typed.nullable))
                .collect();
            (Some(exprs?), Arc::new(Schema::new(fields)))
        }
    };
    let (window, output_schema) = match &analyzed.window {
        None => (None, Arc::clone(&projected_schema)),
        Some(window) => {
            let output_schema = analyzed.output.scope.schema(|_| true);
            (Some(build_window(window, &projected_schema, &output_schema)?), output_schema)
        }
    };
    Ok(Step {
        name: name.to_owned(),
        inputs: vec![],
        filter: bind(analyzed.filter.as_ref(), &input_schema)?,
        input_schema,
        project,
        projected_schema,
        window,
        output_schema,
        on_error: analyzed.input.on_error,
    })
}

fn build_window(window: &AnalyzedWindow, input: &Schema, output: &Schema) -> Result<Window, String> {
    let group = |(name, typed): &(String, Typed)| {
        Ok(Group { name: name.clone(), expr: typed.build(input)?, data_type: typed.data_type.clone() })
    };
    let aggregate = |(name, call): &(String, crate::expr::AggregateCall)| {
        Ok(Aggregate {
            name: name.clone(),
            function: call.function,
            argument: bind(call.argument.as_ref(), input)?,
            argument_type: call.argument.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone()),
            result_type: call.result_type.clone(),
        })
    };
    Ok(Window {
        spec: window.spec.ok_or("the window has no size")?,
        group_by: window.groups.iter().map(group).collect::<Result<_, String>>()?,
        aggregates: window.aggregates.iter().map(aggregate).collect::<Result<_, String>>()?,
        having: bind(window.having.as_ref(), output)?,
        lateness_ms: window.lateness_ms,
        late: window.late,
        identity: window.identity(),
    })
}

fn bind(typed: Option<&Typed>, schema: &Schema) -> Result<Option<Expr>, String> {
    typed.map(|typed| typed.build(schema)).transpose()
}

impl Scope {
    /// The columns that `keep` wants, as Arrow's schema. All types are known once nothing was wrong.
    fn schema(&self, keep: impl Fn(&str) -> bool) -> SchemaRef {
        let columns = self.columns.iter().filter(|column| keep(&column.name));
        let fields: Vec<Field> = columns
            .map(|column| {
                let data_type = column.data_type.clone().unwrap_or(DataType::Null);
                Field::new(&column.name, data_type, column.nullable)
            })
            .collect();
        Arc::new(Schema::new(fields))
    }
}
