//! What a pipeline does, checked: the only form in which a pipeline reaches the operators and the shell.
//!
//! A [`Plan`] can only be made by compiling a pipeline file without a single diagnostic; after that gate nothing needs
//! checking again. Streams are numbered: sources by their place in [`Plan::sources`], steps by their place in
//! [`Plan::steps`], which is a topological order (a step reads only sources and earlier steps).
//!
//! # types
//!
//! Every group and every result of an aggregate has one of these Arrow types ([`is_scalar`](crate::expr::is_scalar)), and no other:
//! `Boolean`, `Int8`, `Int16`, `Int32`, `Int64` (as declared; a result keeps the width that SQL gives it), `Float32`, `Float64`,
//! `Decimal128` with a scale from 0 to its precision, `Utf8`, `Date32`, and `Timestamp(Millisecond, None)`, which is in UTC
//! ([`TIMESTAMP`](crate::expr::TIMESTAMP)). Columns between operators can have these besides: `Binary`; `LargeUtf8`, which is JSON
//! text ([`JSON`](crate::expr::JSON)); `List` with a nullable field `item`, and `Struct`, of any of all these.

mod pattern;
mod pipeline_test;
mod time;

pub mod explain;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use onceflow_protocol::coordinator::Emit;
use onceflow_protocol::{Delay, WindowSpec};

use crate::diagnostics::Secrets;
use crate::expr::Expr;

pub use pattern::TopicPattern;
pub use pipeline_test::{Content, Expected, Happening, PipelineTest};

/// A whole pipeline.
#[derive(Debug)]
pub struct Plan {
    /// `pipeline:`, `[a-z0-9-]+`.
    pub pipeline: String,
    /// Plans of the same version that differ in it come from files (or defaults) that say something else. Not durable: the next version
    /// may compute it otherwise.
    pub fingerprint: u64,
    /// Values in it that may not be shown, of files and credentials and of properties that hold a password.
    pub secrets: Secrets,
    /// How to reach the cluster.
    pub kafka: Kafka,
    /// Sources by name order of the file.
    pub sources: Vec<Source>,
    /// Steps in topological order.
    pub steps: Vec<Step>,
    /// Sinks in the order of the file.
    pub sinks: Vec<Sink>,
    /// Index into [`output_topics`](Self::output_topics) of the dead letter topic.
    pub dead_letter: Option<u16>,
    /// Every topic that the pipeline writes to, each once.
    pub output_topics: Vec<OutputTopic>,
    /// Worker threads, at least 1.
    pub parallelism: usize,
    /// When and where to checkpoint.
    pub checkpoint: Checkpoint,
    /// What to do after a failure.
    pub restart: Restart,
    /// Where state lives.
    pub state: State,
    /// Its own tests.
    pub tests: Vec<PipelineTest>,
}

/// `kafka:`. Printed for debugging it hides the values of properties: any of them may be a secret.
#[derive(Clone, Hash)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub bootstrap_servers: String,
    /// librdkafka properties, verbatim; none that the guarantee needs otherwise.
    pub properties: BTreeMap<String, String>,
    /// Names in place of those made from namespace and pipeline; none for a source's own cluster.
    pub ids: Ids,
}

/// `kafka.ids`: `None` is `{namespace}.{pipeline}`, and for the control topic `{namespace}.{pipeline}.control`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ids {
    /// The consumer group, which only names the offsets that lag tools read.
    pub group_id: Option<String>,
    /// What the transactional ids begin with; a shard's number follows.
    pub transactional_id: Option<String>,
    /// The topic of claims and decisions.
    pub control_topic: Option<String>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
            .field("ids", &self.ids)
            .finish()
    }
}

/// Where a stream comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// A source, by index.
    Source(usize),
    /// A step, by index.
    Step(usize),
    /// `STEP.late`: the rows that came too late for the windows of a step, by the step's index; they have the columns of
    /// [`Step::projected_schema`]. Only sinks read it.
    Late(usize),
    /// `SOURCE.errors`: the records of a source that failed, by the source's index. Only sinks read it.
    Errors(usize),
}

/// Name of the column that carries undeclared members through the steps as [JSON text](crate::formats::kept), never null. No other
/// column can have it. It stands behind the others.
pub const KEPT: &str = "";

/// The field of [`KEPT`].
pub fn kept_field() -> Field {
    Field::new(KEPT, DataType::Utf8, false)
}

