//! One run of a contender: over its whole input, with its answer checked.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use onceflow_benches::workload::Workload;

use crate::answers;
use crate::cases::{Case, Contender};
use crate::contenders::{Bench, Run};
use crate::history;
use crate::measure::{self, Cost};

/// How often a peer may run until its answer is right.
const PEER_ATTEMPTS: usize = 3;

/// The topic that holds it.
pub fn input(workload: Workload) -> String {
    format!("orders-{}-{}-{}", workload.orders, workload.users, workload.padding)
}

/// Fills its topic.
///
/// # Errors
/// If Kafka's tool or the loader fails.
pub fn load(bench: &Bench, workload: Workload) -> Result<()> {
    let topic = input(workload);
    eprintln!("bench: loading {topic}");
    bench.create_topic(&topic)?;
    let Workload { orders, users, padding } = workload;
    let mut command = Command::new(bench.binaries.join("load"));
    command.args([&bench.bootstrap, &topic]).args([
        orders.to_string(),
        users.to_string(),
        padding.to_string(),
    ]);
    measure::run(&mut command, &bench.work.join("load.log")).map(drop)
}

/// Whether this attempt of a contender may be wrong. Flink was seen to close its first window before it had read from every partition; ours may
/// not be wrong once.
pub fn may_repeat(contender: Contender, attempt: usize) -> bool {
    contender != Contender::Onceflow && attempt < PEER_ATTEMPTS
}

/// Runs a contender, attempt after attempt from 1, until it is right or may not be wrong again.
///
/// # Errors
/// Those of the last attempt.
pub fn until_right<T>(contender: Contender, mut run: impl FnMut(usize) -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match run(attempt) {
            Err(error) if may_repeat(contender, attempt) => {
                eprintln!("bench: {error:#}: this run counts for nothing")
            }
            result => return result,
        }
        attempt += 1;
    }
}

/// A run whose answer is right.
///
/// # Errors
/// An answer that is not right, or a contender that fails.
pub fn run(
    bench: &Bench,
    case: &Case,
    contender: Contender,
    workload: Workload,
    round: usize,
) -> Result<Cost> {
    until_right(contender, |attempt| {
        let name =
            format!("{}-{contender:?}-{}-{round}-{attempt}", case.name, workload.orders).to_lowercase();
        run_once(bench, case, contender, workload, &name)
    })
}

fn run_once(
    bench: &Bench,
    case: &Case,
    contender: Contender,
    workload: Workload,
    output: &str,
) -> Result<Cost> {
    let dir: &Path = &bench.work.join(output);
    fs::create_dir_all(dir)?;
    if contender.writes() {
        bench.create_topic(output)?;
    }
    let run = Run { case, input: &input(workload), orders: Some(workload.orders), output, dir };
    let before = measure::cpu_s(bench.broker)?;
    let mut cost = measure::run(&mut bench.command(contender, &run)?, &dir.with_extension("log"))?;
    cost.broker_s = measure::cpu_s(bench.broker)? - before;
    if contender == Contender::Onceflow {
        cost.paused = history::left_behind(&dir.join("checkpoints"))?.and_then(|all| history::pauses(&all));
    }
    if contender.answers() {
        answers::check(&bench.bootstrap, output, contender, case, workload)
            .with_context(|| format!("the answer of {} in {output} is not right", contender.name()))?;
    }
    if contender.writes() {
        // Answers of hours of measuring would fill the disk.
        bench.delete_topic(output)?;
    }
    fs::remove_dir_all(dir)?;
    Ok(cost)
}
