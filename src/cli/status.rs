//! `onceflow status` and `onceflow stop`: how pipelines are doing, and the end of one.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::checkpoint::millis;
use super::client::{DaemonArgs, pipeline_name};
use super::exit::ended;
use super::progress::Progress;
use super::table::{self, Table, ago, instant, lasting};
use crate::http::model::{Overview, Pipelines, Stopped};
use crate::supervisor::StopMode;

/// Show how the pipelines of a running daemon are doing
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow status orders-per-user")]
pub struct StatusArgs {
    /// One pipeline, with its partitions and steps
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: Option<String>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, ValueEnum)]
pub enum Format {
    /// For a terminal
    #[default]
    Text,
    /// For a program
    Json,
}

impl StatusArgs {
    /// Asks, and prints the answer.
    pub fn run(&self) -> ExitCode {
        ended(self.show().map(|()| ExitCode::SUCCESS))
    }

    fn show(&self) -> anyhow::Result<()> {
        let client = self.daemon.client()?;
        match &self.pipeline {
            None => {
                let all: Pipelines = client.get("/pipelines")?;
                match self.format {
                    Format::Json => println!("{}", serde_json::to_string_pretty(&all)?),
                    Format::Text => print!("{}", list(&all.pipelines)),
                }
            }
            Some(pipeline) => {
                let one: Overview = client.get(&format!("/pipelines/{pipeline}"))?;
                match self.format {
                    Format::Json => println!("{}", serde_json::to_string_pretty(&one)?),
                    Format::Text => print!("{}", details(&one)),
                }
            }
        }
        Ok(())
    }
}

fn list(pipelines: &[Overview]) -> Table {
    let heads =
        ["PIPELINE", "STATE", "UPTIME", "EPOCH", "COMMITTED", "LAG", "WATERMARK", "RESTARTS", "DETAIL"];
    let mut table = Table::new(heads);
    for pipeline in pipelines {
        let progress = &pipeline.progress;
        table.row([
            pipeline.name.clone(),
            pipeline.state.clone(),
            table::or_dash(pipeline.uptime_ms.map(lasting)),
            table::or_dash(progress.epoch),
            table::or_dash(progress.committed_ms.map(ago)),
            table::or_dash(progress.lag_records),
            table::or_dash(progress.watermark_ms.map(instant)),
            progress.restarts.to_string(),
            pipeline.detail.clone(),
        ]);
    }
    table
}

fn details(pipeline: &Overview) -> String {
    let progress = &pipeline.progress;
    let counts = &progress.counts;
    let mut text = format!("{}: {}\n", pipeline.name, pipeline.state);
    let mut line = |label: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("  {label:<12} {value}\n"));
        }
    };
    line("detail", pipeline.detail.clone());
    line("file", pipeline.file.clone());
    line("uptime", pipeline.uptime_ms.map(lasting).unwrap_or_default());
    line("fenced by", progress.fenced_by.clone().unwrap_or_default());
    line("restarts", progress.restarts.to_string());
    let failure = progress.last_failure.as_ref();
    line(
        "last failure",
        failure
            .map(|last| format!("{}, {}: {}", ago(last.at_ms), last.kind, last.reason))
            .unwrap_or_default(),
    );
    let committed = progress.committed_ms.map(|at| format!(", committed {}", ago(at))).unwrap_or_default();
    line("epoch", progress.epoch.map(|epoch| format!("{epoch}{committed}")).unwrap_or_default());
    line("lag", progress.lag_records.map(|lag| format!("{lag} records")).unwrap_or_default());
    line("watermark", progress.watermark_ms.map(instant).unwrap_or_default());
    line("held back by", progress.held_back_by.clone().unwrap_or_default());
    line(
        "records",
        format!(
            "{} in, {} out, {} filtered, {} late, {} dead letters, {} dropped",
            counts.read, counts.out, counts.filtered, counts.late, counts.dead, counts.dropped
        ),
    );
    if let Some(last) = &pipeline.last_checkpoint {
        let failure = last.failure.as_ref().map(|failure| format!(", failed: {failure}")).unwrap_or_default();
        line(
            "checkpoint",
            format!(
                "{:.1} ms, by {}, {}{failure}",
                millis(last.duration_us),
                last.trigger,
                ago(last.started_ms)
            ),
        );
    }
    if !progress.partitions.is_empty() {
        let mut table = Table::new(["SOURCE", "PARTITION", "NEXT OFFSET", "LAG", "WATERMARK", "IDLE"]);
        for at in &progress.partitions {
            table.row([
                at.source.clone(),
                format!("{}-{}", at.topic, at.partition),
                at.next_offset.to_string(),
                table::or_dash(at.lag_records),
                table::or_dash(at.watermark_ms.map(instant)),
                if at.idle { "idle".to_owned() } else { String::new() },
            ]);
        }
        text.push_str(&format!("\n{table}"));
    }
    if !progress.steps.is_empty() {
        let mut table = Table::new(["STEP", "FIRED UP TO", "CLOSED UP TO"]);
        for step in &progress.steps {
            let (fired, closed) = (step.fired_ms.map(instant), step.purged_ms.map(instant));
            table.row([step.name.clone(), table::or_dash(fired), table::or_dash(closed)]);
        }
        text.push_str(&format!("\n{table}"));
    }
    text
}

/// Stop a pipeline of a running daemon: a final checkpoint, then the end
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow stop orders-per-user")]
pub struct StopArgs {
    /// The pipeline
    #[arg(value_name = "PIPELINE", value_parser = pipeline_name)]
    pipeline: String,
    /// Close all windows first, whatever may still come for them; what comes later is late
    #[arg(long, conflicts_with = "now")]
    drain: bool,
    /// Do without the final checkpoint: what was read since the last one is read again at the next start
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

impl StopArgs {
    /// Stops it, and waits until it has ended.
    pub fn run(&self) -> ExitCode {
        ended(self.stop())
    }

    fn stop(&self) -> anyhow::Result<ExitCode> {
        let mode = match (self.drain, self.now) {
            (true, _) => StopMode::Drain,
            (_, true) => StopMode::Now,
            _ => StopMode::Checkpoint,
        };
        if mode == StopMode::Drain {
            eprintln!(
                "warning: every open window of `{}` closes now and its result is final; records that come for it later are late",
                self.pipeline
            );
        }
        let client = self.daemon.client()?;
        let progress = Progress::new();
        progress.show(&format!("stopping {}", self.pipeline));
        let path = format!("/pipelines/{}/stop", self.pipeline);
        let stopped: Stopped = client.post(&path, &serde_json::json!({ "mode": mode }))?;
        progress.clear();
        match stopped.outcome.as_str() {
            "done" => println!("{} has stopped; everything that was read is committed", self.pipeline),
            "abandoned" => {
                println!(
                    "{} has stopped; what was read since its last checkpoint will be read again",
                    self.pipeline
                );
            }
            outcome => {
                let detail = Some(stopped.detail).filter(|detail| !detail.is_empty());
                anyhow::bail!("{}: {}", self.pipeline, detail.as_deref().unwrap_or(outcome));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
