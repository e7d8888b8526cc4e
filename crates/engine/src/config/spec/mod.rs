//! What a pipeline file says, typed and with positions, before anything is checked against anything else.
//!
//! Reading has no behaviour: it turns nodes into values and reports every key that nobody knows, every value of the wrong form, and
//! everything that is documented but not supported yet. A part that was reported is `None`, [`Part::Invalid`] or missing from its list;
//! the compiler then works with what is left, so that one run finds the mistakes of the whole file.

mod fields;
#[cfg(test)]
pub(super) mod heard;
mod pipeline_tests;
mod settings;
mod sinks;
mod sources;
mod steps;
mod types;
mod values;

use std::ops::Range;
use std::time::Duration;

use arrow::datatypes::DataType;
use onceflow_protocol::{Delay, WindowSpec};

use super::document::{Node, Scalar};
use crate::diagnostics::{Diagnostic, Span};
use crate::message::OwnedMessage;
use crate::plan::{
    Backend, CreateTopic, Emits, Expected, Format, Happening, Ids, Late, OnError, SinkValue, Start,
    Tombstones, TopicPattern, UnknownFields,
};

pub(super) use fields::Fields;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub span: Span,
}

/// A part that may be missing, or there and wrong.
#[derive(Debug)]
pub enum Part<T> {
    /// Not there.
    Absent,
    /// There, and already reported.
    Invalid,
    /// There.
    Is(T),
}

impl<T> Part<T> {
    /// The value, if it is there and right.
    pub fn get(&self) -> Option<&T> {
        match self {
            Part::Is(value) => Some(value),
            Part::Absent | Part::Invalid => None,
        }
    }
}

/// An SQL expression as it was written.
#[derive(Clone, Debug)]
pub struct Sql {
    scalar: Scalar,
    /// The whole of it.
    pub span: Span,
}

impl Sql {
    /// The text.
    pub fn text(&self) -> &str {
        &self.scalar.text
    }

    /// Where a part of the text stands in the file.
    pub fn span_of(&self, part: Range<usize>) -> Span {
        self.scalar.span_of(part)
    }
}

/// A whole file.
#[derive(Debug)]
pub struct Spec {
    /// `pipeline`.
    pub pipeline: Option<String>,
    /// Where to complain about the pipeline as a whole.
    pub span: Span,
    /// `kafka`.
    pub kafka: Kafka,
    /// `sources`.
    pub sources: Vec<Source>,
    /// `steps`.
    pub steps: Vec<Step>,
    /// `sinks`.
    pub sinks: Vec<Sink>,
    /// `dead_letter`.
    pub dead_letter: Part<DeadLetter>,
    /// `parallelism`.
    pub parallelism: Option<usize>,
    /// `checkpoint`.
    pub checkpoint: Checkpoint,
    /// `restart`.
    pub restart: Option<Spanned<Restart>>,
    /// `state`.
    pub state: State,
    /// `tests`.
    pub tests: Vec<PipelineTest>,
}

/// `kafka`: what the file or the daemon's defaults say of it. Printed for debugging it hides the values of properties.
#[derive(Clone, Default)]
pub struct Kafka {
    /// `bootstrap_servers`.
    pub bootstrap_servers: Option<String>,
    /// `properties`.
    pub properties: Vec<(String, String)>,
    /// `ids`.
    pub ids: Ids,
    /// Where it begins.
    pub span: Span,
    /// Whether the above has mistakes.
    pub invalid: bool,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.iter().map(|(name, _)| name).collect();
        let Kafka { bootstrap_servers, invalid, .. } = self;
        f.debug_struct("Kafka")
            .field("bootstrap_servers", bootstrap_servers)
            .field("properties", &names)
            .field("invalid", invalid)
            .finish()
    }
}

/// `checkpoint`: what the file or the daemon's defaults say of it; fields as in [`crate::plan::Checkpoint`].
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "documented where they are used")]
pub struct Checkpoint {
    pub interval: Option<Duration>,
    pub max_records: Option<u64>,
    pub max_bytes: Option<u64>,
    pub timeout: Option<Duration>,
    pub min_pause: Option<Duration>,
    pub tolerable_failures: Option<u32>,
    pub storage: Option<std::path::PathBuf>,
    pub retained: Option<usize>,
}

