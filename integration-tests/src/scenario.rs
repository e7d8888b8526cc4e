//! One test's surroundings: topics of its own, directories of its own, and the pipeline file.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::fold::Window;
use crate::kafka::{Kafka, unique};
use crate::topic::{Isolation, Record, read_all};

/// How the windowed pipeline of a test runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The windows.
    pub window: Window,
    /// Worker threads.
    pub parallelism: u32,
    /// The budget of the state, as written in the file.
    pub memory: &'static str,
    /// `allowed_lateness`, as written in the file.
    pub lateness: &'static str,
    /// `checkpoint.interval`, as written in the file.
    pub interval: &'static str,
    /// `checkpoint.timeout`, as written in the file.
    pub timeout: &'static str,
    /// `checkpoint.tolerable_failures`.
    pub tolerable_failures: u32,
    /// `on_error` of the source.
    pub on_error: &'static str,
    /// `watermark.idle_after` of the source, as written in the file.
    pub idle_after: &'static str,
    /// When results are written.
    pub emit: Emit,
}

/// `emit` of the windowed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Once.
    Final,
    /// `updates`: rows replace each other by their key.
    Updates,
    /// The same, and before the end of their window.
    Early,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Window::TUMBLING,
            parallelism: 1,
            memory: "256MiB",
            lateness: "2m",
            interval: "100ms",
            timeout: "60s",
            tolerable_failures: 0,
            on_error: "dead_letter",
            idle_after: "10m",
            emit: Emit::Final,
        }
    }
}

/// Topics, directories and the pipeline file of one test.
pub struct Scenario {
    /// The broker.
    pub kafka: &'static Kafka,
    /// The pipeline's name; topics are named after it.
    pub name: String,
    dir: TempDir,
}

impl Scenario {
    /// A scenario on the shared broker. `name` is made unique.
    pub fn new(name: &str) -> Self {
        Self::on(Kafka::shared(), name)
    }

    /// A scenario on a given broker, which lives as long as the process.
    pub fn on(kafka: &'static Kafka, name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("onceflow-test.").tempdir().unwrap();
        Self { kafka, name: unique(name), dir }
    }

    /// Creates the input, output and dead letter topics.
    pub fn create_topics(&self, partitions: i32) -> &Self {
        self.kafka.create_topic(&self.input(), partitions);
        self.kafka.create_topic(&self.output(), 2);
        self.kafka.create_topic(&self.dead_letter(), 1);
        self
    }

    /// The topic that the pipeline reads.
    pub fn input(&self) -> String {
        format!("{}.in", self.name)
    }

    /// The topic that the windowed pipeline writes.
    pub fn output(&self) -> String {
        format!("{}.out", self.name)
    }

    /// The topic of the dead letters.
    pub fn dead_letter(&self) -> String {
        format!("{}.dead-letter", self.name)
    }

    /// The topic of claims and decisions.
    pub fn control(&self) -> String {
        format!("onceflow.{}.control", self.name)
    }

    /// The directory of the test; it goes with the scenario.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the pipeline's checkpoints are.
    pub fn storage(&self) -> PathBuf {
        self.dir().join("checkpoints")
    }

    /// Where the files of the pipeline's one shard are.
    pub fn shard(&self) -> PathBuf {
        self.storage().join("onceflow").join(&self.name).join("0")
    }

    /// What every pipeline file of a test begins with: name, broker, checkpoints and state.
    pub fn preamble(&self, settings: &Settings) -> String {
        let dir = self.dir().display();
        let backend = if cfg!(feature = "rocksdb") { "rocksdb" } else { "memory" };
        let Settings { parallelism, memory, interval, timeout, tolerable_failures, .. } = settings;
        format!(
            "pipeline: {name}\n\
             kafka: {{ bootstrap_servers: \"{bootstrap}\" }}\n\
             parallelism: {parallelism}\n\
             checkpoint:\n  \
               interval: {interval}\n  \
               timeout: {timeout}\n  \
               tolerable_failures: {tolerable_failures}\n  \
               storage: \"file://{dir}/checkpoints\"\n\
             state: {{ backend: {backend}, dir: \"{dir}/state\", memory: {memory} }}\n\
             restart: {{ strategy: exponential, initial: 100ms, max: 2s }}\n\
             dead_letter: {{ topic: {dead_letter} }}\n",
            name = self.name,
            bootstrap = self.kafka.bootstrap(),
            dead_letter = self.dead_letter(),
        )
    }

