//! Recovery: a contender that holds much state, and is fed on, is killed (kill -9) and started again at once. How long until it commits what was
//! written after its death?
//!
//! Every contender commits offsets of its consumer group with its checkpoints, so that the group shows from outside when it is back. Before a
//! figure counts, everything that was written must have been committed, and the answers, once the windows are closed, must be the fold of it:
//! nothing of the state was lost, and nothing is in it twice.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::api;
use crate::cases::{Case, Contender, Job, base};
use crate::contenders::{Bench, Run};
use crate::crowd::{self, Crowd, Feeder};
use crate::groups::Group;
use crate::measure::Running;
use crate::recovery_report::{Figures, bars, table};
use crate::runs::{may_repeat, until_right};

/// Orders a second while a contender is killed and comes back.
pub const RATE: u32 = 2_000;
/// How often, unless the command line says so.
pub const ROUNDS: usize = 3;
/// For all of the state to be built, or for the windows to come.
const PATIENCE: Duration = Duration::from_secs(1800);
/// For a commit.
const COMMIT: Duration = Duration::from_secs(600);
const DAY_MS: i64 = 86_400_000;

/// What is measured.
#[derive(Clone)]
pub struct Recovery {
    /// Who, and how it is set up.
    pub case: Case,
    /// Whose orders make the state.
    pub crowd: Crowd,
    /// `state.memory` of Onceflow.
    memory: &'static str,
    /// How far orders may be out of order: what keeps windows open.
    delay: &'static str,
    /// Orders that are written at a time; what was committed of them is deleted from the topic then. None: all of them, and nothing is.
    slice: Option<i64>,
}

impl Recovery {
    /// The same with so many users, if that is said.
    pub fn with_users(&self, users: Option<u32>) -> Recovery {
        let crowd = Crowd { users: users.unwrap_or(self.crowd.users), ..self.crowd };
        Recovery { crowd, ..self.clone() }
    }
}

/// With about 1 GB of state, which fits into memory.
pub fn warm() -> Recovery {
    use Contender::{FlinkHeap, FlinkStreamRocksdb, Onceflow, Streams};
    Recovery {
        case: Case {
            name: "recovery",
            job: Job::Day,
            heap_gib: 10,
            contenders: vec![Onceflow, FlinkHeap, FlinkStreamRocksdb, Streams],
            ..base()
        },
        crowd: Crowd { users: 10_000_000, name_padding: 0, window_ms: DAY_MS, sampled: false },
        memory: "4GiB",
        delay: "5s",
        slice: None,
    }
}

/// With about 10 GB of state, nearly all of which lies in RocksDB, since `state.memory` is what it is by default.
pub fn cold() -> Recovery {
    Recovery {
        case: Case { name: "recovery-10gb", job: Job::Day, contenders: vec![Contender::Onceflow], ..base() },
        // Long names and short windows, which the delay keeps open: as with all that is too large for memory, most of it is not touched again.
        crowd: Crowd { users: 42_000_000, name_padding: 200, window_ms: 60_000, sampled: true },
        memory: "256MiB",
        delay: "1d",
        slice: Some(2_000_000),
    }
}

/// Kills every contender once in each round; the table and the picture.
///
/// # Errors
/// If one does not come back, or has lost something or counted it twice.
pub fn measure(bench: &Bench, what: &Recovery, rounds: usize) -> Result<(String, String)> {
    let name = what.case.name;
    let mut all: Vec<Figures> = what.case.contenders.iter().map(|who| Figures::new(*who)).collect();
    for round in 1..=rounds {
        for figures in &mut all {
            let contender = figures.contender;
            eprintln!("bench: {name}, round {round} of {rounds}: {}", contender.name());
            figures.add(run(bench, what, contender, round)?);
        }
    }
    Ok((table(what, &all), bars(name, &all)))
}

