//! Columns of every stream, and the expressions that make them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use onceflow_protocol::WindowSpec;

use super::graph::{Graph, Reads};
use super::window::{self, AnalyzedWindow};
use super::{DeadLetter, report};
use crate::config::spec::{Named, Part, Source, Spanned, Spec, Sql, Step};
use crate::diagnostics::{Code, Diagnostic, Span, nearest};
use crate::errors_stream;
use crate::expr::{self, JSON, Scope, ScopeColumn, TIMESTAMP, Typed, is_scalar, sql_type};
use crate::plan::{Emits, EventTimeFrom, Format, KEPT, OnError, Tombstones, UnknownFields, kept_field};

/// Where the rows of a stream come from, which decides what a sink does without a `key` of its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// Every row comes from one source record.
    Record,
    /// Rows were emitted by a window; where the group columns are still there, these are their names.
    Window(Option<Vec<String>>),
    /// Of both kinds, or not known.
    Mixed,
}

/// A stream as its readers see it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub scope: Scope,
    pub origin: Origin,
    pub on_error: OnError,
    /// Whether rows carry the undeclared members of their records.
    pub kept: bool,
    /// The source whose null values go along with the rows.
    pub tombstones: Option<String>,
    /// Rows may replace earlier ones.
    pub replaced: Option<Replaced>,
}

/// Rows of a window that is emitted again when it has changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replaced {
    /// The step that has the window.
    pub step: String,
    /// What it calls the columns that tell its rows apart: its groups and `window_start`. With each its name here, if it is still there.
    pub identity: Vec<(String, Option<String>)>,
}

impl Shape {
    /// A stream of which nothing is known, because of mistakes.
    pub fn unknown() -> Shape {
        let scope = Scope { open: true, ..Scope::default() };
        Shape {
            scope,
            origin: Origin::Mixed,
            on_error: OnError::Fail,
            kept: false,
            tombstones: None,
            replaced: None,
        }
    }

