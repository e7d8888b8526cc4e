//! A plan, explained: what is read, what each step does with which types, what it keeps, and where it goes.
//!
//! [`Explanation`] is the plan as data, with stable names; `text` and `mermaid` are made from it alone.

mod human;
mod mermaid;
mod text;

use arrow::datatypes::{DataType, Schema};
use onceflow_protocol::Delay;
use serde::Serialize;

use super::{
    Aggregate, AggregateFunction, Backend, Emits, EventTimeFrom, Format, Group, Headers, KEPT, Key, Late,
    OnError, Plan, Sink, SinkTopic, SinkValue, Source, Start, Step, Stream, Tombstones, UnknownFields,
    Window,
};
use crate::expr::sql_type;
use crate::state::table::{Layout, StateColumn};

/// A plan as data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The pipeline's name.
    pub pipeline: String,
    /// Worker threads.
    pub parallelism: usize,
    /// What is read.
    pub sources: Vec<ExplainedSource>,
    /// What is done, in the order in which rows go through.
    pub steps: Vec<ExplainedStep>,
    /// What is written.
    pub sinks: Vec<ExplainedSink>,
    /// What goes no further, and is counted.
    pub left_out: Vec<ExplainedLoss>,
    /// The dead letter topic.
    pub dead_letter: Option<String>,
    /// When and where checkpoints are taken.
    pub checkpoint: ExplainedCheckpoint,
    /// Where state lives; none for a pipeline without windows.
    pub state: Option<ExplainedState>,
}

/// Something that is left out somewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedLoss {
    /// Where: `step paid`.
    pub at: String,
    /// What: `late rows`.
    pub what: &'static str,
    /// Where it goes instead: `dead_letter`, `stream`; none where it is only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goes_to: Option<&'static str>,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedSource {
    /// Its name.
    pub name: String,
    /// Its brokers, where it reads from a cluster of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_servers: Option<String>,
    /// Its topics, and patterns of them.
    pub topics: Vec<String>,
    /// Where it begins without a checkpoint.
    pub start: String,
    /// How values are read.
    pub format: &'static str,
    /// What becomes of undeclared members.
    pub unknown_fields: &'static str,
    /// What becomes of null values.
    pub tombstones: &'static str,
    /// The columns that the pipeline uses; nothing else of a record is decoded.
    pub reads: Vec<ExplainedColumn>,
    /// Where a record's event time comes from.
    pub event_time: String,
    /// How far the watermark stays behind the largest event time.
    pub watermark: ExplainedDelay,
    /// After how long a silent partition stops counting, milliseconds.
    pub idle_after_ms: Option<u64>,
    /// How far a partition may be ahead of the others before it waits, milliseconds.
    pub max_drift_ms: Option<u64>,
    /// What happens to a record that cannot be used.
    pub on_error: &'static str,
}

/// How far a watermark stays behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ExplainedDelay {
    /// Always as far.
    Fixed {
        /// Milliseconds.
        delay_ms: i64,
    },
    /// As far as the disorder of most records asks for.
    Percentile {
        /// How many of a hundred.
        percentile: f64,
        /// At least so many milliseconds.
        min_ms: i64,
        /// At most so many milliseconds.
        max_ms: i64,
    },
}

/// A column with its SQL type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedColumn {
    /// Its name.
    pub name: String,
    /// `varchar not null`.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// The member it is read from, where that is not its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it is computed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// What state it has beside that of a fixed size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeps: Option<String>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedStep {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub from: Vec<String>,
    /// Its filter.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What `select` makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Vec<ExplainedColumn>>,
    /// The column whose lists become rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unnest: Option<String>,
    /// Its window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<ExplainedWindow>,
    /// The rows that go out.
    pub rows: Vec<ExplainedColumn>,
}

/// A window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedWindow {
    /// `tumbling`, `hopping`, `cumulative` or `session`; `none` for totals that go on, `deduplicate` for what has no duplicates.
    pub kind: &'static str,
    /// Its length, of cumulative ones the longest; of sessions the gap; of totals the `ttl`; of a deduplication `within`. Milliseconds.
    pub size_ms: i64,
    /// By how much windows are shifted against 1970, milliseconds.
    pub offset_ms: i64,
    /// From one window's end to the next, milliseconds; also the length of a pane, which is what state is kept by.
    pub every_ms: i64,
    /// How long after its end it closes, milliseconds.
    pub allowed_lateness_ms: i64,
    /// `final`, `updates` or, without a window, `running`.
    pub emit: &'static str,
    /// How often results come before the end of their window, milliseconds of event time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_ms: Option<i64>,
    /// Its groups.
    pub group_by: Vec<ExplainedColumn>,
    /// Its aggregates.
    pub aggregate: Vec<ExplainedColumn>,
    /// Which results are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub having: Option<String>,
    /// What happens to late rows.
    pub late: &'static str,
    /// How long a pane is kept from its start, milliseconds of event time.
    pub pane_kept_ms: i64,
    /// What a group of a pane takes in memory, without its texts, bytes.
    pub group_bytes: usize,
    /// The columns whose text comes on top of that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_texts: Vec<String>,
}

