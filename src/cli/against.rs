//! `onceflow validate --against-running`: what a deployment would do to the pipelines as they run now.

use std::process::ExitCode;
use std::sync::Arc;

use onceflow_protocol::coordinator::Requests;

use crate::daemon;
use crate::inputs::Loaded;
use crate::metrics::Metrics;
use crate::pipeline::{Context, foresee};

/// Asks the cluster and the checkpoint storage, and says what would happen. Exit code 78 if a start would be refused, 75 if nobody could
/// be asked.
///
/// # Errors
/// If metrics cannot be made; a bug.
pub fn against_running(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    let metrics = Metrics::new()?;
    let mut code = 0;
    for pipeline in &loaded.pipelines {
        let (plan, namespace) = (&pipeline.plan, &loaded.settings.namespace);
        let (file, name) = (pipeline.file.display(), &plan.pipeline);
        let once = Requests::default();
        let figures = Arc::new(metrics.pipeline(name)?);
        let found = Context::new(plan.clone(), namespace, false, once, figures)
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