    /// The columns that `keep` wants, as Arrow's schema, [`KEPT`] among them.
    pub fn schema(&self, keep: impl Fn(&str) -> bool) -> SchemaRef {
        let schema = self.scope.schema(&keep);
        if !self.kept || !keep(KEPT) {
            return schema;
        }
        let fields = schema.fields().iter().cloned().chain([Arc::new(kept_field())]);
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// A step whose expressions have been checked.
#[derive(Debug)]
pub(super) struct AnalyzedStep {
    pub filter: Option<Typed>,
    pub project: Option<Vec<Projected>>,
    /// The column of `project` whose lists are taken apart.
    pub unnest: Option<String>,
    /// Names that are taken out of the undeclared members.
    pub removed: Vec<String>,
    pub window: Option<AnalyzedWindow>,
    /// What comes in: the columns of the first input.
    pub input: Shape,
    /// What comes to the window, and is late there.
    pub projected: Shape,
    pub output: Shape,
}

impl AnalyzedStep {
    /// Whether the rows that go out are rows that came in.
    pub fn passes_rows(&self) -> bool {
        self.window.as_ref().is_none_or(|window| window.emits == Emits::Rows)
    }
}

/// A column that `select`, `set` or `unset` leave.
#[derive(Debug)]
pub(super) struct Projected {
    pub name: String,
    pub typed: Typed,
    /// It goes through as it is: not needed where no reader needs it.
    pub through: bool,
}

/// All streams of a file, by their places there.
#[derive(Debug)]
pub(super) struct Streams {
    pub sources: Vec<Shape>,
    /// What `SOURCE.errors` looks like, which is the same for all.
    pub errors: Shape,
    /// For each source which of its columns holds the event time, with the factors to milliseconds.
    pub event_times: Vec<Option<(usize, i64, i64)>>,
    /// `None` for steps in a circle.
    pub steps: Vec<Option<AnalyzedStep>>,
}

impl Streams {
    pub fn shape(&self, stream: Reads) -> Shape {
        match stream {
            Reads::Source(i) => self.sources[i].clone(),
            Reads::Step(i) => self.steps[i].as_ref().map_or_else(Shape::unknown, |step| step.output.clone()),
            Reads::Late(i) => {
                self.steps[i].as_ref().map_or_else(Shape::unknown, |step| step.projected.clone())
            }
            Reads::Errors(_) => self.errors.clone(),
        }
    }
}

pub(super) fn analyze(
    spec: &Spec,
    graph: &Graph,
    dead_letter: DeadLetter,
    found: &mut Vec<Diagnostic>,
) -> Streams {
    let mut streams = Streams {
        sources: (spec.sources.iter().enumerate())
            .map(|(i, source)| source_shape(source, dead_letter, graph.is_read(Reads::Errors(i)), found))
            .collect(),
        errors: errors_shape(dead_letter),
        event_times: spec.sources.iter().map(|source| event_time(source, found)).collect(),
        steps: spec.steps.iter().map(|_| None).collect(),
    };
    for &i in &graph.order {
        let inputs: Vec<Option<Shape>> =
            graph.inputs[i].iter().map(|input| input.map(|stream| streams.shape(stream))).collect();
        let late_is_read = graph.is_read(Reads::Late(i));
        let step = analyze_step(&spec.steps[i], &inputs, dead_letter, late_is_read, found);
        streams.steps[i] = Some(step);
    }
    // Steps in a circle have been reported; what is wrong inside them can be told all the same.
    for (i, step) in spec.steps.iter().enumerate() {
        if streams.steps[i].is_none() {
            analyze_step(step, &[None], dead_letter, graph.is_read(Reads::Late(i)), found);
        }
    }
    streams
}

fn source_shape(
    source: &Source,
    dead_letter: DeadLetter,
    errors_are_read: bool,
    found: &mut Vec<Diagnostic>,
) -> Shape {
    let default = if errors_are_read { OnError::Stream } else { OnError::Fail };
    let on_error = source.on_error.as_ref().map_or(default, |on_error| on_error.value);
    if let Some(at) = &source.on_error {
        if on_error == OnError::DeadLetter {
            dead_letter.require(at.span, "`on_error: dead_letter`", found);
        }
        let side = SideStream { name: &source.name.value, side: "errors", key: "on_error" };
        side.check(at.span, on_error == OnError::Stream, errors_are_read, found);
    }
    let scope = match &source.schema {
        None => Scope { columns: vec![], open: true, records: true },
        Some(columns) => Scope {
            columns: columns
                .iter()
                .map(|column| ScopeColumn {
                    name: column.name.value.clone(),
                    data_type: column.data_type.clone(),
                    nullable: !column.not_null,
                })
                .collect(),
            open: false,
            records: true,
        },
    };
    check_format(source, found);
    let kept = source.unknown_fields.as_ref().is_some_and(|fields| fields.value == UnknownFields::Keep);
    let passes = source.tombstones == Some(Tombstones::Pass);
    let tombstones = passes.then(|| source.name.value.clone());
    Shape { scope, origin: Origin::Record, on_error, kept, tombstones, replaced: None }
}

/// What a format can be asked for.
fn check_format(source: &Source, found: &mut Vec<Diagnostic>) {
    let columns = source.schema.as_deref().unwrap_or_default();
    let (name, takes): (_, fn(&DataType) -> bool) = match &source.format {
        None | Some(Format::Json) => return,
        Some(Format::Csv(_)) => ("csv", |data_type| is_scalar(data_type) || *data_type == JSON),
        Some(Format::Raw) => {
            ("raw", |data_type| matches!(data_type, DataType::Utf8 | DataType::Binary) || *data_type == JSON)
        }
    };
    if let (Some(Format::Raw), [_, second, ..]) = (&source.format, columns) {
        let message = "a raw value is one column, and the schema has more";
        let hint = "`_key`, `_timestamp`, `header('x')` and their like need no column";
        found.push(Diagnostic::new(Code::BadValue, second.name.span, message).hint(hint));
    }
    for column in columns {
        if let Some(data_type) = column.data_type.as_ref().filter(|data_type| !takes(data_type)) {
            let message = format!("`{}`: format `{name}` has no {}", column.name.value, sql_type(data_type));
            let hint = match &source.format {
                Some(Format::Raw) => "a raw value is `varchar`, `binary` or `json`",
                _ => "fields of CSV are scalars, or `json`",
            };
            found.push(Diagnostic::new(Code::UnknownType, column.name.span, message).hint(hint));
        }
        if column.path != [column.name.value.clone()] {
            let message =
                format!("`{}`: only JSON has members that a `path` could lead to", column.name.value);
            found.push(Diagnostic::new(Code::BadValue, column.name.span, message));
        }
    }
    match &source.unknown_fields {
        Some(fields) if fields.value == UnknownFields::Keep || name == "raw" => {
            let message = format!("format `{name}` has no members that a schema could leave out");
            found.push(Diagnostic::new(Code::BadValue, fields.span, message));
        }
        _ => {}
    }
}

fn errors_shape(dead_letter: DeadLetter) -> Shape {
    let columns = errors_stream::SCHEMA.fields().iter().map(|field| ScopeColumn {
        name: field.name().clone(),
        data_type: Some(field.data_type().clone()),
        nullable: field.is_nullable(),
    });
    Shape {
        scope: Scope { columns: columns.collect(), open: false, records: true },
        origin: Origin::Record,
        kept: false,
        tombstones: None,
        replaced: None,
        // What cannot be written there must not come back as an error.
        on_error: match dead_letter {
            DeadLetter::There => OnError::DeadLetter,
            DeadLetter::Absent => OnError::Fail,
        },
    }
}

/// A stream that exists only where its owner says so, and then must be read.
pub(super) struct SideStream<'a> {
    /// The source or step.
    pub name: &'a str,
    pub side: &'static str,
    /// The key that says so.
    pub key: &'static str,
}

impl SideStream<'_> {
    /// Reports at `span`, where the owner says something, that nobody reads the stream, or that a reader gets nothing.
    pub fn check(self, span: Span, exists: bool, is_read: bool, found: &mut Vec<Diagnostic>) {
        let SideStream { name, side, key } = self;
        let diagnostic = match (exists, is_read) {
            (true, false) => {
                Diagnostic::new(Code::SideStream, span, format!("no sink reads `{name}.{side}`"))
                    .hint(format!("add a sink with `from: {name}.{side}`, or say something else here"))
            }
            (false, true) => {
                let message = format!("a sink reads `{name}.{side}`, which is empty with this `{key}`");
                Diagnostic::new(Code::SideStream, span, message).hint(format!("write `{key}: stream`"))
            }
            _ => return,
        };
        found.push(diagnostic);
    }
}

