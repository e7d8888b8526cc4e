//! What a checkpoint costs: bytes that it writes, against those that changed and against all of the state; and how long reading stands still
//! for it. Onceflow only, by what it says itself of its checkpoints.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::api;
use crate::cases::{Case, Contender, Job, base};
use crate::contenders::{Bench, Run};
use crate::crowd::{self, Crowd, Feeder};
use crate::groups::Group;
use crate::history::Checkpoint;
use crate::measure::Running;
use crate::pacing::wall_clock_ms;
use crate::report;

/// Between checkpoints, milliseconds.
const INTERVALS_MS: [u64; 2] = [1_000, 100];
/// Users that order, each once, a second.
const RATES: [u32; 3] = [1_000, 10_000, 100_000];
/// Who have ordered before, unless the command line says so.
pub const USERS: u32 = 1_000_000;
/// Of a user's row: the name, and two numbers of eight bytes.
const ROW_BYTES: u64 = 13 + 16;
const PATIENCE: Duration = Duration::from_secs(300);
/// A rate is on for so long before it is measured.
const SETTLING: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Checkpoints {
    checkpoints: Vec<Checkpoint>,
}

/// Those at one interval and rate.
struct Figures {
    interval_ms: u64,
    rate: u32,
    /// Seconds.
    wall_s: f64,
    checkpoints: Vec<Checkpoint>,
}

/// What is measured: `users` have ordered before.
pub fn case() -> Case {
    Case { name: "checkpoints", job: Job::Day, contenders: vec![Contender::Onceflow], ..base() }
}

/// Measures each interval and rate for so long; the table and the picture.
///
/// # Errors
/// If Onceflow does not do what it should.
pub fn measure(bench: &Bench, case: &Case, users: u32, measured: Duration) -> Result<(String, String)> {
    let (mut all, mut state) = (vec![], 0.0);
    for interval_ms in INTERVALS_MS {
        let case = Case { interval_ms, ..case.clone() };
        state = at_interval(bench, &case, users, measured, &mut all)?;
    }
    let bars: Vec<_> = all
        .iter()
        .map(|figures| {
            let label = format!("every {} ms, {} users/s", figures.interval_ms, figures.rate);
            (label, figures.share(|one| one.sync_us))
        })
        .collect();
    let picture = report::bars("Onceflow: pause for checkpoints", "% of the time", &bars);
    Ok((table(users, state, &all), picture))
}

/// Runs Onceflow, with each rate in turn; its state, bytes.
fn at_interval(
    bench: &Bench,
    case: &Case,
    users: u32,
    measured: Duration,
    all: &mut Vec<Figures>,
) -> Result<f64> {
    let crowd = Crowd { users, name_padding: 0, window_ms: 86_400_000, sampled: false };
    let output = &format!("checkpoints-{}", case.interval_ms);
    let input = &format!("{output}-orders");
    let dir = &bench.work.join(output);
    fs::create_dir_all(dir)?;
    bench.create_topic(input)?;
    bench.create_topic(output)?;
    crowd::load(&bench.bootstrap, input, crowd, 0..i64::from(users))?;
    let port = api::free_port()?;
    let mut command = bench.command(Contender::Onceflow, &Run { case, input, orders: None, output, dir })?;
    command.env("BENCH_MEMORY", "1GiB").env("ONCEFLOW_HTTP__LISTEN", format!("127.0.0.1:{port}"));
    let mut process = Running::start(&mut command, &dir.with_extension("log"))?;
    let group = Group::new(&bench.bootstrap, &format!("{output}.bench-day"), input)?;
    group.wait_for_ends(PATIENCE, || process.check())?;
    let mut next = i64::from(users);
    for rate in RATES {
        eprintln!("bench: {}, every {} ms: {rate} users a second", case.name, case.interval_ms);
        let feeder = Feeder::start(&bench.bootstrap, input, crowd, next, rate)?;
        std::thread::sleep(SETTLING);
        let began_ms = wall_clock_ms();
        std::thread::sleep(measured);
        let ended_ms = wall_clock_ms();
        next = feeder.stop()?;
        group.wait_for_ends(PATIENCE, || process.check())?;
        let answer = api::get(port, "/api/v1/pipelines/bench-day/checkpoints?limit=1000")?;
        let mut checkpoints = serde_json::from_str::<Checkpoints>(&answer)?.checkpoints;
        if let Some(failed) = checkpoints.iter().find(|one| one.status != "completed") {
            bail!("a checkpoint has failed: {failed:?}");
        }
        if checkpoints.last().is_none_or(|oldest| oldest.started_ms > began_ms) {
            bail!("only {} checkpoints are remembered: measure for a shorter time", checkpoints.len());
        }
        checkpoints.retain(|one| (began_ms..ended_ms).contains(&one.started_ms));
        let wall_s = (ended_ms - began_ms) as f64 / 1e3;
        all.push(Figures { interval_ms: case.interval_ms, rate, wall_s, checkpoints });
    }
    let state = api::metric(port, "onceflow_state_bytes")?;
    let mut close = || crowd::close(&bench.bootstrap, input, crowd, group.partitions());
    crowd::compare(&bench.bootstrap, output, crowd, next, PATIENCE, &mut close)
        .with_context(|| format!("the answer in {output} is not right"))?;
    process.end()?;
    fs::remove_dir_all(dir)?;
    bench.delete_topic(&format!("{output}.*"))?;
    Ok(state)
}