/// `restart`: a strategy, and what is said of it.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "documented where they are used")]
pub enum Restart {
    None,
    Fixed { attempts: Option<u32>, delay: Option<Duration> },
    Exponential { initial: Option<Duration>, max: Option<Duration> },
    FailureRate { failures: Option<u32>, per: Option<Duration>, delay: Option<Duration> },
}

/// `state`.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `backend`.
    pub backend: Option<Backend>,
    /// `dir`.
    pub dir: Option<std::path::PathBuf>,
    /// `memory`, bytes.
    pub memory_bytes: Option<u64>,
}

/// A source.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: Spanned<String>,
    /// `was`: the name before.
    pub was: Option<Spanned<String>>,
    /// `kafka`.
    pub kafka: Option<Kafka>,
    /// `topics`, those that are names.
    pub topics: Vec<Spanned<String>>,
    /// `topics`, those that are patterns.
    pub patterns: Vec<Spanned<TopicPattern>>,
    /// `start`.
    pub start: Option<Start>,
    /// `format`.
    pub format: Option<Format>,
    /// `unknown_fields`.
    pub unknown_fields: Option<Spanned<UnknownFields>>,
    /// `tombstones`.
    pub tombstones: Option<Tombstones>,
    /// `schema`; `None` where it is missing or no map.
    pub schema: Option<Vec<Column>>,
    /// `event_time`.
    pub event_time: Part<EventTime>,
    /// `watermark.delay`, or what stands in its place.
    pub delay: Delay,
    /// `watermark.idle_after`.
    pub idle_after: Option<Duration>,
    /// `watermark.max_drift`.
    pub max_drift: Option<Duration>,
    /// `on_error`.
    pub on_error: Option<Spanned<OnError>>,
}

/// A column of a schema.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: Spanned<String>,
    /// Members to descend through.
    pub path: Vec<String>,
    /// Its type; `None` where it has been reported.
    pub data_type: Option<DataType>,
    /// `not null`.
    pub not_null: bool,
}

/// `event_time`.
#[derive(Debug)]
pub struct EventTime {
    /// `column`.
    pub column: Spanned<String>,
    /// `unit`, as (milliseconds per unit, units per millisecond), one of which is 1.
    pub unit: Part<Spanned<(i64, i64)>>,
    /// `max_ahead`.
    pub max_ahead: Option<Duration>,
}

/// A step.
#[derive(Debug)]
pub struct Step {
    /// Its name.
    pub name: Spanned<String>,
    /// `was`: the name before.
    pub was: Option<Spanned<String>>,
    /// `from`.
    pub from: Vec<Spanned<String>>,
    /// `where`.
    pub filter: Option<Sql>,
    /// `select`: names with expressions, which are `None` where they have been reported.
    pub select: Part<Vec<Named>>,
    /// `set`, in the same form.
    pub set: Part<Vec<Named>>,
    /// `unset`.
    pub unset: Part<Vec<Spanned<String>>>,
    /// `unnest`: the column that elements go to, and the list that they come from.
    pub unnest: Part<Named>,
    /// `window`, `ttl` or `deduplicate`, with its clauses.
    pub window: Part<Window>,
}

/// A named expression.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: Spanned<String>,
    /// The expression; `None` where it has been reported.
    pub sql: Option<Sql>,
}

/// `window`, `ttl` or `deduplicate`, with its clauses.
#[derive(Debug)]
pub struct Window {
    /// Where it stands.
    pub span: Span,
    /// The sizes; `None` where they have been reported. A `ttl`, or a `within`, is the gap of sessions that are never emitted.
    pub spec: Option<WindowSpec>,
    /// `group_by`, or the `key` of a `deduplicate`.
    pub group_by: Part<Vec<Named>>,
    /// `aggregate`.
    pub aggregate: Part<Vec<Named>>,
    /// `having`.
    pub having: Option<Sql>,
    /// `allowed_lateness`, milliseconds.
    pub lateness_ms: i64,
    /// `emit`, or what it is without a `window`.
    pub emits: Spanned<Emits>,
    /// `late`.
    pub late: Part<Spanned<Late>>,
}

/// A sink.
#[derive(Debug)]
pub struct Sink {
    /// Its name.
    pub name: Spanned<String>,
    /// `from`.
    pub from: Option<Spanned<String>>,
    /// `topic`, or `topic_from` with `allowed_topics`.
    pub topic: Part<TopicFrom>,
    /// `create`.
    pub create: Option<Spanned<CreateTopic>>,
    /// `key`.
    pub key: Part<Vec<Spanned<String>>>,
    /// `key_format`.
    pub key_format: Option<Spanned<KeyFormat>>,
    /// `where`.
    pub filter: Option<Sql>,
    /// `headers`.
    pub headers: Part<HeaderSpec>,
    /// `timestamp`.
    pub timestamp: Option<Sql>,
    /// `partition`.
    pub partition: Option<Sql>,
    /// `format`.
    pub value: Spanned<SinkValue>,
}