/// The column of the schema and its factors; `None` for the record's own timestamp, or where something is wrong.
fn event_time(source: &Source, found: &mut Vec<Diagnostic>) -> Option<(usize, i64, i64)> {
    let event_time = source.event_time.get()?;
    let columns = source.schema.as_ref()?;
    let name = &event_time.column;
    let Some(i) = columns.iter().position(|column| column.name.value == name.value) else {
        let message = format!("there is no column `{}` in the schema", name.value);
        let names = columns.iter().map(|column| column.name.value.as_str());
        found.push(Diagnostic::new(Code::UnknownColumn, name.span, message).nearest(&name.value, names));
        return None;
    };
    let data_type = columns[i].data_type.as_ref()?;
    match &event_time.unit {
        Part::Invalid => None,
        Part::Absent if *data_type == TIMESTAMP => Some((i, 1, 1)),
        Part::Is(unit) if *data_type == TIMESTAMP => {
            let message = format!("`{}` is a timestamp: it needs no `unit`", name.value);
            found.push(Diagnostic::new(Code::EventTime, unit.span, message));
            None
        }
        _ if !data_type.is_integer() => {
            let message = format!(
                "`{}` is a {}: an event time is an integer or a timestamp",
                name.value,
                sql_type(data_type)
            );
            found.push(Diagnostic::new(Code::EventTime, name.span, message));
            None
        }
        Part::Absent => {
            let message = format!("`{}` is an integer: since the epoch in which `unit`?", name.value);
            let hint = "add `unit: ms`, or s, us, ns";
            found.push(Diagnostic::new(Code::EventTime, name.span, message).hint(hint));
            None
        }
        Part::Is(unit) => Some((i, unit.value.0, unit.value.1)),
    }
}

