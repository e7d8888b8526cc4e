//! Whole pipelines, from YAML to output: each case is a file of its own under `cases/`.
//!
//! A case is a pipeline, a line `=== input`, the input, a line `=== output`, and the output in sorted order: topic (and partition,
//! where the sink says so), timestamp, key, value, headers; of dead letters those that say why. A line of the input is
//!
//! - `TOPIC/PARTITION TIMESTAMP VALUE`: a record (value `-`: null); offsets count from 0 in each partition. Behind the timestamp
//!   may stand `|KEY` and then headers, `|NAME=VALUE`;
//! - `barrier`: windows close as far as the watermarks go (one more barrier comes after the last line);
//! - `end`: all windows close, as at the end of a bounded run.
//!
//! Every case runs with one, two and three workers, with batches of one and of many records, and with and without evictions: the
//! output must be the same. `UPDATE_CASES=1 cargo test` writes what comes out into the files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use onceflow_engine::config::{self, Defaults};
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::output::{DEAD_LETTER_SINK, Output, OutputRecord};
use onceflow_engine::plan::{Plan, Stream};
use onceflow_engine::state::cold::MemoryColdStore;
use onceflow_engine::worker::{Counts, StepStart, Worker, WorkerError};
use onceflow_protocol::Frontiers;

/// How a case is run; it must make no difference.
#[derive(Clone, Copy, Debug)]
struct Mode {
    workers: usize,
    batch: usize,
    evict: bool,
}

fn check(name: &str) {
    let path = Path::new("tests/cases").join(format!("{name}.case"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (pipeline, rest) = text.split_once("=== input\n").expect("no input");
    let (input, expected) = rest.split_once("=== output\n").expect("no output");
    for mode in modes() {
        let plan = config::compile(name, pipeline, &Defaults::default(), &|_: &str| None)
            .unwrap_or_else(|found| panic!("\n{found}"));
        let found = match Run::new(plan, mode).run(input) {
            Ok(output) => output,
            Err(error) => format!("{}: {error}\n", error.kind),
        };
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&path, format!("{pipeline}=== input\n{input}=== output\n{found}")).unwrap();
            return;
        }
        assert_eq!(found, expected, "{name} with {mode:?} (found, expected)");
    }
}

fn modes() -> impl Iterator<Item = Mode> {
    let workers_and_batch = [(1, 1000), (1, 1), (2, 1000), (2, 1), (3, 1000)];
    workers_and_batch
        .into_iter()
        .flat_map(|(workers, batch)| [false, true].map(|evict| Mode { workers, batch, evict }))
}

struct Run {
    plan: Arc<Plan>,
    mode: Mode,
    workers: Vec<Worker>,
    generation: u64,
    /// Records that were read and the largest event time, by source, topic and partition.
    partitions: BTreeMap<(usize, String, i32), (i64, Option<i64>)>,
    lines: Vec<String>,
}

impl Run {
    fn new(plan: Plan, mode: Mode) -> Run {
        let windows = plan.steps.iter().filter_map(|step| step.window.as_ref());
        let starts: Vec<_> = (0..).zip(windows).map(|(id, window)| StepStart::fresh(id, window)).collect();
        let (plan, cold) = (Arc::new(plan), Arc::new(MemoryColdStore::new()));
        let worker = |i| Worker::new(plan.clone(), i, mode.workers, &starts, cold.clone()).unwrap();
        let workers = (0..mode.workers).map(worker).collect();
        Run { plan, mode, workers, generation: 0, partitions: BTreeMap::new(), lines: vec![] }
    }