/// One source.
#[derive(Debug)]
pub struct Source {
    /// Its name, part of the identity of its positions.
    pub name: String,
    /// The name that it had before.
    pub was: Option<String>,
    /// The cluster it reads from, where that is not the pipeline's.
    pub kafka: Option<Kafka>,
    /// Topics it reads, by name.
    pub topics: Vec<String>,
    /// Patterns of further topics.
    pub patterns: Vec<TopicPattern>,
    /// Where to begin when there is no checkpoint.
    pub start: Start,
    /// How values are read.
    pub format: Format,
    /// The columns to decode: those that the plan uses, in the order of the schema. [`Source::schema`] has the same order.
    pub columns: Vec<Column>,
    /// Paths of declared columns that nobody decodes; only what is neither here nor a column's is undeclared.
    pub declared: Vec<Vec<String>>,
    /// What becomes of undeclared members. `Keep`: somebody reads them, and [`KEPT`] is the last column of the schema.
    pub unknown_fields: UnknownFields,
    /// What becomes of null values.
    pub tombstones: Tombstones,
    /// Arrow schema of the decoded columns.
    pub schema: SchemaRef,
    /// What a record's event time is.
    pub event_time: EventTimeFrom,
    /// How far the event time may be ahead of the Kafka record's timestamp, milliseconds.
    pub max_ahead_ms: Option<i64>,
    /// How far the watermark stays behind the largest event time.
    pub delay: Delay,
    /// After how long without records a partition at its end stops counting; `None`: never.
    pub idle_after: Option<Duration>,
    /// How far a partition may be ahead of the others before it waits for them.
    pub max_drift: Option<Duration>,
    /// What happens to a record that cannot be decoded or evaluated.
    pub on_error: OnError,
}

impl Source {
    /// A source of JSON records with these columns; everything else at its default.
    pub fn json(name: &str, columns: Vec<Column>) -> Source {
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), !column.not_null);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        Source {
            name: name.to_owned(),
            was: None,
            kafka: None,
            topics: vec![name.to_owned()],
            patterns: vec![],
            start: Start::Earliest,
            format: Format::Json,
            columns,
            declared: vec![],
            unknown_fields: UnknownFields::Ignore,
            tombstones: Tombstones::Error,
            schema: schema.into(),
            event_time: EventTimeFrom::Record,
            max_ahead_ms: None,
            delay: Delay::Fixed(0),
            idle_after: None,
            max_drift: None,
            on_error: OnError::Fail,
        }
    }

    /// Whether it reads this topic, by its name or by a pattern.
    pub fn reads(&self, topic: &str) -> bool {
        self.topics.iter().any(|name| name == topic) || self.patterns.iter().any(|of| of.matches(topic))
    }
}

/// How the values of a source are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object each.
    Json,
    /// One CSV record each.
    Csv(Csv),
    /// As they are, in one column.
    Raw,
}

/// How CSV is read and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Csv {
    /// Between fields, ASCII.
    pub delimiter: u8,
    /// Around fields, ASCII; twice within one.
    pub quote: u8,
    /// A field with this text is NULL.
    pub null: String,
}

impl Default for Csv {
    fn default() -> Csv {
        Csv { delimiter: b',', quote: b'"', null: String::new() }
    }
}

/// What becomes of members that no column is declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownFields {
    /// They are not looked at.
    Ignore,
    /// They are carried through steps without `select` and window, and written again by sinks.
    Keep,
    /// They are errors of their record.
    Error,
}

/// What becomes of records whose value is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tombstones {
    /// They are errors of their record.
    Error,
    /// They are counted and dropped.
    Skip,
    /// They go to every sink of the source, past all steps.
    Pass,
}

/// A declared column that is decoded.
#[derive(Debug, Clone)]
pub struct Column {
    /// Column name, case-sensitive.
    pub name: String,
    /// Members to descend through, outermost first; at least one. Only JSON has them.
    pub path: Vec<String>,
    /// Its place in the schema, from 0: of formats without names, the field.
    pub place: usize,
    /// Arrow type, one of [those of columns](crate::plan#types).
    pub data_type: DataType,
    /// Whether a missing or null member is an error.
    pub not_null: bool,
}

/// Where reading begins when there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The beginning of each partition.
    Earliest,
    /// The last stable offset of each partition.
    Latest,
    /// The first record of each partition with this Kafka timestamp or a later one, milliseconds since the epoch.
    Timestamp(i64),
}