/// A sink.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedSink {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub from: String,
    /// Its topic, or those that a column may name.
    pub topics: Vec<String>,
    /// The column that names the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_from: Option<String>,
    /// Its filter.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// What a record's key is.
    pub key: String,
    /// A record's headers.
    pub headers: String,
    /// How a record's value is written.
    pub format: &'static str,
    /// What a record's value holds.
    pub rows: Vec<ExplainedColumn>,
}

/// `checkpoint`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedCheckpoint {
    /// Time between two, milliseconds.
    pub interval_ms: u64,
    /// Directory.
    pub storage: String,
    /// Snapshots kept.
    pub retained: usize,
}

/// `state`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedState {
    /// Where it goes that memory cannot hold.
    pub backend: &'static str,
    /// Working directory.
    pub dir: String,
    /// Budget, bytes.
    pub memory_bytes: u64,
}

impl Explanation {
    /// Explains a plan.
    pub fn of(plan: &Plan) -> Explanation {
        let stateful = plan.steps.iter().any(|step| step.window.is_some());
        let backend = match plan.state.backend {
            Backend::RocksDb => "rocksdb",
            Backend::Memory => "memory",
        };
        Explanation {
            pipeline: plan.pipeline.clone(),
            parallelism: plan.parallelism,
            sources: plan.sources.iter().map(source).collect(),
            steps: plan.steps.iter().map(|explained| step(plan, explained)).collect(),
            sinks: plan.sinks.iter().map(|explained| sink(plan, explained)).collect(),
            left_out: left_out(plan),
            dead_letter: plan.dead_letter.map(|topic| plan.output_topics[usize::from(topic)].name.clone()),
            checkpoint: ExplainedCheckpoint {
                interval_ms: plan.checkpoint.interval.as_millis() as u64,
                storage: format!("file://{}", plan.checkpoint.storage.display()),
                retained: plan.checkpoint.retained,
            },
            state: stateful.then(|| ExplainedState {
                backend,
                dir: plan.state.dir.display().to_string(),
                memory_bytes: plan.state.memory_bytes,
            }),
        }
    }
}

/// What goes no further, in the order in which rows go through.
fn left_out(plan: &Plan) -> Vec<ExplainedLoss> {
    let mut losses = vec![];
    let mut add = |is_left_out: bool, at: String, what: &'static str, goes_to: Option<&'static str>| {
        losses.extend(is_left_out.then_some(ExplainedLoss { at, what, goes_to }));
    };
    let instead = |policy: OnError| match policy {
        OnError::Fail | OnError::Drop => None,
        OnError::DeadLetter => Some("dead_letter"),
        OnError::Stream => Some("stream"),
    };
    for source in &plan.sources {
        let at = || format!("source {}", source.name);
        let may_fail = source.on_error != OnError::Fail;
        let failed = "records that cannot be read or computed with";
        add(may_fail, at(), failed, instead(source.on_error));
        add(source.tombstones == Tombstones::Skip, at(), "null values", None);
    }
    for step in &plan.steps {
        let at = || format!("step {}", step.name);
        add(step.filter.is_some(), at(), "rows for which `where` is not true", None);
        add(step.unnest.is_some(), at(), "rows whose list is empty", None);
        let Some(window) = &step.window else { continue };
        let late = match window.late {
            Late::Drop => None,
            Late::DeadLetter => Some("dead_letter"),
            Late::Stream => Some("stream"),
        };
        add(true, at(), "late rows", late);
        add(window.deduplicates(), at(), "duplicates", None);
        let may_overflow = |aggregate: &Aggregate| match aggregate.function {
            AggregateFunction::Sum => !aggregate.result_type.is_floating(),
            function => matches!(function, AggregateFunction::CountDistinct { .. }),
        };
        let overflows = window.aggregates.iter().any(may_overflow) && step.on_error != OnError::Fail;
        add(overflows, at(), "results that are too large", instead(step.on_error).map(|_| "dead_letter"));
        add(window.having.is_some(), at(), "results for which `having` is not true", None);
    }
    for sink in &plan.sinks {
        let at = || format!("sink {}", sink.name);
        add(sink.filter.is_some(), at(), "rows for which `where` is not true", None);
        let may_fail = sink.on_error != OnError::Fail;
        add(may_fail, at(), "rows that its topic would not take", instead(sink.on_error));
    }
    losses
}