impl Sink {
    /// Every topic that it may write to.
    pub fn topics(&self) -> &[Spanned<String>] {
        match self.topic.get() {
            Some(TopicFrom::One(topic)) => std::slice::from_ref(topic),
            Some(TopicFrom::Column { allowed, .. }) => allowed,
            None => &[],
        }
    }
}

/// Where a sink's records go.
#[derive(Debug)]
pub enum TopicFrom {
    /// `topic`.
    One(Spanned<String>),
    /// `topic_from`.
    Column {
        /// The column.
        column: Spanned<String>,
        /// `allowed_topics`.
        allowed: Vec<Spanned<String>>,
    },
}

/// `key_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// One column as plain text.
    Text,
    /// A JSON object of the columns.
    Json,
    /// One column as Kafka's serializers for Java write it.
    Raw,
}

/// `headers`.
#[derive(Debug)]
pub enum HeaderSpec {
    /// The source record's.
    Forward(Span),
    /// None.
    None,
    /// These.
    Named(Vec<Named>),
}

/// `dead_letter`.
#[derive(Debug)]
pub struct DeadLetter {
    /// `topic`.
    pub topic: Spanned<String>,
    /// `create`.
    pub create: Option<Spanned<CreateTopic>>,
}

/// A test of the pipeline.
#[derive(Debug)]
pub struct PipelineTest {
    /// Its name.
    pub name: Spanned<String>,
    /// `input`.
    pub input: Vec<Given>,
    /// `output`, by sink.
    pub output: Vec<(Spanned<String>, Vec<Expected>)>,
    /// `dead_letters`.
    pub dead_letters: Vec<Expected>,
}

/// An entry of a test's `input`.
#[derive(Debug)]
pub enum Given {
    /// A record.
    Record(GivenRecord),
    /// Anything else that happens.
    Happening(Happening),
}

/// A record of a test's `input`.
#[derive(Debug)]
pub struct GivenRecord {
    /// Where to complain about it as a whole.
    pub span: Span,
    /// `source`.
    pub source: Option<Spanned<String>>,
    /// `topic`.
    pub topic: Option<Spanned<String>>,
    /// `partition`.
    pub partition: i32,
    /// The rest of it.
    pub message: OwnedMessage,
}

/// Reads a file's root.
pub fn read(root: &Node, found: &mut Vec<Diagnostic>) -> Option<Spec> {
    let mut fields = Fields::open(root, "a pipeline", found)?;
    let pipeline = fields.require("pipeline", found).and_then(|node| settings::pipeline(node, found));
    let spec = Spec {
        pipeline,
        span: root.span,
        kafka: settings::kafka(fields.get("kafka"), settings::Of::Pipeline, found),
        sources: sources::read(fields.require("sources", found), found),
        steps: steps::read(fields.get("steps"), found),
        sinks: sinks::read(fields.require("sinks", found), found),
        dead_letter: settings::dead_letter(fields.get("dead_letter"), found),
        parallelism: fields.get("parallelism").and_then(|node| settings::parallelism(node, found)),
        checkpoint: settings::checkpoint(fields.get("checkpoint"), found),
        restart: settings::restart(fields.get("restart"), found),
        state: settings::state(fields.get("state"), found),
        tests: pipeline_tests::read(fields.get("tests"), found),
    };
    fields.later("schema_registry", found);
    fields.finish(found);
    Some(spec)
}

/// Reads the daemon's defaults.
pub fn defaults(root: &Node, found: &mut Vec<Diagnostic>) -> Option<super::Defaults> {
    let mut fields = Fields::open(root, "`defaults`", found)?;
    let defaults = super::Defaults {
        kafka: settings::kafka(fields.get("kafka"), settings::Of::Defaults, found),
        checkpoint: settings::checkpoint(fields.get("checkpoint"), found),
        restart: settings::restart(fields.get("restart"), found).map(|restart| restart.value),
        state: settings::state(fields.get("state"), found),
        secrets: Default::default(),
    };
    fields.finish(found);
    Some(defaults)
}
