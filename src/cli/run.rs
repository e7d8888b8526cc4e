//! `onceflow run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use onceflow_protocol::coordinator::Requests;

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
    /// Go on from this savepoint; applied once, however often the command line is repeated
    #[arg(long, value_name = "NAME")]
    from_savepoint: Option<String>,
    /// Discard the state of this step: its open windows begin anew; applied once, however often the command line is repeated
    #[arg(long, value_name = "STEP")]
    discard_state: Vec<String>,
    /// Counts how often a savepoint is gone back to or state is discarded: with another number it is done once more
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    again: u32,
    /// Go back behind output that was committed since the savepoint, which then comes a second time
    #[arg(long, requires = "from_savepoint")]
    accept_repeats: bool,
}

impl RunArgs {
    /// Runs the daemon. Its threads may still be at work when it has ended: the process ends at once.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) => return refuse(&mistakes),
        };
        let requests = Requests {
            savepoint: self.from_savepoint.clone(),
            discard: self.discard_state.clone(),
            again: self.again,
            accept_repeats: self.accept_repeats,
        };
        if requests.asks() && (loaded.directory || loaded.pipelines.len() != 1) {
            return refuse(
                &"`--from-savepoint` and `--discard-state` are about one pipeline: name its file\n",
            );
        }
        if let Err(error) = telemetry::start(loaded.settings.log) {
            return refuse(&format!("{error:#}\n"));
        }
        match daemon::run(inputs, loaded, Mode { until_end: self.until_end, requests }) {
            Ok(code) => leave(code),
            Err(error) => ended(Err(error)),
        }
    }
}
