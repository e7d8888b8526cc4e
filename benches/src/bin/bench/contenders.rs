//! How each contender is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cases::{Case, Contender, Job};

/// Where everything is.
pub struct Bench {
    /// The directory `benches`.
    pub here: PathBuf,
    /// Where `onceflow`, `load` and `bare-loop` are.
    pub binaries: PathBuf,
    /// Where the peers' classes and jars are: `flink` and `streams`.
    pub peers: PathBuf,
    /// What is written while measuring.
    pub work: PathBuf,
    /// The Kafka.
    pub bootstrap: String,
    /// Its process.
    pub broker: u32,
}

/// One run of a contender.
pub struct Run<'r> {
    /// What it computes, and how.
    pub case: &'r Case,
    /// Its input.
    pub input: &'r str,
    /// Orders in that; `None` when there come more until the contender is ended.
    pub orders: Option<i64>,
    /// Where its answers go.
    pub output: &'r str,
    /// Its own directory.
    pub dir: &'r Path,
}

impl Bench {
    /// The command that runs `contender` to the end of its input, or until it is ended.
    ///
    /// # Errors
    /// A job that it does not do.
    pub fn command(&self, contender: Contender, run: &Run) -> Result<Command> {
        Ok(match contender {
            Contender::Loop => self.bare_loop(run, &[])?,
            Contender::Decode => self.bare_loop(run, &["decode"])?,
            Contender::Copy => self.bare_loop(run, &["copy", run.output])?,
            Contender::Onceflow => self.onceflow(run),
            Contender::FlinkHeap => self.java("flink", "peers.FlinkStream", "hashmap", run)?,
            Contender::FlinkRocksdb if run.case.job == Job::Tumbling => {
                self.java("flink", "peers.FlinkSql", "rocksdb", run)?
            }
            Contender::FlinkStreamRocksdb => self.java("flink", "peers.FlinkStream", "rocksdb", run)?,
            Contender::Streams if run.case.job != Job::Hopping => {
                self.java("streams", "peers.Streams", "", run)?
            }
            _ => bail!("{} does not do {}", contender.name(), run.case.job.name()),
        })
    }

    fn bare_loop(&self, run: &Run, what: &[&str]) -> Result<Command> {
        let orders = run.orders.context("a loop ends")?.to_string();
        let mut command = Command::new(self.binaries.join("bare-loop"));
        command.args([&self.bootstrap, run.input, &orders]).args(what);
        command.env("BENCH_LINGER", run.case.linger_ms.to_string());
        Ok(command)
    }

    fn onceflow(&self, run: &Run) -> Command {
        let mut command = Command::new(self.binaries.join("onceflow"));
        command.arg("run").args(run.orders.map(|_| "--until-end"));
        command.arg(self.here.join("pipelines").join(run.case.job.name()).with_extension("yaml"));
        command
            .env("BENCH_BOOTSTRAP", &self.bootstrap)
            .env("BENCH_INPUT", run.input)
            .env("BENCH_OUTPUT", run.output)
            .env("BENCH_DIR", run.dir)
            .env("BENCH_PARALLELISM", run.case.parallelism.to_string())
            .env("BENCH_INTERVAL", format!("{}ms", run.case.interval_ms))
            .env("BENCH_LINGER", run.case.linger_ms.to_string())
            .env("BENCH_BACKEND", "rocksdb")
            // A control topic and a group of its own for each run.
            .env("ONCEFLOW_NAMESPACE", run.output)
            .env("ONCEFLOW_HTTP__LISTEN", "127.0.0.1:0");
        command
    }

    fn java(&self, project: &str, class: &str, backend: &str, run: &Run) -> Result<Command> {
        let mut command = Command::new("java");
        // Libraries are unpacked there, and are left behind by whoever is killed.
        let temporary = run.dir.join("tmp");
        fs::create_dir_all(&temporary)?;
        command.arg(format!("-Djava.io.tmpdir={}", temporary.display()));
        // The collector that costs least CPU; but its pauses are the longer ones.
        let collector = if run.orders.is_some() { "-XX:+UseParallelGC" } else { "-XX:+UseG1GC" };
        command.arg(format!("-Xmx{}g", run.case.heap_gib));
        command.args([collector, "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]);
        // Flink's serializers look into these.
        for package in ["java.util", "java.lang", "java.time"] {
            command.arg(format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
        }
        let built = self.peers.join(project);
        command.arg("-cp").arg(format!("{0}/classes:{0}/jars/*", built.display())).arg(class);
        command.args([&self.bootstrap, run.input, run.output]).arg(run.dir).arg(run.case.job.name());
        command.args((!backend.is_empty()).then_some(backend));
        command.args([
            run.case.interval_ms.to_string(),
            run.case.parallelism.to_string(),
            run.orders.unwrap_or(0).to_string(),
            run.case.linger_ms.to_string(),
        ]);
        Ok(command)
    }

    /// Makes a topic of four partitions.
    ///
    /// # Errors
    /// If Kafka's tool fails.
    pub fn create_topic(&self, topic: &str) -> Result<()> {
        self.topic_tool(&["--create", "--partitions", "4", "--topic", topic])
    }

    /// Deletes a topic; its files follow a minute later.
    ///
    /// # Errors
    /// If Kafka's tool fails.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        self.topic_tool(&["--delete", "--topic", topic])
    }

    /// Deletes the records of a topic's partitions before these offsets.
    ///
    /// # Errors
    /// If Kafka's tool fails.
    pub fn delete_records(&self, topic: &str, before: &[i64]) -> Result<()> {
        let partition = |(partition, offset)| serde_json::json!({ "topic": topic, "partition": partition, "offset": offset });
        let partitions: Vec<_> = before.iter().enumerate().map(partition).collect();
        let file = self.work.join("delete-records.json");
        fs::write(&file, serde_json::json!({ "version": 1, "partitions": partitions }).to_string())?;
        let file = file.to_string_lossy();
        self.tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", &file])
    }

    fn topic_tool(&self, what: &[&str]) -> Result<()> {
        self.tool("org.apache.kafka.tools.TopicCommand", what)
    }

    fn tool(&self, class: &str, what: &[&str]) -> Result<()> {
        let kafka = self.here.join("../integration-tests/kafka/kafka");
        let output = Command::new(kafka)
            .args(["tool", class, "--bootstrap-server", &self.bootstrap])
            .args(what)
            .output()
            .context("the launcher of Kafka")?;
        if !output.status.success() {
            bail!("{what:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}
