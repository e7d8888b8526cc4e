//! What was checked → [`Plan`], without the columns that nobody uses.
//!
//! A sink uses all columns of what it reads; a step with `select` or a window those that its expressions name; any other step
//! those that its expressions name and those that its readers use. Undeclared members count as one column, [`KEPT`]. What no one uses is not decoded: a member of the input that the
//! pipeline does not look at can hold anything.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::graph::{Graph, Reads};
use super::settings::Settings;
use super::sinks::{AnalyzedHeaders, AnalyzedSink, creations};
use super::streams::{AnalyzedStep, Projected, Shape, Streams, event_time_from};
use super::window::AnalyzedWindow;
use crate::config::spec::{self, Spanned, Spec, TopicFrom};
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::errors_stream;
use crate::expr::{Expr, Scope, Typed};
use crate::metadata::Metadata;
use crate::plan::{
    Aggregate, AggregateFunction, Column, Emits, Format, Group, Headers, KEPT, OutputTopic, Plan, Sink,
    SinkTimestamp, SinkTopic, Source, Start, Step, Stream, Tombstones, UnknownFields, Window, kept_field,
};

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
        Reads::Errors(i) => Stream::Errors(i),
        Reads::Step(i) => Stream::Step(places.get(&i).copied().unwrap_or_default()),
        Reads::Late(i) => Stream::Late(places.get(&i).copied().unwrap_or_default()),
    };

    let sources: Vec<Source> = (0..spec.sources.len()).map(|i| source(i, spec, &streams, &used)).collect();
    let mut schemas: HashMap<Reads, SchemaRef> = HashMap::new();
    for (i, source) in sources.iter().enumerate() {
        schemas.insert(Reads::Source(i), Arc::clone(&source.schema));
        schemas.insert(Reads::Errors(i), Arc::clone(&errors_stream::SCHEMA));
    }

    let mut steps = vec![];
    for &i in &graph.order {
        let analyzed = streams.steps[i].as_ref()?;
        let inputs: Vec<Reads> = graph.inputs[i].iter().copied().collect::<Option<_>>()?;
        let input_schema = match inputs[..] {
            [input] => Arc::clone(schemas.get(&input)?),
            _ => analyzed.input.schema(|name| used.inputs[i].contains(name)),
        };
        let above = above(i, &graph, &streams, spec);
        let built = step(&spec.steps[i], analyzed, input_schema, &used.projected[i], above)
            .map_err(|message| found.push(unbuilt(spec.steps[i].name.span, &message)))
            .ok()?;
        schemas.insert(Reads::Step(i), Arc::clone(&built.output_schema));
        schemas.insert(Reads::Late(i), columns_of(&analyzed.projected, &built.projected_schema));
        steps.push(Step { inputs: inputs.into_iter().map(stream).collect(), ..built });
    }

    let mut output_topics: Vec<OutputTopic> = vec![];
    let mut topic = |name: &str| {
        let place = output_topics.iter().position(|topic| topic.name == name).unwrap_or_else(|| {
            let create = creations(spec).into_iter().find(|(topic, _)| *topic == name);
            let create = create.map(|(_, create)| create.value.clone());
            output_topics.push(OutputTopic { name: name.to_owned(), create });
            output_topics.len() - 1
        });
        u16::try_from(place).ok()
    };
    let mut built_sinks = vec![];
    for ((sink, input), analyzed) in spec.sinks.iter().zip(&graph.sinks).zip(sinks) {
        let (input, analyzed) = ((*input)?, analyzed?);
        let schema = Arc::clone(schemas.get(&input)?);
        let topic = match sink.topic.get()? {
            TopicFrom::One(name) => SinkTopic::One(topic(&name.value)?),
            TopicFrom::Column { allowed, .. } => {
                let entry = |name: &Spanned<String>| Some((name.value.clone(), topic(&name.value)?));
                let allowed = allowed.iter().map(entry).collect::<Option<_>>()?;
                SinkTopic::Column { column: analyzed.topic_from?, allowed }
            }
        };
        let name = sink.name.value.clone();
        let built = build_sink(name, stream(input), topic, analyzed, schema)
            .map_err(|message| found.push(unbuilt(sink.name.span, &message)))
            .ok()?;
        built_sinks.push(built);
    }
    let dead_letter = match spec.dead_letter.get() {
        Some(letters) => Some(topic(&letters.topic.value)?),
        None => None,
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
        tests: vec![],
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
    /// Of what each step has after `select`, or `set` and `unset`.
    projected: Vec<BTreeSet<String>>,
}