/// What an aggregate keeps of a group that has no fixed size.
fn keeps(function: AggregateFunction) -> Option<String> {
    match function {
        AggregateFunction::ArrayAgg { limit } => Some(format!("up to {limit} values of a group")),
        AggregateFunction::CountDistinct { limit } => Some(format!("up to {limit} values of a group")),
        AggregateFunction::ApproxDistinct => Some("a sketch of up to 4 KiB a group".to_owned()),
        AggregateFunction::ApproxPercentile { .. } => Some("a sketch of up to 20 KiB a group".to_owned()),
        _ => None,
    }
}

fn name_of(plan: &Plan, stream: Stream) -> String {
    match stream {
        Stream::Source(source) => plan.sources[source].name.clone(),
        Stream::Step(step) => plan.steps[step].name.clone(),
        Stream::Late(step) => format!("{}.late", plan.steps[step].name),
        Stream::Errors(source) => format!("{}.errors", plan.sources[source].name),
    }
}

fn columns(schema: &Schema) -> Vec<ExplainedColumn> {
    let column = |field: &arrow::datatypes::FieldRef| {
        let (name, sql_type) = match field.name() == KEPT {
            true => ("…".to_owned(), "undeclared members, as they came".to_owned()),
            false => (field.name().clone(), typed(&sql_type(field.data_type()), !field.is_nullable())),
        };
        ExplainedColumn { name, sql_type, path: None, sql: None, keeps: None }
    };
    schema.fields().iter().map(column).collect()
}

fn typed(sql_type: &str, not_null: bool) -> String {
    format!("{sql_type}{}", if not_null { " not null" } else { "" })
}

fn source(source: &Source) -> ExplainedSource {
    let reads = source.columns.iter().map(|column| {
        let path = column.path.join(".");
        ExplainedColumn {
            sql_type: typed(&sql_type(&column.data_type), column.not_null),
            path: (path != column.name).then_some(path),
            name: column.name.clone(),
            sql: None,
            keeps: None,
        }
    });
    let event_time = match source.event_time {
        EventTimeFrom::Record => "the record's timestamp".to_owned(),
        EventTimeFrom::Column { column, .. } => format!("column {}", source.columns[column].name),
    };
    let patterns = source.patterns.iter().map(|pattern| pattern.as_str().to_owned());
    ExplainedSource {
        name: source.name.clone(),
        bootstrap_servers: source.kafka.as_ref().map(|kafka| kafka.bootstrap_servers.clone()),
        topics: source.topics.iter().cloned().chain(patterns).collect(),
        start: match source.start {
            Start::Earliest => "earliest".to_owned(),
            Start::Latest => "latest".to_owned(),
            Start::Timestamp(ms) => format!("the first record from {ms} ms since 1970 on"),
        },
        format: match source.format {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
        },
        unknown_fields: match source.unknown_fields {
            UnknownFields::Ignore => "ignore",
            UnknownFields::Keep => "keep",
            UnknownFields::Error => "error",
        },
        tombstones: match source.tombstones {
            Tombstones::Error => "error",
            Tombstones::Skip => "skip",
            Tombstones::Pass => "pass",
        },
        reads: reads.collect(),
        event_time,
        watermark: match source.delay {
            Delay::Fixed(delay_ms) => ExplainedDelay::Fixed { delay_ms },
            Delay::Percentile { cover_ppm, min_ms, max_ms } => {
                ExplainedDelay::Percentile { percentile: f64::from(cover_ppm) / 1e4, min_ms, max_ms }
            }
        },
        idle_after_ms: source.idle_after.map(|after| after.as_millis() as u64),
        max_drift_ms: source.max_drift.map(|drift| drift.as_millis() as u64),
        on_error: match source.on_error {
            OnError::Fail => "fail",
            OnError::Drop => "drop",
            OnError::DeadLetter => "dead_letter",
            OnError::Stream => "stream",
        },
    }
}

fn step(plan: &Plan, step: &Step) -> ExplainedStep {
    let select = step.project.as_ref().map(|exprs| {
        let mut selected = columns(&step.projected_schema);
        for (column, expr) in selected.iter_mut().zip(exprs) {
            column.sql = Some(expr.sql().to_owned());
        }
        selected
    });
    ExplainedStep {
        name: step.name.clone(),
        from: step.inputs.iter().map(|input| name_of(plan, *input)).collect(),
        filter: step.filter.as_ref().map(|filter| filter.sql().to_owned()),
        select,
        unnest: step.unnest.map(|column| step.projected_schema.field(column).name().clone()),
        window: step.window.as_ref().map(|explained| window(step, explained)),
        rows: columns(&step.output_schema),
    }
}

