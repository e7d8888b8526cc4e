//! `onceflow checkpoint`: the checkpoints of a pipeline, from a running daemon or from the storage itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{DaemonArgs, pipeline_name};
use super::exit::{ended, refuse};
use super::progress::Progress;
use super::status::Format;
use super::table::{Table, ago, instant, or_dash};
use crate::http::model::{Checkpoints, Triggered};
use crate::inputs::Inputs;
use crate::pipeline::{self, CheckpointRecord, CheckpointStatus, VerifiedSnapshot};

/// List, show, verify or take checkpoints
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Trigger(TriggerArgs),
    Verify(VerifyArgs),
}

/// List the newest checkpoints, completed and failed, also those of earlier processes
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow checkpoint list --limit 5 orders-per-user")]
struct ListArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
    /// How to show them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Show everything about one checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow checkpoint show orders-per-user 1042")]
struct ShowArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// Its epoch [default: the newest]
    #[arg(value_name = "EPOCH")]
    epoch: Option<u64>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Take a checkpoint now, and wait until it is committed
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow checkpoint trigger orders-per-user")]
struct TriggerArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Read every file that the newest snapshots name, and compare lengths and checksums; needs no daemon
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow checkpoint verify orders-per-user.yaml")]
struct VerifyArgs {
    /// Pipeline files, or directories of them: they say where the checkpoints are
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to say it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// As many checkpoints as a daemon remembers.
const ALL: usize = 100_000;

impl CheckpointArgs {
    /// Does it.
    pub fn run(&self) -> ExitCode {
        ended(match &self.command {
            Command::List(args) => args.run(),
            Command::Show(args) => args.run(),
            Command::Trigger(args) => args.run(),
            Command::Verify(args) => args.run(),
        })
    }
}

impl ListArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let path = format!("/pipelines/{}/checkpoints?limit={}", self.pipeline, self.limit);
        let answer: Checkpoints = self.daemon.client()?.get(&path)?;
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new([
            "EPOCH", "STATUS", "TRIGGER", "BEGAN", "MS", "IN", "OUT", "WRITTEN", "FULL", "FAILURE",
        ]);
        for checkpoint in &answer.checkpoints {
            table.row([
                checkpoint.epoch.to_string(),
                status(checkpoint).to_owned(),
                checkpoint.trigger.clone(),
                ago(checkpoint.started_ms),
                format!("{:.1}", millis(checkpoint.duration_us)),
                checkpoint.records_in.to_string(),
                checkpoint.records_out.to_string(),
                or_dash(checkpoint.written_bytes),
                or_dash(checkpoint.full_bytes),
                checkpoint.failure.clone().unwrap_or_default(),
            ]);
        }
        print!("{table}");
        Ok(ExitCode::SUCCESS)
    }
}

fn status(checkpoint: &CheckpointRecord) -> &'static str {
    match checkpoint.status {
        CheckpointStatus::Completed => "completed",
        CheckpointStatus::Failed => "failed",
    }
}

impl ShowArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let limit = if self.epoch.is_some() { ALL } else { 1 };
        let path = format!("/pipelines/{}/checkpoints?limit={limit}", self.pipeline);
        let answer: Checkpoints = self.daemon.client()?.get(&path)?;
        let wanted = |checkpoint: &CheckpointRecord| self.epoch.is_none_or(|epoch| checkpoint.epoch == epoch);
        // An epoch that failed is tried again under the same number: all of its attempts, the newest first.
        let mut found: Vec<_> = answer.checkpoints.into_iter().filter(wanted).collect();
        if found.is_empty() {
            anyhow::bail!(
                "no such checkpoint is remembered; `onceflow checkpoint list {}` shows which are",
                self.pipeline
            );
        }
        if self.epoch.is_none() {
            found.truncate(1);
        }
        for checkpoint in &found {
            match self.format {
                Format::Json => println!("{}", serde_json::to_string_pretty(checkpoint)?),
                Format::Text => show(checkpoint),
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(checkpoint: &CheckpointRecord) {
    let line = |label: &str, value: String| println!("  {label:<13} {value}");
    let ms = |label: &str, micros: u64| line(label, format!("{:.3} ms", millis(micros)));
    println!("epoch {}: {}", checkpoint.epoch, status(checkpoint));
    if let Some(failure) = &checkpoint.failure {
        line("failure", failure.clone());
    }
    line("trigger", checkpoint.trigger.clone());
    line("began", instant(checkpoint.started_ms));
    ms("duration", checkpoint.duration_us);
    ms("  alignment", checkpoint.alignment_us);
    ms("  firing", checkpoint.firing_us);
    ms("  sync", checkpoint.sync_us);
    ms("  async", checkpoint.async_us);
    ms("  commit", checkpoint.commit_us);
    line("records", format!("{} in, {} out", checkpoint.records_in, checkpoint.records_out));
    if let (Some(written), Some(full)) = (checkpoint.written_bytes, checkpoint.full_bytes) {
        line("bytes", format!("{written} written, {full} in full"));
    }
    if let Some(snapshot) = &checkpoint.snapshot {
        line("snapshot", snapshot.clone());
    }
}

/// Microseconds as milliseconds, for people.
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl TriggerArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.daemon.client()?;
        let progress = Progress::new();
        progress.show(&format!("taking a checkpoint of {}", self.pipeline));
        let path = format!("/pipelines/{}/checkpoints", self.pipeline);
        let triggered: Triggered = client.post(&path, &serde_json::json!({}))?;
        progress.clear();
        match triggered {
            Triggered::Completed { checkpoint } => show(&checkpoint),
            Triggered::Unchanged { epoch } => {
                println!("nothing has changed since epoch {epoch}, which is committed")
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl VerifyArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) => return Ok(refuse(&mistakes)),
        };
        let mut sound = true;
        let mut answers = vec![];
        for read in &loaded.pipelines {
            let (plan, progress) = (&read.plan, Progress::new());
            let mut begins = |file: &str| progress.show(&format!("reading {file}"));
            let storage = &plan.checkpoint.storage;
            let found = pipeline::verify(storage, &loaded.settings.namespace, &plan.pipeline, &mut begins)?;
            progress.clear();
            let found = found.unwrap_or_default();
            sound &= found.iter().all(|snapshot| snapshot.problems.is_empty());
            match self.format {
                Format::Json => {
                    answers.push(serde_json::json!({ "pipeline": plan.pipeline, "snapshots": found }))
                }
                Format::Text => report(&plan.pipeline, &found),
            }
        }
        if self.format == Format::Json {
            println!("{:#}", serde_json::json!({ "sound": sound, "pipelines": answers }));
        }
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn report(pipeline: &str, found: &[VerifiedSnapshot]) {
    if found.is_empty() {
        println!("{pipeline}: there are no snapshots");
    }
    for snapshot in found {
        let epoch =
            snapshot.epoch.map_or_else(|| snapshot.snapshot.clone(), |epoch| format!("epoch {epoch}"));
        match snapshot.problems.as_slice() {
            [] => println!(
                "{pipeline}: {epoch} is whole: {} files, {} bytes read",
                snapshot.files, snapshot.bytes
            ),
            problems => {
                println!("{pipeline}: {epoch} is DAMAGED");
                problems.iter().for_each(|problem| println!("  {problem}"));
            }
        }
    }
}