impl Figures {
    fn mean(&self, figure: impl Fn(&Checkpoint) -> u64) -> f64 {
        self.checkpoints.iter().map(figure).sum::<u64>() as f64 / self.checkpoints.len() as f64
    }

    fn most(&self, figure: impl Fn(&Checkpoint) -> u64) -> f64 {
        self.checkpoints.iter().map(figure).max().unwrap_or(0) as f64
    }

    /// A time as a share of all time, percent.
    fn share(&self, micros: impl Fn(&Checkpoint) -> u64) -> f64 {
        self.checkpoints.iter().map(micros).sum::<u64>() as f64 / 1e4 / self.wall_s
    }
}

fn table(users: u32, state: f64, all: &[Figures]) -> String {
    const KIB: f64 = 1024.0;
    let mut text = format!(
        "### checkpoints\n\n{users} users with an open window, state of {:.0} MB (`onceflow_state_bytes`); means by checkpoint; a changed row is \
         {ROW_BYTES} bytes: the user's name, count and sum. The pause is that of copying out what changed; with the wait until the worker stands \
         at the barrier, which it comes to after the batch in hand, in brackets. No windows fire.\n\n\
         | every | users/s | orders read/s | checkpoints | rows changed | of which bytes, KiB | written, KiB (most) | of changed | state in full, KiB | of that written | pause, % of the time | longest pause, ms |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        state / 1e6
    );
    for figures in all {
        let rows = figures.mean(|one| one.records_in);
        let changed = rows * ROW_BYTES as f64;
        let written = figures.mean(|one| one.written_bytes.unwrap_or(0));
        let full = figures.mean(|one| one.full_bytes.unwrap_or(0));
        let _ = writeln!(
            text,
            "| {} ms | {} | {:.0} | {} | {rows:.0} | {:.0} | {:.0} ({:.0}) | {:.2} × | {:.0} | {:.2} % | {:.2} ({:.2}) | {:.1} |",
            figures.interval_ms,
            figures.rate,
            rows * figures.checkpoints.len() as f64 / figures.wall_s,
            figures.checkpoints.len(),
            changed / KIB,
            written / KIB,
            figures.most(|one| one.written_bytes.unwrap_or(0)) / KIB,
            written / changed,
            full / KIB,
            written / full * 100.0,
            figures.share(|one| one.sync_us),
            figures.share(|one| one.sync_us + one.alignment_us),
            figures.most(|one| one.sync_us) / 1e3,
        );
    }
    let firing = all.iter().map(|figures| figures.share(|one| one.firing_us)).fold(0.0, f64::max);
    let _ = writeln!(text, "\nFiring took at most {firing:.2} % of the time.");
    text
}
