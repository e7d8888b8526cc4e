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
//! Every case runs with one, two and three workers, with batches of one and of many records, with and without evictions, and with a crash
//! after every batch: the output must be the same. `UPDATE_CASES=1 cargo test` writes what comes out into the files.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use onceflow_engine::config::{self, Defaults};
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::plan::{Plan, Source};
use onceflow_engine::rehearsal::{Rehearsal, Written};
use onceflow_engine::worker::{Counts, WorkerError};

/// How a case is run; it must make no difference.
#[derive(Clone, Copy, Debug)]
struct Mode {
    workers: usize,
    batch: usize,
    evict: bool,
    crash: bool,
}

fn check(name: &str) {
    check_in(name, modes());
}

fn check_in(name: &str, modes: impl Iterator<Item = Mode>) {
    let path = Path::new("tests/cases").join(format!("{name}.case"));
    let text = std::fs::read_to_string(&path).unwrap();
    let (pipeline, rest) = text.split_once("=== input\n").expect("no input");
    let (input, expected) = rest.split_once("=== output\n").expect("no output");
    for mode in modes {
        let plan = config::compile(name, pipeline, &Defaults::default(), &|_: &str| None)
            .unwrap_or_else(|found| panic!("\n{found}"));
        let found = match run(plan, mode, input) {
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
    let hurts = [(false, false), (true, false), (false, true), (true, true)];
    workers_and_batch
        .into_iter()
        .flat_map(move |(workers, batch)| hurts.map(|(evict, crash)| Mode { workers, batch, evict, crash }))
}

/// Runs a case and says what came out, line by line.
fn run(plan: Plan, mode: Mode, input: &str) -> Result<String, WorkerError> {
    let plan = Arc::new(plan);
    let mut rehearsal = Rehearsal::new(plan.clone(), mode.workers)?;
    let mut waiting: Vec<(String, OwnedMessage)> = vec![];
    for line in input.lines().chain(["barrier"]) {
        let mut words = line.splitn(3, ' ');
        let words = (words.next().unwrap_or_default(), words.next(), words.next());
        let full = waiting.len() >= mode.batch;
        if full || waiting.first().is_some_and(|(partition, _)| partition != words.0) {
            give(&mut rehearsal, &plan, mode, std::mem::take(&mut waiting))?;
        }
        match words {
            ("barrier", None, None) => rehearsal.checkpoint()?,
            ("end", None, None) => rehearsal.end()?,
            (partition, Some(timestamp), Some(value)) => {
                waiting.push((partition.to_owned(), message(timestamp, value)));
            }
            _ => panic!("not a line of input: {line}"),
        }
    }
    let mut lines: Vec<String> = rehearsal.written().iter().map(|record| self::line(&plan, record)).collect();
    lines.sort();
    let mut output = lines.join("\n");
    let Counts { records_in, used, filtered, late, partly_late, dead, dropped, out } = rehearsal.counts();
    assert_eq!(records_in, used + filtered + late + dead + dropped);
    writeln!(
        output,
        "\nin {records_in} = used {used} + filtered {filtered} + late {late} + dead {dead} + dropped {dropped}; \
         partly late {partly_late}, out {out}"
    )
    .unwrap();
    Ok(output)
}

/// A record of `TIMESTAMP|KEY|NAME=VALUE` and a value.
fn message(timestamp: &str, value: &str) -> OwnedMessage {
    let mut parts = timestamp.split('|');
    let timestamp = parts.next().unwrap().parse().expect("a timestamp");
    let key = parts.next().map(|key| key.as_bytes().to_vec());
    let header = |header: &str| {
        let (name, value) = header.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), Some(value.as_bytes().to_vec()))
    };
    let headers = parts.map(header).collect();
    let value = (value != "-").then(|| value.as_bytes().to_vec());
    OwnedMessage { timestamp, key, value, headers, ..OwnedMessage::default() }
}

fn give(
    rehearsal: &mut Rehearsal,
    plan: &Plan,
    mode: Mode,
    messages: Vec<(String, OwnedMessage)>,
) -> Result<(), WorkerError> {
    let (topic, number) = messages[0].0.rsplit_once('/').expect("TOPIC/PARTITION");
    let reads = |source: &Source| source.topics.iter().any(|name| name == topic);
    let source = plan.sources.iter().position(reads).expect("a topic of a source");
    let partition = rehearsal.partition(source, topic, number.parse().unwrap());
    rehearsal.give(partition, messages.into_iter().map(|(_, message)| message).collect())?;
    if mode.evict {
        rehearsal.evict()?;
    }
    if mode.crash { rehearsal.crash(mode.workers) } else { Ok(()) }
}

fn line(plan: &Plan, record: &Written) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("-".to_owned(), printable);
    let topic = &plan.output_topics[record.topic].name;
    let partition = record.partition.map_or(String::new(), |partition| format!("/{partition}"));
    let mut line =
        format!("{topic}{partition} @{} {} {}", record.timestamp, text(&record.key), text(&record.value));
    if record.sink.is_some() {
        for (name, value) in &record.headers {
            write!(line, " |{name}={}", text(value)).unwrap();
        }
        return line;
    }
    let header = |wanted: &str| {
        let found = record.headers.iter().find(|(name, _)| *name == format!("onceflow.{wanted}"));
        found.map_or("-".to_owned(), |(_, value)| text(value))
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
    line
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

#[test]
fn aggregates_beyond_sums() {
    check("more-aggregates");
}

#[test]
fn sessions() {
    check("sessions");
}

#[test]
fn totals() {
    check("totals");
    check("totals-of-sessions");
}

#[test]
fn cumulative() {
    check("cumulative");
}

#[test]
fn unnest() {
    check("unnest");
}

#[test]
fn updates() {
    check("updates");
}

#[test]
fn deduplicate() {
    check("deduplicate");
}

/// A crash brings early results again, of what has not changed since.
#[test]
fn early() {
    check_in("early", modes().filter(|mode| !mode.crash));
}