    /// The source `orders`, as all pipelines of the tests declare it.
    pub fn source(&self, settings: &Settings) -> String {
        format!(
            "sources:
  orders:
    topics: [{input}]
    format: json
    schema:
      order_id: varchar
      user_id: varchar not null
      country: {{ type: varchar, path: customer.address.country }}
      amount: decimal(12,2) not null
      weight: double not null
      ts: bigint not null
    event_time: {{ column: ts, unit: ms }}
    watermark: {{ delay: {delay}, idle_after: {idle_after} }}
    on_error: {on_error}
",
            input = self.input(),
            // Windows are to fire before all of their records have come.
            delay = if settings.emit != Emit::Final { "0s" } else { "5s" },
            idle_after = settings.idle_after,
            on_error = settings.on_error,
        )
    }

    /// Writes the windowed pipeline of most tests and returns its file.
    pub fn write_windowed(&self, settings: &Settings) -> PathBuf {
        let steps = format!(
            "steps:
  paid:
    from: orders
    where: amount > 0 and country is distinct from 'XX'
    select:
      user_id: user_id
      country: country
      amount: amount
      weight: weight
      cents: cast(amount * 100 as bigint)
  per_user:
    from: paid
    {window}
    group_by: [user_id]
    aggregate:
      orders: count(*)
      cents: sum(cents)
      smallest: min(cents)
      largest: max(cents)
      average: avg(cents)
      amount: sum(amount)
      weight: sum(weight)
      country: max(country)
    having: orders > 0
    emit: {emit}
    late: dead_letter
sinks:
  totals:
    from: per_user
    topic: {output}
    key: {key}
    format: json
",
            window = settings.window.yaml(settings.lateness),
            emit = match settings.emit {
                Emit::Final => "final",
                Emit::Updates => "updates",
                Emit::Early => "{ early: 10s }",
            },
            key = if settings.emit != Emit::Final { settings.window.identity() } else { "user_id" },
            output = self.output(),
        );
        self.write("pipeline.yaml", &(self.preamble(settings) + &self.source(settings) + &steps))
    }

    /// Writes a file of the test's directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// All committed records of a topic.
    pub fn committed(&self, topic: &str) -> Vec<Record> {
        read_all(self.kafka, topic, Isolation::Committed)
    }

    /// The committed decisions, oldest first, those that compaction removed left out.
    pub fn decisions(&self) -> Vec<serde_json::Value> {
        let records = self.committed(&self.control());
        records.iter().filter(|record| record.key.as_deref() == Some(b"decision")).map(Record::json).collect()
    }

    /// The next offset of each input partition in the newest decision; `None` before the first one.
    pub fn decided_offsets(&self) -> Option<Vec<i64>> {
        offsets_of(&self.decisions().pop()?)
    }

    /// Whether every record of the input is behind a committed decision. What the topic holds counts, not what was sent: a producer
    /// that loses its broker may write a record twice without knowing.
    pub fn is_drained(&self) -> bool {
        self.decided_offsets().is_some_and(|offsets| offsets == self.input_ends())
    }

    /// Where each input partition ends.
    pub fn input_ends(&self) -> Vec<i64> {
        let partitions = 0..self.kafka.partitions(&self.input());
        partitions.filter_map(|partition| self.kafka.end_offset(&self.input(), partition)).collect()
    }

    /// Whether the shard has files of evicted panes, in any incarnation.
    pub fn has_cold_files(&self) -> bool {
        self.files("cold")
            .iter()
            .any(|incarnation| std::fs::read_dir(incarnation).is_ok_and(|mut files| files.next().is_some()))
    }

    /// Files of the shard below `folder`, sorted by name; none if the folder is not there.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.shard().join(folder)) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    }
}

/// The next offset of each input partition in a decision.
pub fn offsets_of(decision: &serde_json::Value) -> Option<Vec<i64>> {
    let mut positions: Vec<(i64, i64)> = decision["positions"]
        .as_array()?
        .iter()
        .map(|at| Some((at["partition"].as_i64()?, at["next_offset"].as_i64()?)))
        .collect::<Option<_>>()?;
    positions.sort();
    Some(positions.into_iter().map(|(_, next)| next).collect())
}