/// Where a record's event time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTimeFrom {
    /// The Kafka record's timestamp.
    Record,
    /// An integer or timestamp column (index into [`Source::columns`]); `multiplier / divisor` turns it into
    /// milliseconds (a timestamp column is in milliseconds already: 1/1).
    Column {
        /// Index into [`Source::columns`].
        column: usize,
        /// Milliseconds per unit, where a unit is a millisecond or longer; else 1.
        multiplier: i64,
        /// Units per millisecond, where a unit is shorter; else 1. Division rounds down.
        divisor: i64,
    },
}

/// What happens to a record that cannot be decoded, evaluated or encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The pipeline stops, losing nothing.
    Fail,
    /// The record is counted and dropped.
    Drop,
    /// The record goes to the dead letter topic, as it came.
    DeadLetter,
    /// The record goes to the errors stream of its source; a row that has no source record any more is dead-lettered, or fails the
    /// pipeline where it has no topic for that.
    Stream,
}

/// One step: a filter, then a projection, then a window, each optional.
#[derive(Debug)]
pub struct Step {
    /// Its name; for a windowed step the identity of its state.
    pub name: String,
    /// The name that it had before.
    pub was: Option<String>,
    /// What it reads. One input: its schema is [`Step::input_schema`]. Several, a union: each has the columns of
    /// [`Step::input_schema`] by name and type, perhaps in another order and perhaps with others beside them.
    pub inputs: Vec<Stream>,
    /// Schema of the rows that come in, and behind it what the step reads of their records ([`Metadata`](crate::metadata::Metadata)). It can be without columns, where nothing but the number of rows matters.
    pub input_schema: SchemaRef,
    /// `where`, boolean over the input.
    pub filter: Option<Expr>,
    /// `select`, or `set` and `unset`, over the input; its schema is [`Step::projected_schema`].
    pub project: Option<Vec<Expr>>,
    /// The column of [`Step::projected_schema`] whose lists are taken apart: one row for each element, none where there is no list. There is
    /// no window then.
    pub unnest: Option<usize>,
    /// Names that are taken out of [`KEPT`], where the rows have it: columns that the step adds, and members that it removes.
    pub removed: Vec<String>,
    /// Schema after `select` or `set` and `unset` (the input's where there is none of them).
    pub projected_schema: SchemaRef,
    /// `window` with its clauses.
    pub window: Option<Window>,
    /// Schema of the rows that go out.
    pub output_schema: SchemaRef,
    /// What happens to a row whose expressions fail.
    pub on_error: OnError,
}

impl Step {
    /// Whether it holds back duplicates.
    pub fn deduplicates(&self) -> bool {
        self.window.as_ref().is_some_and(|window| window.deduplicates)
    }
}

/// Keyed event-time windows of a step, or totals that go on. Output: group columns, of windows `window_start` and `window_end` (timestamps in
/// ms, UTC), aggregates. Or a deduplication: its output are rows of its input, as they came.
#[derive(Debug)]
pub struct Window {
    /// Size and slide. Totals and deduplications have that of sessions whose gap is how long something is remembered.
    pub spec: WindowSpec,
    /// Whether rows go on as they are, but for those whose groups have had one within the gap.
    pub deduplicates: bool,
    /// The step's group columns: names of the output and expressions over the projected schema.
    pub group_by: Vec<Group>,
    /// Aggregates in output order; those of sessions and totals begin with the first and the last event. A deduplication has the time of the row
    /// that was kept.
    pub aggregates: Vec<Aggregate>,
    /// `having`, over the output schema.
    pub having: Option<Expr>,
    /// `allowed_lateness`, milliseconds: so long after its end a window closes.
    pub lateness_ms: i64,
    /// When results are emitted.
    pub emit: Emit,
    /// Whenever time has gone on by so much, what has changed of windows that have not fired is emitted as well; milliseconds.
    pub early_ms: Option<i64>,
    /// What happens to rows whose windows are all closed.
    pub late: Late,
    /// What the state depends on (sizes, groups with their types and expressions) in one canonical spelling, a line each: state that
    /// was written under another identity is not this step's. Aggregates have identities of their own.
    pub identity: String,
    /// What rows have to pass on their way from the sources, or the windows, that this step reads, and what becomes of them: every
    /// `where` and `select` in one canonical spelling. It may change, but then an open window holds rows of both kinds.
    pub above: String,
}

impl Window {
    /// How many of its aggregates come first that nobody has asked for: when a row was kept, or the first and the last event.
    pub fn own_aggregates(&self) -> usize {
        match self.spec.session_gap_ms() {
            None => 0,
            Some(_) if self.deduplicates => 1,
            Some(_) => 2,
        }
    }
}