fn window(step: &Step, window: &Window) -> ExplainedWindow {
    let rows = columns(&step.output_schema);
    let row = |name: &str, sql: String| {
        let known = rows.iter().find(|column| column.name == name);
        let sql_type = known.map(|column| column.sql_type.clone()).unwrap_or_default();
        ExplainedColumn { name: name.to_owned(), sql_type, path: None, sql: Some(sql), keeps: None }
    };
    let group = |group: &Group| {
        let own = || typed(&sql_type(&group.data_type), false);
        let shown = row(&group.name, group.expr.sql().to_owned());
        // The key of a deduplication is no column of its rows.
        if window.deduplicates() { ExplainedColumn { sql_type: own(), ..shown } } else { shown }
    };
    let aggregates = window.aggregates.iter().skip(window.own_aggregates());
    let aggregates = aggregates.map(|aggregate| ExplainedColumn {
        keeps: keeps(aggregate.function),
        ..row(&aggregate.name, aggregate.sql.clone())
    });
    let groups = window.group_by.iter().map(|group| (&group.name, &group.data_type));
    let results = window.aggregates.iter().map(|aggregate| (&aggregate.name, &aggregate.result_type));
    let texts = groups.chain(results).filter(|(_, data_type)| **data_type == DataType::Utf8);
    let layout = Layout::of(window, StateColumn::planned(window.aggregates.len()));
    let gap_ms = window.spec.session_gap_ms();
    ExplainedWindow {
        kind: match gap_ms {
            _ if window.deduplicates() => "deduplicate",
            Some(_) if window.emits == Emits::Totals => "none",
            Some(_) => "session",
            None if window.spec.is_cumulative() => "cumulative",
            None if window.spec.size_ms() == window.spec.every_ms() => "tumbling",
            None => "hopping",
        },
        size_ms: gap_ms.unwrap_or(window.spec.size_ms()),
        offset_ms: window.spec.offset_ms(),
        every_ms: window.spec.every_ms(),
        allowed_lateness_ms: window.lateness_ms,
        emit: match window.emits {
            Emits::Final => "final",
            Emits::Updates { .. } => "updates",
            Emits::Totals | Emits::Rows => "running",
        },
        early_ms: window.emits.early_ms(),
        group_by: window.group_by.iter().map(group).collect(),
        aggregate: aggregates.collect(),
        having: window.having.as_ref().map(|having| having.sql().to_owned()),
        late: match window.late {
            Late::Drop => "drop",
            Late::DeadLetter => "dead_letter",
            Late::Stream => "stream",
        },
        pane_kept_ms: window.spec.size_ms() + window.lateness_ms,
        // The compiler has refused what has no layout.
        group_bytes: layout.and_then(|layout| layout.bytes_per_group()).unwrap_or_default(),
        group_texts: texts.map(|(name, _)| name.clone()).collect(),
    }
}

fn sink(plan: &Plan, sink: &Sink) -> ExplainedSink {
    let name = |column: &usize| sink.schema.field(*column).name().clone();
    let key = match &sink.key {
        Key::Incoming => "the incoming key".to_owned(),
        Key::Text(column) => format!("the text of {}", name(column)),
        Key::Raw(column) => format!("{} as Java's serializers write it", name(column)),
        Key::Json(columns) => {
            format!("a JSON object of {}", columns.iter().map(name).collect::<Vec<_>>().join(", "))
        }
    };
    let topic = |topic: u16| plan.output_topics[usize::from(topic)].name.clone();
    let (topics, topic_from) = match &sink.topic {
        SinkTopic::One(one) => (vec![topic(*one)], None),
        SinkTopic::Column { column, allowed } => {
            (allowed.values().map(|allowed| topic(*allowed)).collect(), Some(name(column)))
        }
    };
    let headers = match &sink.headers {
        Headers::None => "none".to_owned(),
        Headers::Forward => "those of the source record".to_owned(),
        Headers::Exprs(headers) => {
            let header = |(name, expr): &(String, crate::expr::Expr)| format!("{name} = {}", expr.sql());
            headers.iter().map(header).collect::<Vec<_>>().join(", ")
        }
    };
    let (format, rows) = match sink.value {
        SinkValue::Json(_) => ("json", columns(&sink.schema)),
        SinkValue::Csv(..) => ("csv", columns(&sink.schema)),
        SinkValue::Column => ("raw", columns(&sink.schema)),
        SinkValue::Incoming => ("raw", vec![]),
    };
    ExplainedSink {
        name: sink.name.clone(),
        from: name_of(plan, sink.input),
        topics,
        topic_from,
        filter: sink.filter.as_ref().map(|filter| filter.sql().to_owned()),
        key,
        headers,
        format,
        rows,
    }
}
