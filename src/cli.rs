//! The command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use onceflow_engine::config::{Defaults, compile, read_defaults};
use onceflow_engine::plan::Plan;

use crate::daemon::{self, Mode};
use crate::demo::{self, DemoArgs};
use crate::settings::{self, Settings};
use crate::telemetry;

/// Exactly-once stream pipelines over Kafka.
#[derive(Debug, Parser)]
#[command(name = "onceflow", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run pipelines until they are told to stop (SIGTERM: final checkpoint, then exit 0)
    #[command(after_help = "Example: onceflow run --config /etc/onceflow/onceflow.yaml orders-per-user.yaml")]
    Run {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Stop at the offsets that are the ends of the sources now, closing all windows
        #[arg(long)]
        until_end: bool,
    },
    /// Check pipeline files without any network: every mistake, with its place; exit code 78 if there is one
    #[command(after_help = "Example: onceflow validate orders-per-user.yaml")]
    Validate {
        /// Pipeline files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// A pipeline under load that is killed again and again, and the proof that nothing is lost or doubled
    Demo(DemoArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { files, config, until_end } => run(&files, config.as_deref(), Mode { until_end }),
        Command::Validate { files, config } => match load(&files, config.as_deref()) {
            Ok((_, plans)) => {
                for (file, plan) in files.iter().zip(&plans) {
                    println!("{}: pipeline `{}` is valid", file.display(), plan.pipeline);
                }
                ExitCode::SUCCESS
            }
            Err(mistakes) => refuse(&mistakes),
        },
        Command::Demo(args) => ended(demo::run(&args)),
    }
}

fn run(files: &[PathBuf], config: Option<&Path>, mode: Mode) -> ExitCode {
    let (settings, plans) = match load(files, config) {
        Ok(loaded) => loaded,
        Err(mistakes) => return refuse(&mistakes),
    };
    if let Err(error) = telemetry::start(settings.log) {
        return refuse(&format!("{error:#}\n"));
    }
    match daemon::run(&settings, plans, mode) {
        Ok(code) => leave(code),
        Err(error) => ended(Err(error)),
    }
}

/// Ends the process without what C++ runs at a process's end: threads that were left behind in a call, or that are still closing their
/// store, would find RocksDB's locks destroyed, and abort instead.
fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code.into()) }
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("onceflow: {error:#}");
        ExitCode::FAILURE
    })
}

fn refuse(mistakes: &str) -> ExitCode {
    eprint!("{mistakes}");
    ExitCode::from(daemon::CONFIG)
}

/// Settings and plans, or every mistake in any of the files.
fn load(files: &[PathBuf], config: Option<&Path>) -> Result<(Settings, Vec<Plan>), String> {
    let settings = Settings::load(config, std::env::vars()).map_err(|error| format!("{error}\n"))?;
    let environment = |name: &str| std::env::var(name).ok();
    let defaults = defaults(&settings, config, &environment)?;
    let mut mistakes = String::new();
    let mut plans: Vec<Plan> = vec![];
    for file in files {
        let name = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                mistakes.push_str(&format!("{name}: cannot be read: {error}\n"));
                continue;
            }
        };
        match compile(&name, &text, &defaults, &environment) {
            Ok(plan) => match plans.iter().find(|other| other.pipeline == plan.pipeline) {
                Some(_) => mistakes.push_str(&format!(
                    "{name}: pipeline `{}` is in another file too: they would fence each other\n",
                    plan.pipeline
                )),
                None => plans.push(plan),
            },
            Err(diagnostics) => mistakes.push_str(&diagnostics.to_string()),
        }
    }
    if mistakes.is_empty() { Ok((settings, plans)) } else { Err(mistakes) }
}

/// The sections of a pipeline that the daemon's settings hold. They went through the settings file and the environment, so that
/// their mistakes point into what came of both.
fn defaults(
    settings: &Settings,
    config: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Defaults, String> {
    let file = config.unwrap_or(Path::new(settings::DEFAULT_FILE));
    let sections = serde_json::to_string_pretty(&settings.defaults).map_err(|error| format!("{error}\n"))?;
    read_defaults(&format!("{} (defaults)", file.display()), &sections, environment)
        .map_err(|diagnostics| diagnostics.to_string())
}