/// One group column.
#[derive(Debug)]
pub struct Group {
    /// Name in the output.
    pub name: String,
    /// Over the step's projected rows.
    pub expr: Expr,
    /// One of the scalar types.
    pub data_type: DataType,
}

/// One aggregate of a windowed step.
#[derive(Debug)]
pub struct Aggregate {
    /// Name in the output.
    pub name: String,
    /// What its state depends on (the expression and its type), in one canonical spelling.
    pub identity: String,
    /// The call as it was written, in one canonical spelling.
    pub sql: String,
    /// Which function.
    pub function: AggregateFunction,
    /// Its argument over the step's projected rows; `None` for `count(*)`.
    pub argument: Option<Expr>,
    /// Type of the argument; `Null` for `count(*)`.
    pub argument_type: DataType,
    /// Type of the result.
    pub result_type: DataType,
}

/// The allow-list of aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Rows, or rows whose argument is not null. Int64.
    Count,
    /// Sum. Int64 for integers and Decimal128 for decimals (wider inside, see the state's documentation), Float64 for doubles.
    Sum,
    /// Smallest value, same type.
    Min,
    /// Largest value, same type.
    Max,
    /// Mean: Float64 for integers and doubles, a decimal with four more digits of scale for decimals.
    Avg,
    /// Whether all values are true. Boolean.
    BoolAnd,
    /// Whether a value is true. Boolean.
    BoolOr,
    /// Variance of all values. Float64.
    VarPop,
    /// Variance of a sample. Float64.
    VarSamp,
    /// Standard deviation of all values. Float64.
    StddevPop,
    /// Standard deviation of a sample. Float64.
    StddevSamp,
    /// The value of the first row by event time, same type.
    First,
    /// The value of the last row by event time, same type.
    Last,
    /// The values of the first rows by event time, a list.
    ArrayAgg {
        /// At most so many.
        limit: u32,
    },
    /// How many different values. Int64.
    CountDistinct {
        /// A group with more has no result.
        limit: u32,
    },
    /// About how many different values. Int64.
    ApproxDistinct,
    /// About the value that a part of the values does not exceed. Float64.
    ApproxPercentile {
        /// Which part, in millionths.
        millionths: u32,
    },
}

impl AggregateFunction {
    /// Whether the result depends on the order of rows.
    pub fn is_ordered(self) -> bool {
        use AggregateFunction::{ArrayAgg, First, Last};
        matches!(self, First | Last | ArrayAgg { .. })
    }
}

/// `late:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Late rows are counted and dropped.
    Drop,
    /// Their source records go to the dead letter topic.
    DeadLetter,
    /// They go to the sinks that read [`Stream::Late`].
    Stream,
}

/// A topic that the pipeline writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTopic {
    /// Its name.
    pub name: String,
    /// How to create it where it is missing; `None`: then the start fails.
    pub create: Option<CreateTopic>,
}

/// `create:`. What is not said is the broker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTopic {
    /// How many partitions.
    pub partitions: Option<i32>,
    /// How many replicas of each.
    pub replication_factor: Option<i32>,
    /// The topic's settings that differ from the brokers' defaults.
    pub config: BTreeMap<String, String>,
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// What it writes.
    pub input: Stream,
    /// Where its records go.
    pub topic: SinkTopic,
    /// `where`, over the input.
    pub filter: Option<Expr>,
    /// The record's key.
    pub key: Key,
    /// The record's headers.
    pub headers: Headers,
    /// The record's timestamp.
    pub timestamp: SinkTimestamp,
    /// The record's partition, an integer; `None`, or where it is null: by the key, as the Java client has it.
    pub partition: Option<Expr>,
    /// Schema of the rows.
    pub schema: SchemaRef,
    /// The same, and behind it what the sink's expressions read of their records.
    pub input_schema: SchemaRef,
    /// The record's value.
    pub value: SinkValue,
    /// What happens to a row that cannot be evaluated, encoded, or that the topic would refuse.
    pub on_error: OnError,
}

/// Where a sink's records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTopic {
    /// Index into [`Plan::output_topics`].
    One(u16),
    /// `topic_from`: the topic that a text column names.
    Column {
        /// The column's index.
        column: usize,
        /// `allowed_topics`: names with their indexes into [`Plan::output_topics`]. Any other value follows `on_error`.
        allowed: BTreeMap<String, u16>,
    },
}