    fn run(mut self, input: &str) -> Result<String, WorkerError> {
        let mut waiting: Vec<(String, OwnedMessage)> = vec![];
        for line in input.lines().chain(["barrier"]) {
            let mut words = line.splitn(3, ' ');
            let words = (words.next().unwrap_or_default(), words.next(), words.next());
            let full = waiting.len() >= self.mode.batch;
            if full || waiting.first().is_some_and(|(partition, _)| partition != words.0) {
                self.process(std::mem::take(&mut waiting))?;
            }
            match words {
                ("barrier", None, None) => self.barrier(false)?,
                ("end", None, None) => self.barrier(true)?,
                (partition, Some(timestamp), Some(value)) => {
                    let value = (value != "-").then(|| value.as_bytes().to_vec());
                    let mut parts = timestamp.split('|');
                    let timestamp = parts.next().unwrap().parse().expect("a timestamp");
                    let key = parts.next().map(|key| key.as_bytes().to_vec());
                    let header = |header: &str| {
                        let (name, value) = header.split_once('=').expect("NAME=VALUE");
                        (name.to_owned(), Some(value.as_bytes().to_vec()))
                    };
                    let headers = parts.map(header).collect();
                    let message = OwnedMessage { timestamp, key, value, headers, ..OwnedMessage::default() };
                    waiting.push((partition.to_owned(), message));
                }
                _ => panic!("not a line of input: {line}"),
            }
        }
        self.lines.sort();
        let mut output = self.lines.join("\n");
        let mut counts = Counts::default();
        self.workers.iter().for_each(|worker| counts += worker.counts().total);
        let Counts { records_in, used, filtered, late, partly_late, dead, dropped, out } = counts;
        assert_eq!(records_in, used + filtered + late + dead + dropped);
        writeln!(
            output,
            "\nin {records_in} = used {used} + filtered {filtered} + late {late} + dead {dead} + dropped {dropped}; \
             partly late {partly_late}, out {out}"
        )
        .unwrap();
        Ok(output)
    }

    fn process(&mut self, messages: Vec<(String, OwnedMessage)>) -> Result<(), WorkerError> {
        let (topic, partition) = messages[0].0.rsplit_once('/').expect("TOPIC/PARTITION");
        let (topic, partition) = (topic.to_owned(), partition.parse::<i32>().unwrap());
        let reads = |source: &onceflow_engine::plan::Source| source.topics.contains(&topic);
        let source = self.plan.sources.iter().position(reads).expect("a topic of a source");
        let (next, max) = self.partitions.entry((source, topic.clone(), partition)).or_default();
        let messages: Vec<_> = messages
            .into_iter()
            .enumerate()
            .map(|(i, (_, message))| OwnedMessage { offset: *next + i as i64, ..message })
            .collect();
        *next += messages.len() as i64;
        let mut out = Output::default();
        let worker = &mut self.workers[partition as usize % self.mode.workers];
        let processed = worker.process(source, &topic, partition, &messages, &mut out)?;
        *max = (*max).max(processed.max_event_time);
        self.keep(&out);
        if self.mode.evict {
            let generation = &mut self.generation;
            for worker in &mut self.workers {
                worker.evict_one(&mut || {
                    *generation += 1;
                    *generation
                })?;
            }
        }
        Ok(())
    }

    /// Smallest watermark of what feeds a stream: of the partitions of its sources, or of the windows on the way.
    fn watermark(&self, stream: Stream, end: bool) -> i64 {
        match stream {
            Stream::Source(source) if !end => {
                let delay = self.plan.sources[source].watermark_delay_ms;
                let partitions = self.partitions.iter().filter(|((of, ..), _)| *of == source);
                let watermark = |max: Option<i64>| max.map_or(i64::MIN, |max| max - delay);
                partitions.map(|(_, (_, max))| watermark(*max)).min().unwrap_or(i64::MIN)
            }
            Stream::Source(_) => i64::MAX / 2,
            Stream::Late(_) | Stream::Errors(_) => panic!("a step that reads a side stream"),
            Stream::Step(step) => {
                let window =
                    (0..self.workers[0].windows()).find(|w| self.workers[0].step_of(*w) == Some(step));
                let inputs = &self.plan.steps[step].inputs;
                match window {
                    Some(window) => self.workers[0].frontiers(window).unwrap().purged,
                    None => inputs.iter().map(|input| self.watermark(*input, end)).min().unwrap(),
                }
            }
        }
    }

