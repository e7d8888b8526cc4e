//! `onceflow validate`: every mistake in pipeline files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::against::against_running;
use super::exit::{ended, refuse};
use crate::inputs::Inputs;

/// Check pipeline files without any network: every mistake, with its place; exit code 78 if there is one
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow validate orders-per-user.yaml")]
pub struct ValidateArgs {
    /// Pipeline files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Tell what a deployment would do to the pipelines as they run now: what goes on, and what would be refused
    #[arg(long)]
    against_running: bool,
}

impl ValidateArgs {
    /// Checks, and says what is wrong.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        match inputs.load() {
            Ok(loaded) if self.against_running => ended(against_running(&loaded)),
            Ok(loaded) => {
                for pipeline in &loaded.pipelines {
                    println!("{}: pipeline `{}` is valid", pipeline.file.display(), pipeline.plan.pipeline);
                }
                ExitCode::SUCCESS
            }
            Err(mistakes) => refuse(&mistakes),
        }
    }
}
