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
mod sink;
mod source;
mod time;
mod window;

pub mod explain;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, SchemaRef};

use crate::diagnostics::Secrets;
use crate::expr::Expr;

pub use pattern::TopicPattern;
pub use pipeline_test::{Content, Expected, Happening, PipelineTest};
pub use sink::{
    CreateTopic, Decimals, Headers, JsonFormat, Key, OutputTopic, Sink, SinkTimestamp, SinkTopic, SinkValue,
    Timestamps,
};
pub use source::{Column, Csv, EventTimeFrom, Format, Source, Start, Tombstones, UnknownFields};
pub use window::{Aggregate, AggregateFunction, Emits, Group, Late, Window};

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
        self.window.as_ref().is_some_and(Window::deduplicates)
    }
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
