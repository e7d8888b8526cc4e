//! `onceflow validate --against-running`: what a deployment would do to the pipelines as they run now.

use std::process::ExitCode;

use super::validate::context;
use crate::daemon;
use crate::inputs::Loaded;
use crate::pipeline::foresee;

/// Asks the cluster and the checkpoint storage, and says what would happen. Exit code 78 if a start would be refused, 75 if nobody could
/// be asked.
///
/// # Errors
/// If metrics cannot be made; a bug.
pub fn against_running(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let mut code = 0;
    for pipeline in &loaded.pipelines {
        let (file, name) = (pipeline.file.display(), &pipeline.plan.pipeline);
        let found = context(loaded, &pipeline.plan)?
            .map_err(|error| error.to_string())
            .and_then(|context| foresee(&context));
        match found {
            Err(reason) => {
                println!("{file}: what `{name}` would go on from cannot be read: {reason}");
                code = code.max(daemon::TEMPORARY);
            }
            Ok(found) => {
                match found.epoch {
                    None => println!("{file}: `{name}` would start for the first time"),
                    Some(epoch) if found.refusals.is_empty() => {
                        println!("{file}: `{name}` would go on from epoch {epoch}")
                    }
                    Some(epoch) => {
                        println!("{file}: `{name}` would be refused, at epoch {epoch}");
                        code = daemon::CONFIG;
                    }
                }
                for line in found.refusals.iter().chain(&found.notes) {
                    println!("  {}", line.replace('\n', "\n  "));
                }
            }
        }
    }
    Ok(ExitCode::from(code))
}