    fn barrier(&mut self, end: bool) -> Result<(), WorkerError> {
        for window in 0..self.workers[0].windows() {
            let step = &self.plan.clone().steps[self.workers[0].step_of(window).unwrap()];
            let lateness = step.window.as_ref().unwrap().lateness_ms;
            let watermark = step.inputs.iter().map(|input| self.watermark(*input, end)).min().unwrap();
            let before = self.workers[0].frontiers(window)?;
            let frontier = before.purged.max(watermark.saturating_sub(lateness));
            let mut fired = before.fired;
            while let Some(end) = self.next_end(window, fired).filter(|end| *end <= frontier) {
                let closed = |worker: &Worker| worker.close(window, end);
                let closed: Vec<_> = self.workers.iter().map(closed).collect::<Result<_, _>>()?;
                let mut outputs = vec![];
                for (owner, worker) in self.workers.iter_mut().enumerate() {
                    let partials: Vec<_> = closed.iter().map(|partials| partials[owner].clone()).collect();
                    worker.merge(window, end, &partials, &mut |out| {
                        outputs.push(out);
                        Ok(())
                    })?;
                }
                outputs.iter().for_each(|out| self.keep(out));
                fired = end;
            }
            for worker in &mut self.workers {
                worker.advance(window, Frontiers { fired: frontier, purged: frontier })?;
            }
        }
        Ok(())
    }

    fn next_end(&self, window: usize, fired: i64) -> Option<i64> {
        self.workers.iter().filter_map(|worker| worker.next_end_after(window, fired).unwrap()).min()
    }

    fn keep(&mut self, out: &Output) {
        let lines: Vec<_> = out.records().map(|record| self.line(record)).collect();
        self.lines.extend(lines);
    }

    fn line(&self, record: OutputRecord) -> String {
        let text = |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), printable);
        let topic = &self.plan.output_topics[record.topic()].name;
        let partition = record.partition().map_or(String::new(), |partition| format!("/{partition}"));
        let mut line = format!(
            "{topic}{partition} @{} {} {}",
            record.timestamp(),
            text(record.key()),
            text(record.value())
        );
        for (name, value) in record.headers().filter(|_| record.sink() != DEAD_LETTER_SINK) {
            write!(line, " |{name}={}", text(value)).unwrap();
        }
        if record.sink() == DEAD_LETTER_SINK {
            let header = |wanted: &str| {
                let found = record.headers().find(|(name, _)| *name == format!("onceflow.{wanted}"));
                text(found.and_then(|(_, value)| value))
            };
            write!(
                line,
                " !! {} {} {}/{}:{} {}",
                header("reason"),
                header("step"),
                header("topic"),
                header("partition"),
                header("offset"),
                header("error")
            )
            .unwrap();
        }
        line
    }
}

/// Control characters would make a case something that no editor shows.
fn printable(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}

#[test]
fn orders_per_user() {
    check("orders-per-user");
}

#[test]
fn bad_records() {
    check("bad-records");
}

#[test]
fn bad_record_stops() {
    check("bad-record-stops");
}

#[test]
fn sinks() {
    check("sinks");
}

#[test]
fn side_streams() {
    check("side-streams");
}

#[test]
fn offset() {
    check("offset");
}

#[test]
fn stateless() {
    check("stateless");
}

#[test]
fn fields_that_nobody_names_pass_through() {
    check("orders-clean");
}

#[test]
fn undeclared_members_through_set_and_unset() {
    check("undeclared");
}

#[test]
fn tombstones_skipped_and_events_too_far_ahead() {
    check("skipped");
}

#[test]
fn metadata_of_records() {
    check("metadata");
}

#[test]
fn lists_structs_and_json() {
    check("nested");
}

#[test]
fn csv_and_raw_values() {
    check("csv-and-raw");
}

#[test]
fn hopping() {
    check("hopping");
}

#[test]
fn chained() {
    check("chained");
}

#[test]
fn aggregates_of_every_type() {
    check("aggregates");
}