/// [`EventTimeFrom`] for a source of which the columns `kept` are decoded.
pub(super) fn event_time_from(event_time: Option<(usize, i64, i64)>, kept: &[usize]) -> EventTimeFrom {
    event_time
        .and_then(|(column, multiplier, divisor)| {
            let column = kept.iter().position(|kept| *kept == column)?;
            Some(EventTimeFrom::Column { column, multiplier, divisor })
        })
        .unwrap_or(EventTimeFrom::Record)
}

fn analyze_step(
    step: &Step,
    inputs: &[Option<Shape>],
    dead_letter: DeadLetter,
    late_is_read: bool,
    found: &mut Vec<Diagnostic>,
) -> AnalyzedStep {
    let input = union(step, inputs, found);
    let filter = step.filter.as_ref().and_then(|sql| boolean(sql, "`where`", &input.scope, found));
    let unknown = || Shape { scope: Shape::unknown().scope, ..input.clone() };
    let mut removed = vec![];
    let (project, projected) = match (&step.select, &step.set, &step.unset) {
        _ if !matches!(step.unnest, Part::Absent) => match &step.unnest {
            Part::Is(named) => unnest(named, &input, &mut removed, found),
            Part::Absent | Part::Invalid => (None, unknown()),
        },
        (Part::Absent, Part::Absent, Part::Absent) => (None, input.clone()),
        (Part::Invalid, ..) | (_, Part::Invalid, _) | (.., Part::Invalid) => (None, unknown()),
        (Part::Is(named), ..) => {
            let (project, projected) = select(named, &input, found);
            (Some(project), projected)
        }
        (Part::Absent, set, unset) => {
            let set = set.get().map(Vec::as_slice).unwrap_or_default();
            let unset = unset.get().map(Vec::as_slice).unwrap_or_default();
            let (project, projected) = change(set, unset, &input, found);
            if input.kept {
                let names =
                    set.iter().map(|set| &set.name.value).chain(unset.iter().map(|unset| &unset.value));
                removed.extend(names.filter(|name| input.scope.get(name).is_none()).cloned());
            }
            (Some(project), projected)
        }
    };
    let (window, output) = match &step.window {
        Part::Absent => (None, projected.clone()),
        Part::Invalid => (None, Shape::unknown()),
        Part::Is(window) if window.emits.value == Emits::Rows => {
            let side = window::Side { dead_letter, late_is_read };
            let window = window::analyze_deduplicate(step, window, &projected.scope, side, found);
            no_tombstones(step, &projected, "`deduplicate`", found);
            if let Some(replaced) = &projected.replaced {
                let message = format!(
                    "`{}` emits results again when they have changed, and the later ones would be duplicates",
                    replaced.step
                );
                let hint = format!("`emit: final` on `{}`", replaced.step);
                found.push(Diagnostic::new(Code::ByDesign, window_span(step), message).hint(hint));
            }
            (Some(window), projected.clone())
        }
        Part::Is(window) => {
            let side = window::Side { dead_letter, late_is_read };
            let (window, scope) = window::analyze(step, window, &projected.scope, side, found);
            let groups: Vec<String> = window.groups.iter().map(|(name, _)| name.clone()).collect();
            no_tombstones(step, &projected, "a window", found);
            if let Some(replaced) = &projected.replaced {
                let message = format!(
                    "`{}` emits results again when they have changed, and a window adds up what it is given",
                    replaced.step
                );
                let hint = format!(
                    "a window with `emit: final` on `{}`, or another pipeline that reads its result topic",
                    replaced.step
                );
                found.push(Diagnostic::new(Code::ByDesign, window_span(step), message).hint(hint));
            }
            let replaced = (window.emits != Emits::Final).then(|| {
                // Cumulative windows of a period begin together.
                let bound = match window.spec.is_some_and(WindowSpec::is_cumulative) {
                    true => "window_end",
                    false => "window_start",
                };
                let bound = (window.emits != Emits::Totals).then(|| bound.to_owned());
                let identity = groups.iter().cloned().chain(bound).map(|name| (name.clone(), Some(name)));
                Replaced { step: step.name.value.clone(), identity: identity.collect() }
            });
            let origin = Origin::Window(Some(groups));
            let on_error = projected.on_error;
            let shape = Shape { scope, origin, on_error, kept: false, tombstones: None, replaced };
            (Some(window), shape)
        }
    };
    let unnest = step.unnest.get().map(|named| named.name.value.clone());
    AnalyzedStep { filter, project, unnest, removed, window, input, projected, output }
}