/// A sink record's timestamp.
#[derive(Debug)]
pub enum SinkTimestamp {
    /// The row's event time.
    EventTime,
    /// An integer or timestamp, milliseconds since the epoch.
    Expr(Expr),
    /// The source record's; where the topic would refuse that, the time of sending.
    Incoming,
}

/// A sink record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkValue {
    /// The row as a JSON object.
    Json(JsonFormat),
    /// The row as a CSV record, its values as this JSON has them.
    Csv(Csv, JsonFormat),
    /// The source record's value, bytes as they came.
    Incoming,
    /// The row's one column, as [`RawColumn`](crate::formats::plain::RawColumn) writes it; NULL is a tombstone.
    Column,
}

impl SinkValue {
    /// How keys and headers are written beside it.
    pub fn json(&self) -> JsonFormat {
        match self {
            SinkValue::Json(format) | SinkValue::Csv(_, format) => *format,
            SinkValue::Incoming | SinkValue::Column => JsonFormat::DEFAULT,
        }
    }
}

/// A sink record's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The source record's key, bytes as they came.
    Incoming,
    /// One column as plain text (null: no key).
    Text(usize),
    /// Columns by index: a JSON object of them.
    Json(Vec<usize>),
    /// One column as Kafka's serializers for Java write it (null: no key): text its bytes, numbers big-endian.
    Raw(usize),
}

/// A sink record's headers.
#[derive(Debug)]
pub enum Headers {
    /// None.
    None,
    /// The source record's, as they came; none where there is no source record.
    Forward,
    /// These: names, and expressions whose values are written as plain text (null: a header without value).
    Exprs(Vec<(String, Expr)>),
}

/// How a sink writes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonFormat {
    /// How timestamps are written.
    pub timestamps: Timestamps,
    /// How decimals are written.
    pub decimals: Decimals,
}

impl JsonFormat {
    /// What a sink does that says nothing of it.
    pub const DEFAULT: JsonFormat =
        JsonFormat { timestamps: Timestamps::Rfc3339, decimals: Decimals::Number };
}

/// How a sink writes decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimals {
    /// `12.50`. Exact as it is written, but many readers of JSON make a double of it.
    Number,
    /// `"12.50"`.
    String,
}

/// How a sink writes timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// `"2026-01-01T00:00:00.000Z"`.
    Rfc3339,
    /// Milliseconds since the epoch, a number.
    EpochMs,
}

/// `checkpoint:`.
#[derive(Debug, Clone, Hash)]
pub struct Checkpoint {
    /// Time between triggers.
    pub interval: Duration,
    /// Records since the last barrier that trigger one.
    pub max_records: u64,
    /// Output bytes of an epoch that trigger a barrier, and after which a firing pass stops and goes on in the next epoch.
    pub max_bytes: u64,
    /// Longest time that a checkpoint may take after its barrier.
    pub timeout: Duration,
    /// Least time between the end of one and the start of the next.
    pub min_pause: Duration,
    /// How many prepares in a row may fail before the epoch is given up.
    pub tolerable_failures: u32,
    /// Directory of the checkpoints (`file://`).
    pub storage: std::path::PathBuf,
    /// Snapshots kept, at least 1.
    pub retained: usize,
}

/// `restart:`, what follows a failure that may go away by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// The pipeline ends.
    None,
    /// A start after `delay`, but not more than `attempts` in a row without a commit.
    Fixed {
        /// Starts without a commit in between.
        attempts: u32,
        /// Before each.
        delay: Duration,
    },
    /// A start after a delay that doubles from `initial` to `max`, and starts anew after a quiet time.
    Exponential {
        /// First delay.
        initial: Duration,
        /// Longest delay.
        max: Duration,
    },
    /// A start after `delay`, unless there were more than `failures` within `per`.
    FailureRate {
        /// Failures that are tolerated.
        failures: u32,
        /// Time within which they are counted.
        per: Duration,
        /// Before each start.
        delay: Duration,
    },
}

/// `state:`.
#[derive(Debug, Clone, Hash)]
pub struct State {
    /// Where what is cold goes.
    pub backend: Backend,
    /// Working directory of the backend.
    pub dir: std::path::PathBuf,
    /// Budget in bytes: tables, copies on their way out, held output, caches of the backend.
    pub memory_bytes: u64,
}

/// `state.backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// RocksDB beyond the memory budget.
    RocksDb,
    /// Memory only: the pipeline stops with advice when the budget is reached.
    Memory,
}
