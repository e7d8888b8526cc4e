//! `onceflow validate`: every mistake in pipeline files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::refuse;
use super::load::load;

/// Check pipeline files without any network: every mistake, with its place; exit code 78 if there is one
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow validate orders-per-user.yaml")]
pub struct ValidateArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ValidateArgs {
    /// Checks, and says what is wrong.
    pub fn run(&self) -> ExitCode {
        match load(&self.files, self.config.as_deref()) {
            Ok((_, plans)) => {
                for (file, plan) in self.files.iter().zip(&plans) {
                    println!("{}: pipeline `{}` is valid", file.display(), plan.pipeline);
                }
                ExitCode::SUCCESS
            }
            Err(mistakes) => refuse(&mistakes),
        }
    }
}