/// Reports null values that would come to something that needs columns.
fn no_tombstones(step: &Step, input: &Shape, what: &str, found: &mut Vec<Diagnostic>) {
    let Some(source) = &input.tombstones else { return };
    let message =
        format!("the source `{source}` passes tombstones, and {what} has no place for what has no columns");
    found.push(
        Diagnostic::new(Code::Tombstones, window_span(step), message)
            .hint(format!("`tombstones: skip` on `{source}` leaves them out")),
    );
}

fn window_span(step: &Step) -> Span {
    step.window.get().map_or(step.name.span, |window| window.span)
}

/// The inputs of a step, which must agree by name and type.
fn union(step: &Step, inputs: &[Option<Shape>], found: &mut Vec<Diagnostic>) -> Shape {
    let known: Vec<(usize, &Shape)> =
        inputs.iter().enumerate().filter_map(|(i, input)| Some((i, input.as_ref()?))).collect();
    let Some(((first_index, first), others)) = known.split_first() else { return Shape::unknown() };
    let mut shape = (*first).clone();
    shape.scope.open |= known.len() < inputs.len();
    for (i, other) in others {
        let differences = differences(&first.scope, &other.scope);
        if let (false, Some(from)) = (differences.is_empty(), step.from.get(*i)) {
            let base = step.from.get(*first_index).map(|from| from.value.as_str()).unwrap_or_default();
            let message = format!("`{}` and `{base}` differ: {}", from.value, differences.join("; "));
            found.push(
                Diagnostic::new(Code::UnionDiffers, from.span, message)
                    .hint("inputs of a union have the same columns with the same types; a step with `select` can make them so"),
            );
            shape.scope.open = true;
        }
        if let (true, Some(from)) = (first.kept != other.kept, step.from.get(*i))
            && !first.scope.open
            && !other.scope.open
        {
            let base = step.from.get(*first_index).map(|from| from.value.as_str()).unwrap_or_default();
            let (keeps, not) = if other.kept { (&*from.value, base) } else { (base, &*from.value) };
            let message = format!("rows of `{keeps}` carry undeclared members, those of `{not}` do not");
            found.push(
                Diagnostic::new(Code::UnionDiffers, from.span, message)
                    .hint("give the sources the same `unknown_fields`; a step with `select` leaves undeclared members behind"),
            );
        }
        if shape.tombstones.is_none() {
            shape.tombstones.clone_from(&other.tombstones);
        }
        if let (Some(replaced), Some(from)) =
            (shape.replaced.as_ref().or(other.replaced.as_ref()), step.from.get(*i))
        {
            let message = format!(
                "rows of `{}` replace earlier ones, and cannot be told from others here",
                replaced.step
            );
            let hint = format!("`emit: final` on `{}`, or a sink for each", replaced.step);
            found.push(Diagnostic::new(Code::ByDesign, from.span, message).hint(hint));
            shape.replaced = None;
        }
        shape.scope.open |= other.scope.open;
        shape.scope.records &= other.scope.records;
        for column in &mut shape.scope.columns {
            column.nullable |= other.scope.get(&column.name).is_none_or(|other| other.nullable);
        }
        if shape.origin != other.origin {
            shape.origin = match (&shape.origin, &other.origin) {
                (Origin::Window(_), Origin::Window(_)) => Origin::Window(None),
                _ => Origin::Mixed,
            };
        }
        shape.on_error = strictest(shape.on_error, other.on_error);
    }
    shape
}