impl Used {
    fn of(graph: &Graph, streams: &Streams) -> Used {
        let mut used = Used {
            sources: vec![BTreeSet::new(); streams.sources.len()],
            inputs: vec![BTreeSet::new(); streams.steps.len()],
            projected: vec![BTreeSet::new(); streams.steps.len()],
        };
        let mut outputs = vec![BTreeSet::new(); streams.steps.len()];
        let all = |shape: &Shape| {
            let columns = shape.scope.columns.iter().map(|column| column.name.clone());
            columns.chain(shape.kept.then(|| KEPT.to_owned())).collect::<Vec<_>>()
        };
        for input in graph.sinks.iter().flatten() {
            match input {
                Reads::Source(i) => used.sources[*i].extend(all(&streams.sources[*i])),
                Reads::Step(i) => outputs[*i].extend(all(&streams.shape(*input))),
                // What is late is all that comes to the window, which see below; errors have columns of their own.
                Reads::Late(_) | Reads::Errors(_) => {}
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
            let mut projected: BTreeSet<String> = match &step.window {
                Some(window) => window_columns(window).collect(),
                None => BTreeSet::new(),
            };
            if step.passes_rows() {
                projected.append(&mut outputs[i]);
            }
            if graph.is_read(Reads::Late(i)) {
                projected.extend(all(&step.projected));
            }
            match &step.project {
                Some(project) => {
                    let project = project.iter().filter(|column| column.is_used(&projected));
                    names.extend(project.flat_map(|column| column.typed.columns.clone()));
                    names.extend(projected.get(KEPT).cloned());
                }
                None => names.extend(projected.iter().cloned()),
            }
            used.projected[i] = projected;
            // The others are metadata of records, which no stream carries.
            names.retain(|name| name == KEPT || step.input.scope.get(name).is_some());
            for input in graph.inputs[i].iter().flatten() {
                match input {
                    Reads::Source(i) => used.sources[*i].extend(names.iter().cloned()),
                    Reads::Step(i) => outputs[*i].extend(names.iter().cloned()),
                    Reads::Late(_) | Reads::Errors(_) => {}
                }
            }
            used.inputs[i] = names;
        }
        used
    }
}

impl Projected {
    fn is_used(&self, used: &BTreeSet<String>) -> bool {
        !self.through || used.contains(&self.name)
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
    let unknown_fields = match source.unknown_fields.as_ref().map(|fields| fields.value) {
        Some(UnknownFields::Keep) if !used.sources[i].contains(KEPT) => UnknownFields::Ignore,
        unknown_fields => unknown_fields.unwrap_or(UnknownFields::Ignore),
    };
    let declared = match unknown_fields {
        UnknownFields::Ignore => vec![],
        UnknownFields::Error => columns.iter().map(|column| column.path.clone()).collect(),
        // Nor may a member be kept that has the name of a column that comes from another.
        UnknownFields::Keep => {
            columns.iter().flat_map(|column| [column.path.clone(), vec![column.name.value.clone()]]).collect()
        }
    };
    Source {
        name: source.name.value.clone(),
        kafka: source.kafka.as_ref().and_then(super::settings::of_source),
        was: source.was.as_ref().map(|was| was.value.clone()),
        topics: source.topics.iter().map(|topic| topic.value.clone()).collect(),
        patterns: source.patterns.iter().map(|pattern| pattern.value.clone()).collect(),
        start: source.start.unwrap_or(Start::Earliest),
        format: source.format.clone().unwrap_or(Format::Json),
        declared,
        unknown_fields,
        tombstones: source.tombstones.unwrap_or(Tombstones::Error),
        columns: kept
            .iter()
            .map(|&column| Column {
                name: columns[column].name.value.clone(),
                path: columns[column].path.clone(),
                place: column,
                data_type: columns[column].data_type.clone().unwrap_or(DataType::Null),
                not_null: columns[column].not_null,
            })
            .collect(),
        schema: streams.sources[i].schema(|name| used.sources[i].contains(name)),
        event_time: event_time_from(streams.event_times[i], &kept),
        max_ahead_ms: source
            .event_time
            .get()
            .and_then(|event_time| event_time.max_ahead)
            .map(|ahead| ahead.as_millis() as i64),
        delay: source.delay,
        idle_after: source.idle_after,
        max_drift: source.max_drift,
        on_error: streams.sources[i].on_error,
    }
}

/// Every `where`, `select` and `set` on the way to the window of step `i`, its own first, up to sources and other windows.
fn above(i: usize, graph: &Graph, streams: &Streams, spec: &Spec) -> String {
    let Some(step) = &streams.steps[i] else { return String::new() };
    let mut text = String::new();
    // Writing to a string cannot fail.
    if let Some(filter) = &step.filter {
        let _ = writeln!(text, "where {}", filter.sql);
    }
    let verb = if step.unnest.is_some() { "unnest" } else { "select" };
    for column in step.project.iter().flatten().filter(|column| !column.through) {
        let _ = writeln!(text, "{verb} {:?} = {}", column.name, column.typed.sql);
    }
    if let Some(window) = step.window.as_ref().filter(|window| window.emits == Emits::Rows) {
        text += &window.identity();
    }
    for input in graph.inputs[i].iter().flatten() {
        match *input {
            Reads::Step(i) if streams.steps[i].as_ref().is_some_and(AnalyzedStep::passes_rows) => {
                text += &above(i, graph, streams, spec);
            }
            Reads::Step(i) | Reads::Late(i) => {
                let _ = writeln!(text, "from step {:?}", spec.steps[i].name.value);
            }
            Reads::Source(i) | Reads::Errors(i) => {
                let _ = writeln!(text, "from source {:?}", spec.sources[i].name.value);
            }
        }
    }
    text
}

/// The step, but for its inputs, over rows of the schema `input`. `used`: the columns that its window or its readers use.
fn step(
    spec: &spec::Step,
    analyzed: &AnalyzedStep,
    input: SchemaRef,
    used: &BTreeSet<String>,
    above: String,
) -> Result<Step, String> {
    let projected = analyzed.project.iter().flatten().filter(|column| column.is_used(used));
    let names = analyzed.filter.iter().chain(projected.clone().map(|column| &column.typed));
    let input_schema = with_metadata(&input, names.flat_map(|typed| &typed.columns).chain(used));
    let mut removed = vec![];
    let (project, projected_schema) = match &analyzed.project {
        None if analyzed.window.is_some() => (None, Arc::clone(&input_schema)),
        None => (None, input),
        Some(_) => {
            let mut exprs = vec![];
            let mut fields = vec![];
            for Projected { name, typed, .. } in projected {
                exprs.push(typed.build(&input_schema)?);
                fields.push(Field::new(name, typed.data_type.clone(), typed.nullable));
            }
            let mut pass = |field: Field| {
                let Ok(column) = input_schema.index_of(field.name()) else { return };
                exprs.push(Expr::column(field.name(), column, field.data_type().clone()));
                fields.push(field);
            };
            if used.contains(KEPT) {
                pass(kept_field());
                removed.clone_from(&analyzed.removed);
            }
            // What a window behind it reads of the records.
            let own = |name: &str| analyzed.project.iter().flatten().any(|column| column.name == name);
            used.iter()
                .filter(|name| !own(name))
                .filter_map(|name| Metadata::parse(name))
                .for_each(|metadata| pass(metadata.field()));
            (Some(exprs), Arc::new(Schema::new(fields)))
        }
    };
    let unnest = analyzed.unnest.as_ref().and_then(|name| projected_schema.index_of(name).ok());
    let (window, output_schema) = match &analyzed.window {
        None => (None, unnested(&projected_schema, unnest)),
        Some(window) if window.emits == Emits::Rows => {
            let output_schema = columns_of(&analyzed.projected, &projected_schema);
            (Some(build_window(window, &projected_schema, &output_schema, above)?), output_schema)
        }
        Some(window) => {
            let output_schema = analyzed.output.schema(|_| true);
            (Some(build_window(window, &projected_schema, &output_schema, above)?), output_schema)
        }
    };
    Ok(Step {
        name: spec.name.value.clone(),
        was: spec.was.as_ref().map(|was| was.value.clone()),
        inputs: vec![],
        filter: bind(analyzed.filter.as_ref(), &input_schema)?,
        input_schema,
        project,
        unnest,
        removed,
        projected_schema,
        window,
        output_schema,
        on_error: analyzed.input.on_error,
    })
}

/// The schema with elements in the place of a column's lists.
fn unnested(schema: &SchemaRef, column: Option<usize>) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let Some(field) = column.and_then(|column| fields.get_mut(column)) else { return Arc::clone(schema) };
    if let DataType::List(item) = field.data_type() {
        *field = Arc::new(Field::new(field.name(), item.data_type().clone(), true));
    }
    Arc::new(Schema::new(fields))
}

/// The columns that come to a window, but for the metadata that the window reads beside them.
fn columns_of(projected: &Shape, schema: &SchemaRef) -> SchemaRef {
    let is_column = |name: &str| name == KEPT || projected.scope.get(name).is_some();
    let fields = schema.fields().iter().filter(|field| is_column(field.name())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema, and behind it what these names read of a record beyond its columns.
fn with_metadata<'a>(schema: &SchemaRef, names: impl Iterator<Item = &'a String>) -> SchemaRef {
    let names: BTreeSet<&String> = names.filter(|name| schema.index_of(name).is_err()).collect();
    let metadata: Vec<_> = names.into_iter().filter_map(|name| Metadata::parse(name)).collect();
    if metadata.is_empty() {
        return Arc::clone(schema);
    }
    let fields = metadata.iter().map(|metadata| Arc::new(metadata.field()));
    Arc::new(Schema::new(schema.fields().iter().cloned().chain(fields).collect::<Vec<_>>()))
}

fn build_window(
    window: &AnalyzedWindow,
    input: &Schema,
    output: &Schema,
    above: String,
) -> Result<Window, String> {
    let group = |(name, typed): &(String, Typed)| {
        Ok(Group { name: name.clone(), expr: typed.build(input)?, data_type: typed.data_type.clone() })
    };
    let aggregate = |(name, call): &(String, crate::expr::AggregateCall)| {
        Ok(Aggregate {
            name: name.clone(),
            identity: AnalyzedWindow::aggregate_identity(call),
            sql: call.sql.clone(),
            function: call.function,
            argument: bind(call.argument.as_ref(), input)?,
            argument_type: call.argument.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone()),
            result_type: call.result_type.clone(),
        })
    };
    let spec = window.spec.ok_or("the window has no size")?;
    let asked_for = window.aggregates.iter().map(aggregate).collect::<Result<Vec<_>, String>>()?;
    let mut built = Window {
        spec,
        group_by: window.groups.iter().map(group).collect::<Result<_, String>>()?,
        aggregates: vec![],
        having: bind(window.having.as_ref(), output)?,
        lateness_ms: window.lateness_ms,
        emits: window.emits,
        late: window.late,
        identity: window.identity(),
        above,
    };
    let own = session_bounds().into_iter().take(built.own_aggregates());
    built.aggregates = own.chain(asked_for).collect();
    Ok(built)
}

/// A session's first and last event: its bounds are two aggregates of it, before all others. The first is the time of a row that was kept. Nobody else's can have these names.
fn session_bounds() -> [Aggregate; 2] {
    let bound = |name: &str, function, call: &str| Aggregate {
        name: name.to_owned(),
        identity: format!("{call} of event time"),
        sql: format!("{call}(event time)"),
        function,
        argument: None,
        argument_type: DataType::Int64,
        result_type: DataType::Int64,
    };
    [bound("window_start", AggregateFunction::Min, "min"), bound("window_end", AggregateFunction::Max, "max")]
}

fn build_sink(
    name: String,
    input: Stream,
    topic: SinkTopic,
    sink: AnalyzedSink,
    schema: SchemaRef,
) -> Result<Sink, String> {
    let named = match &sink.headers {
        AnalyzedHeaders::Named(named) => named.as_slice(),
        AnalyzedHeaders::None | AnalyzedHeaders::Forward => &[],
    };
    let exprs = [&sink.filter, &sink.timestamp, &sink.partition].into_iter().flatten();
    let exprs = exprs.chain(named.iter().map(|(_, typed)| typed));
    let input_schema = with_metadata(&schema, exprs.flat_map(|typed| &typed.columns));
    let headers = match sink.headers {
        AnalyzedHeaders::None => Headers::None,
        AnalyzedHeaders::Forward => Headers::Forward,
        AnalyzedHeaders::Named(named) => {
            let header = |(name, typed): (String, Typed)| Ok((name, typed.build(&input_schema)?));
            Headers::Exprs(named.into_iter().map(header).collect::<Result<_, String>>()?)
        }
    };
    let timestamp = match bind(sink.timestamp.as_ref(), &input_schema)? {
        Some(expr) => SinkTimestamp::Expr(expr),
        None if sink.as_it_came => SinkTimestamp::Incoming,
        None => SinkTimestamp::EventTime,
    };
    Ok(Sink {
        name,
        input,
        topic,
        filter: bind(sink.filter.as_ref(), &input_schema)?,
        key: sink.key,
        headers,
        timestamp,
        partition: bind(sink.partition.as_ref(), &input_schema)?,
        schema,
        input_schema,
        value: sink.value,
        on_error: sink.on_error,
    })
}

fn bind(typed: Option<&Typed>, schema: &Schema) -> Result<Option<Expr>, String> {
    typed.map(|typed| typed.build(schema)).transpose()
}

impl Scope {
    /// The columns that `keep` wants, as Arrow's schema. All types are known once nothing was wrong.
    pub(super) fn schema(&self, keep: impl Fn(&str) -> bool) -> SchemaRef {
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
