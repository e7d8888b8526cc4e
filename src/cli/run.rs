//! `onceflow run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::exit::{ended, leave, refuse};
use crate::daemon;
use crate::inputs::Inputs;
use crate::supervisor::Mode;
use crate::telemetry;

/// Run pipelines until they are told to stop (SIGTERM: final checkpoint, then exit 0); SIGHUP reads all files again
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow run --config /etc/onceflow/onceflow.yaml orders-per-user.yaml")]
pub struct RunArgs {
    /// Pipeline files, or directories of them [default: `pipelines` of the settings]
    #[arg(value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stop at the offsets that are the ends of the sources now, closing all windows
    #[arg(long)]
    until_end: bool,
}

impl RunArgs {
    /// Runs the daemon. Its threads may still be at work when it has ended: the process ends at once.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) => return refuse(&mistakes),
        };
        if let Err(error) = telemetry::start(loaded.settings.log) {
            return refuse(&format!("{error:#}\n"));
        }
        match daemon::run(inputs, loaded, Mode { until_end: self.until_end }) {
            Ok(code) => leave(code),
            Err(error) => ended(Err(error)),
        }
    }
}