/// Rows of different sources go one way: what loses least.
fn strictest(a: OnError, b: OnError) -> OnError {
    match (a, b) {
        (OnError::Fail, _) | (_, OnError::Fail) => OnError::Fail,
        (OnError::DeadLetter, _) | (_, OnError::DeadLetter) => OnError::DeadLetter,
        (OnError::Stream, _) | (_, OnError::Stream) => OnError::Stream,
        (OnError::Drop, OnError::Drop) => OnError::Drop,
    }
}

fn differences(base: &Scope, other: &Scope) -> Vec<String> {
    let mut differences = vec![];
    for column in &base.columns {
        match other.get(&column.name) {
            None if !other.open => differences.push(format!("`{}` is missing", column.name)),
            Some(ScopeColumn { data_type: Some(found), .. }) => {
                if let Some(expected) = column.data_type.as_ref().filter(|expected| *expected != found) {
                    let (found, expected) = (sql_type(found), sql_type(expected));
                    differences.push(format!("`{}` is {found} and not {expected}", column.name));
                }
            }
            _ => {}
        }
    }
    let extra = other.columns.iter().filter(|column| base.get(&column.name).is_none() && !base.open);
    differences.extend(extra.map(|column| format!("`{}` is only here", column.name)));
    differences
}

fn select(named: &[Named], input: &Shape, found: &mut Vec<Diagnostic>) -> (Vec<Projected>, Shape) {
    let mut project = vec![];
    let mut scope = Scope { records: input.scope.records, ..Scope::default() };
    for named in named {
        let typed = typed(named.sql.as_ref(), &input.scope, found);
        scope.columns.push(ScopeColumn {
            name: named.name.value.clone(),
            data_type: typed.as_ref().map(|typed| typed.data_type.clone()),
            nullable: typed.as_ref().is_none_or(|typed| typed.nullable),
        });
        let name = named.name.value.clone();
        project.extend(typed.map(|typed| Projected { name, typed, through: false }));
    }
    let origin = origin_after(&project, &input.origin);
    let tombstones = input.tombstones.clone();
    let replaced = replaced_after(&project, &input.replaced);
    (project, Shape { scope, origin, on_error: input.on_error, kept: false, tombstones, replaced })
}

/// `unnest`: the columns as they are, and beside them or in the place of one of them the elements of a list.
fn unnest(
    named: &Named,
    input: &Shape,
    removed: &mut Vec<String>,
    found: &mut Vec<Diagnostic>,
) -> (Option<Vec<Projected>>, Shape) {
    if let Some(replaced) = &input.replaced {
        let message =
            format!("rows of `{}` replace earlier ones, and their elements would not", replaced.step);
        let hint = format!("`emit: final` on `{}`", replaced.step);
        found.push(Diagnostic::new(Code::ByDesign, named.name.span, message).hint(hint));
    }
    let (project, mut shape) = change(std::slice::from_ref(named), &[], input, found);
    let column = shape.scope.columns.iter_mut().find(|column| column.name == named.name.value);
    if let Some(column) = column {
        match &column.data_type {
            Some(DataType::List(item)) => {
                (column.data_type, column.nullable) = (Some(item.data_type().clone()), true);
            }
            Some(other) => {
                let message = format!("`unnest` takes a list apart, this is {}", sql_type(other));
                let span = named.sql.as_ref().map_or(named.name.span, |sql| sql.span);
                found.push(Diagnostic::new(Code::TypeMismatch, span, message));
                column.data_type = None;
            }
            None => {}
        }
    }
    if input.kept && input.scope.get(&named.name.value).is_none() {
        removed.push(named.name.value.clone());
    }
    (Some(project), shape)
}

