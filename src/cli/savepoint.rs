//! `onceflow savepoint`: copies of checkpoints that are kept until a person deletes them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{DaemonArgs, pipeline_name};
use super::exit::{ended, refuse};
use super::progress::Progress;
use super::status::Format;
use super::table::{Table, instant};
use crate::http::savepoints::{MakeSavepoint, SavepointSummary, Savepoints};
use crate::inputs::Inputs;
use crate::pipeline::{self, savepoint_name};

/// Make or list savepoints
#[derive(Debug, Args)]
pub struct SavepointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(CreateArgs),
    List(ListArgs),
    FromCheckpoint(FromCheckpointArgs),
}

/// Take a checkpoint now, and keep a copy of it that is complete in itself and never retired
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow savepoint create orders-per-user before-upgrade\n\n\
    To go back to it: onceflow run --from-savepoint before-upgrade orders-per-user.yaml")]
struct CreateArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// Name of the savepoint [default: the time]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// List the savepoints of a pipeline, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow savepoint list orders-per-user")]
struct ListArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// How to show them
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// Make a savepoint of an older checkpoint, when the newest one is damaged; needs no daemon
#[derive(Debug, Args)]
#[command(
    after_help = "Example: onceflow savepoint from-checkpoint orders-per-user.yaml 1041 before-the-damage\n\n\
    `onceflow checkpoint verify` shows which are whole. To go on from it, with the output since then coming again:\n\
    onceflow run --from-savepoint before-the-damage --accept-repeats orders-per-user.yaml"
)]
struct FromCheckpointArgs {
    /// The pipeline's file: it says where the checkpoints are
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Epoch of the checkpoint
    #[arg(value_name = "EPOCH")]
    epoch: u64,
    /// Name of the savepoint [default: the time]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SavepointArgs {
    /// Does it.
    pub fn run(&self) -> ExitCode {
        ended(match &self.command {
            Command::Create(args) => args.run(),
            Command::List(args) => args.run(),
            Command::FromCheckpoint(args) => args.run(),
        })
    }
}

impl CreateArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let client = self.daemon.client()?;
        let progress = Progress::new();
        progress.show("waiting for the next checkpoint");
        let path = format!("/pipelines/{}/savepoints", self.pipeline);
        let made = client.post::<SavepointSummary>(&path, &MakeSavepoint { name: self.name.clone() });
        progress.clear();
        say(&made?);
        Ok(ExitCode::SUCCESS)
    }
}

fn say(made: &SavepointSummary) {
    println!("savepoint {} of epoch {}: {} files, {} bytes", made.name, made.epoch, made.files, made.bytes);
}

impl ListArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let path = format!("/pipelines/{}/savepoints", self.pipeline);
        let answer: Savepoints = self.daemon.client()?.get(&path)?;
        if self.format == Format::Json {
            println!("{}", serde_json::to_string_pretty(&answer)?);
            return Ok(ExitCode::SUCCESS);
        }
        let mut table = Table::new(["NAME", "EPOCH", "MADE", "FILES", "BYTES"]);
        for savepoint in &answer.savepoints {
            table.row([
                savepoint.name.clone(),
                savepoint.epoch.to_string(),
                instant(savepoint.created_ms),
                savepoint.files.to_string(),
                savepoint.bytes.to_string(),
            ]);
        }
        print!("{table}");
        for reason in &answer.unreadable {
            eprintln!("onceflow: {reason}");
        }
        Ok(if answer.unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl FromCheckpointArgs {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let inputs = Inputs { named: vec![self.file.clone()], config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) => return Ok(refuse(&mistakes)),
        };
        let [read] = loaded.pipelines.as_slice() else {
            return Ok(refuse(&"this is about one pipeline: name its file\n"));
        };
        let name = savepoint_name(self.name.clone()).map_err(anyhow::Error::msg)?;
        let progress = Progress::new();
        let mut begins = |file: &str| progress.show(&format!("reading {file}"));
        let (storage, namespace) = (&read.plan.checkpoint.storage, &loaded.settings.namespace);
        let made = pipeline::rescue(storage, namespace, &read.plan.pipeline, self.epoch, &name, &mut begins)?;
        progress.clear();
        say(&made.into());
        Ok(ExitCode::SUCCESS)
    }
}
