//! What a pipeline does, checked: the only form in which a pipeline reaches the operators and the shell.
//!
//! A [`Plan`] can only be made by compiling a pipeline file without a single diagnostic; after that gate nothing needs
//! checking again. Streams are numbered: sources by their place in [`Plan::sources`], steps by their place in
//! [`Plan::steps`], which is a topological order (a step reads only sources and earlier steps).
//!
//! # types
//!
//! Every column between operators, every group and every result has one of these Arrow types, and no other: `Boolean`, `Int8`,
//! `Int16`, `Int32`, `Int64` (as declared; a result keeps the width that SQL gives it), `Float32`, `Float64`, `Decimal128` with a
//! scale from 0 to its precision, `Utf8`, `Date32`, and `Timestamp(Millisecond, None)`, which is in UTC
//! ([`TIMESTAMP`](crate::expr::TIMESTAMP)).

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::{DataType, SchemaRef};
use onceflow_protocol::WindowSpec;

use crate::diagnostics::Secrets;
use crate::expr::Expr;

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
    pub output_topics: Vec<String>,
    /// Worker threads, at least 1.
    pub parallelism: usize,
    /// When and where to checkpoint.
    pub checkpoint: Checkpoint,
    /// What to do after a failure.
    pub restart: Restart,
    /// Where state lives.
    pub state: State,
}

/// `kafka:`. Printed for debugging it hides the values of properties: any of them may be a secret.
#[derive(Clone, Hash)]
pub struct Kafka {
    /// `bootstrap.servers`.
    pub bootstrap_servers: String,
    /// librdkafka properties, verbatim; none that the guarantee needs otherwise.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Kafka")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &names)
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
}

/// One source.
#[derive(Debug)]
pub struct Source {
    /// Its name, part of the identity of its positions.
    pub name: String,
    /// Topics it reads.
    pub topics: Vec<String>,
    /// Where to begin when there is no checkpoint.
    pub start: Start,
    /// The columns to decode: those that the plan uses, in the order of the schema. [`Source::schema`] has the same order.
    pub columns: Vec<Column>,
    /// Arrow schema of the decoded columns.
    pub schema: SchemaRef,
    /// What a record's event time is.
    pub event_time: EventTimeFrom,
    /// How far the watermark stays behind the largest event time, milliseconds.
    pub watermark_delay_ms: i64,
    /// After how long without records a partition at its end stops counting; `None`: never.
    pub idle_after: Option<Duration>,
    /// What happens to a record that cannot be decoded or evaluated.
    pub on_error: OnError,
}

/// A declared column that is decoded.
#[derive(Debug, Clone)]
pub struct Column {
    /// Column name, case-sensitive.
    pub name: String,
    /// Members to descend through, outermost first; at least one.
    pub path: Vec<String>,
    /// Arrow type, one of [`scalar types`](crate::plan#types).
    pub data_type: DataType,
    /// Whether a missing or null member is an error.
    pub not_null: bool,
}

/// Where reading begins when there is no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The beginning of each partition.
    Earliest,
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
}

/// One step: a filter, then a projection, then a window, each optional.
#[derive(Debug)]
pub struct Step {
    /// Its name; for a windowed step the identity of its state.
    pub name: String,
    /// What it reads. One input: its schema is [`Step::input_schema`]. Several, a union: each has the columns of
    /// [`Step::input_schema`] by name and type, perhaps in another order and perhaps with others beside them.
    pub inputs: Vec<Stream>,
    /// Schema of the rows that come in. It can be without columns, where nothing but the number of rows matters.
    pub input_schema: SchemaRef,
    /// `where`, boolean over the input.
    pub filter: Option<Expr>,
    /// `select`, over the input; its schema is [`Step::projected_schema`].
    pub project: Option<Vec<Expr>>,
    /// Schema after `select` (the input's where there is none).
    pub projected_schema: SchemaRef,
    /// `window` with its clauses.
    pub window: Option<Window>,
    /// Schema of the rows that go out.
    pub output_schema: SchemaRef,
    /// What happens to a row whose expressions fail.
    pub on_error: OnError,
}

/// Keyed event-time windows of a step. Output: group columns, `window_start`, `window_end` (timestamps in ms, UTC), aggregates.
#[derive(Debug)]
pub struct Window {
    /// Size and slide.
    pub spec: WindowSpec,
    /// The step's group columns: names of the output and expressions over the projected schema.
    pub group_by: Vec<Group>,
    /// Aggregates in output order.
    pub aggregates: Vec<Aggregate>,
    /// `having`, over the output schema.
    pub having: Option<Expr>,
    /// `allowed_lateness`, milliseconds: a window fires (`emit: final`) this long after its end.
    pub lateness_ms: i64,
    /// What happens to rows whose windows are all closed.
    pub late: Late,
    /// What the state depends on (sizes, groups and aggregates with their types and expressions) in one canonical spelling, a
    /// line each: state that was written under another identity is not this step's.
    pub identity: String,
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
}

/// `late:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Late rows are counted and dropped.
    Drop,
    /// Their source records go to the dead letter topic.
    DeadLetter,
}

/// One sink.
#[derive(Debug)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// What it writes.
    pub input: Stream,
    /// Index into [`Plan::output_topics`].
    pub topic: u16,
    /// `where`, over the input.
    pub filter: Option<Expr>,
    /// The record's key.
    pub key: Key,
    /// Schema of the rows.
    pub schema: SchemaRef,
    /// How timestamps are written.
    pub timestamps: Timestamps,
    /// Whether the source record's headers go along (stateless input), or none are written.
    pub forward_headers: bool,
    /// What happens to a row that cannot be evaluated, encoded, or that the topic would refuse.
    pub on_error: OnError,
}

/// A sink record's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The source record's key, bytes as they came.
    Incoming,
    /// One text column: its bytes.
    Text(usize),
    /// Columns by index: a JSON object of them.
    Json(Vec<usize>),
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