/// `set` and `unset`: expressions see the columns as they came in, and what neither names goes through.
fn change(
    set: &[Named],
    unset: &[Spanned<String>],
    input: &Shape,
    found: &mut Vec<Diagnostic>,
) -> (Vec<Projected>, Shape) {
    for name in unset {
        if input.scope.get(&name.value).is_none() && !input.scope.open && !input.kept {
            found.push(unknown_column(name, &input.scope));
        }
    }
    let mut project = vec![];
    let mut scope = Scope { columns: vec![], ..input.scope };
    let new = set.iter().filter(|set| input.scope.get(&set.name.value).is_none());
    let names = input.scope.columns.iter().map(|column| &column.name).chain(new.map(|set| &set.name.value));
    for name in names.filter(|name| unset.iter().all(|unset| unset.value != **name)) {
        let set = set.iter().find(|set| set.name.value == *name);
        let column = input.scope.get(name);
        let typed = match set {
            Some(set) => typed(set.sql.as_ref(), &input.scope, found),
            None => column.and_then(Typed::of_column),
        };
        scope.columns.push(ScopeColumn {
            name: name.clone(),
            data_type: typed.as_ref().map(|typed| typed.data_type.clone()),
            nullable: typed.as_ref().is_none_or(|typed| typed.nullable),
        });
        project.extend(typed.map(|typed| Projected { name: name.clone(), typed, through: set.is_none() }));
    }
    let origin = origin_after(&project, &input.origin);
    let replaced = replaced_after(&project, &input.replaced);
    (project, Shape { scope, origin, replaced, ..input.clone() })
}

/// The groups of a window are still there if each goes on as it is, under whatever name.
fn origin_after(project: &[Projected], origin: &Origin) -> Origin {
    let Origin::Window(Some(groups)) = origin else { return origin.clone() };
    Origin::Window(groups.iter().map(|group| renamed(project, group)).collect())
}

/// The same for what tells rows apart that replace each other.
fn replaced_after(project: &[Projected], replaced: &Option<Replaced>) -> Option<Replaced> {
    let Replaced { step, identity } = replaced.as_ref()?;
    let after = |(name, here): &(String, Option<String>)| {
        (name.clone(), here.as_ref().and_then(|here| renamed(project, here)))
    };
    Some(Replaced { step: step.clone(), identity: identity.iter().map(after).collect() })
}

/// What a column is called that goes on as it is.
fn renamed(project: &[Projected], column: &String) -> Option<String> {
    let found = project.iter().find(|projected| projected.typed.column.as_ref() == Some(column));
    found.map(|projected| projected.name.clone())
}

/// "there is no column `x`", with the one that was meant, or with all of them.
pub(super) fn unknown_column(name: &Spanned<String>, scope: &Scope) -> Diagnostic {
    let message = format!("there is no column `{}`", name.value);
    let names: Vec<&str> = scope.columns.iter().map(|column| column.name.as_str()).collect();
    let diagnostic = Diagnostic::new(Code::UnknownColumn, name.span, message);
    match nearest(&name.value, names.iter().copied()) {
        Some(near) => diagnostic.label(format!("did you mean `{near}`?")),
        None => diagnostic.hint(format!("columns here: {}", names.join(", "))),
    }
}

/// A checked expression; `None` where it has been reported.
pub(super) fn typed(sql: Option<&Sql>, scope: &Scope, found: &mut Vec<Diagnostic>) -> Option<Typed> {
    let sql = sql?;
    expr::analyze(sql.text(), scope).map_err(|mistakes| report(sql, mistakes, found)).ok()
}

/// A checked condition; `None` where it has been reported.
pub(super) fn boolean(sql: &Sql, what: &str, scope: &Scope, found: &mut Vec<Diagnostic>) -> Option<Typed> {
    let typed = typed(Some(sql), scope, found)?;
    if typed.data_type != DataType::Boolean {
        let message = format!("{what} must be boolean, this is {}", sql_type(&typed.data_type));
        found.push(Diagnostic::new(Code::TypeMismatch, sql.span, message));
        return None;
    }
    Some(typed)
}