/// One that counts. A peer may try again, as it may elsewhere.
fn run(bench: &Bench, what: &Recovery, contender: Contender, round: usize) -> Result<Measured> {
    until_right(contender, |attempt| {
        let output = format!("{}-{contender:?}-{round}-{attempt}", what.case.name).to_lowercase();
        let once = Once { bench, what, contender, input: &format!("{output}-orders"), output: &output };
        let measured = once.run().with_context(|| format!("{} in {output}", contender.name()));
        // What is wrong of ours, or of a peer to the last, is left for whoever looks into it.
        if measured.is_ok() || may_repeat(contender, attempt) {
            once.clean()?;
        }
        measured
    })
}

/// What one recovery was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// From the start of the new process to its first commit of something that was written after the kill, seconds.
    pub first_s: f64,
    /// To the first such commit of every partition, seconds.
    pub every_s: f64,
    /// CPU time of the new process until then, seconds.
    pub cpu_s: f64,
    /// The most memory that it held until then, bytes.
    pub peak_rss: u64,
    /// What its directory held before the kill, bytes.
    pub disk: u64,
    /// `onceflow_state_bytes` before the kill.
    pub state: Option<f64>,
    /// Answers that were compared.
    pub rows: usize,
}

/// A contender, run, killed and run again.
struct Once<'r> {
    bench: &'r Bench,
    what: &'r Recovery,
    contender: Contender,
    input: &'r str,
    output: &'r str,
}

impl Once<'_> {
    fn run(&self) -> Result<Measured> {
        let Once { bench, what, contender, input, output } = *self;
        let (bootstrap, crowd) = (&bench.bootstrap, what.crowd);
        let dir = &bench.work.join(output);
        fs::create_dir_all(dir.join("tmp"))?;
        bench.create_topic(input)?;
        bench.create_topic(output)?;
        let group = Group::new(bootstrap, &self.group(), input)?;
        let port = api::free_port()?;

        let mut process = self.start(dir, port, None)?;
        self.fill(&group, &mut process)?;
        let feeder = Feeder::start(bootstrap, input, crowd, i64::from(crowd.users), RATE)?;
        let mut commits = Commits::default();
        group.watch("two more commits", COMMIT, |committed| {
            process.check()?;
            Ok(commits.see(committed) > 2)
        })?;
        let state = match contender {
            Contender::Onceflow => Some(api::metric(port, "onceflow_state_bytes")?),
            _ => None,
        };
        let disk = disk_usage(dir)?;
        eprintln!("bench: {output}: killed with {} MB on disk", disk / 1_000_000);
        // kill -9.
        drop(process);
        let before = group.ends()?;
        let restore = if contender.is_flink() { Some(newest_checkpoint(dir)?) } else { None };

        let began = Instant::now();
        let mut process = self.start(dir, port, restore.as_deref())?;
        let mut measured = Measured { state, disk, ..Measured::default() };
        // What was written after the kill can have been committed by nobody but the new process.
        group.watch("a commit after the kill", COMMIT, |committed| {
            process.check()?;
            let beyond =
                committed.iter().zip(&before).filter(|(committed, before)| committed > before).count();
            if beyond > 0 && measured.first_s == 0.0 {
                measured.first_s = began.elapsed().as_secs_f64();
            }
            Ok(beyond == committed.len())
        })?;
        measured.every_s = began.elapsed().as_secs_f64();
        measured.cpu_s = process.cpu_s()?;
        measured.peak_rss = process.peak_rss()?;
        eprintln!("bench: {output}: back after {:.2} s; comparing the answers", measured.every_s);

        let orders = feeder.stop()?;
        group.wait_for_ends(PATIENCE, || process.check())?;
        measured.rows = crowd::compare(bootstrap, output, crowd, orders, PATIENCE, &mut || {
            process.check()?;
            crowd::close(bootstrap, input, crowd, group.partitions())
        })?;
        Ok(measured)
    }

    /// Removes what it wrote: its control topic or its changelogs, too.
    fn clean(&self) -> Result<()> {
        fs::remove_dir_all(self.bench.work.join(self.output))?;
        self.bench.delete_topic(&format!("{}.*", self.output))
    }

    /// The consumer group of the contender.
    fn group(&self) -> String {
        match self.contender {
            Contender::Onceflow => format!("{}.bench-day", self.output),
            _ => self.output.to_owned(),
        }
    }

    fn start(&self, dir: &Path, port: u16, restore: Option<&Path>) -> Result<Running> {
        let run = Run { case: &self.what.case, input: self.input, orders: None, output: self.output, dir };
        let mut command = self.bench.command(self.contender, &run)?;
        command
            .env("BENCH_MEMORY", self.what.memory)
            .env("BENCH_DELAY", self.what.delay)
            .env("BENCH_WINDOW", format!("{}ms", self.what.crowd.window_ms))
            .env("ONCEFLOW_HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .args(restore);
        if self.what.crowd.sampled {
            // Eight digits, of which the last two are noughts: one user of crowd::SAMPLE.
            command.env("BENCH_ANSWERED", "user_id like 'user_______00%'");
        }
        let log = if restore.is_some() || dir.with_extension("log").exists() { "again.log" } else { "log" };
        Running::start(&mut command, &dir.with_extension(log))
    }

    /// Every user orders once, and all of that is committed.
    fn fill(&self, group: &Group, process: &mut Running) -> Result<()> {
        let (bootstrap, crowd) = (&self.bench.bootstrap, self.what.crowd);
        let users = i64::from(crowd.users);
        let slice = self.what.slice.unwrap_or(users) as usize;
        for first in (0..users).step_by(slice) {
            crowd::load(bootstrap, self.input, crowd, first..users.min(first + slice as i64))?;
            group.wait_for_ends(PATIENCE, || process.check())?;
            if self.what.slice.is_some() {
                self.bench.delete_records(self.input, &group.ends()?)?;
            }
        }
        Ok(())
    }
}

/// Counts how often what is committed has changed.
#[derive(Default)]
struct Commits {
    last: Vec<i64>,
    changes: usize,
}

impl Commits {
    /// How often so far; the first look is one.
    fn see(&mut self, committed: &[i64]) -> usize {
        if self.last != committed {
            self.last = committed.to_vec();
            self.changes += 1;
        }
        self.changes
    }
}

/// The newest checkpoint that Flink has completed: its metadata are there.
fn newest_checkpoint(dir: &Path) -> Result<PathBuf> {
    let mut newest = None;
    for job in fs::read_dir(dir)?.filter_map(Result::ok).filter(|job| job.path().is_dir()) {
        for checkpoint in fs::read_dir(job.path())?.filter_map(Result::ok) {
            let name = checkpoint.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("chk-").and_then(|number| number.parse::<u64>().ok()) else {
                continue;
            };
            if checkpoint.path().join("_metadata").exists() {
                newest = newest.max(Some((number, checkpoint.path())));
            }
        }
    }
    Ok(newest.with_context(|| format!("no checkpoint is complete in {}", dir.display()))?.1)
}

/// What a directory holds, but for `tmp`; a file with several names counts once. Bytes.
fn disk_usage(dir: &Path) -> Result<u64> {
    let (mut sum, mut seen, mut left) = (0, HashSet::new(), vec![dir.to_owned()]);
    while let Some(next) = left.pop() {
        // Files come and go meanwhile.
        for entry in fs::read_dir(&next).into_iter().flatten().filter_map(Result::ok) {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if entry.file_name() != "tmp" {
                    left.push(entry.path());
                }
            } else if seen.insert((metadata.dev(), metadata.ino())) {
                sum += metadata.blocks() * 512;
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_counted() {
        let mut commits = Commits::default();
        assert_eq!([[0], [0], [4], [4], [5]].map(|committed| commits.see(&committed)), [1, 1, 2, 2, 3]);
    }
}
