//! The process around the pipelines: HTTP, signals, and the exit code.
//!
//! It ends when the last pipeline has ended; where pipelines come from a directory, only when a signal asks for it.

use std::time::Duration;

use onceflow_protocol::ErrorKind;
use onceflow_protocol::coordinator::Outcome;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::http::{App, HttpServer};
use crate::inputs::{Inputs, Loaded};
use crate::metrics::Metrics;
use crate::service_manager;
use crate::supervisor::{Mode, Supervisor};

/// Exit code for bad data under `on_error: fail` (EX_DATAERR).
const BAD_DATA: u8 = 65;
/// Exit code for what may go away by itself: a service manager should start again (EX_TEMPFAIL).
pub const TEMPORARY: u8 = 75;
/// Exit code for a mistake in a file or a setting (EX_CONFIG).
pub const CONFIG: u8 = 78;

/// How long the process's end waits for answers that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Runs what was loaded from `inputs` until it has ended, or until a signal asks for it. Returns the process's exit code; threads of the
/// pipelines may still be at work.
///
/// # Errors
/// If the HTTP address cannot be bound, or the process lacks threads.
pub fn run(inputs: Inputs, loaded: Loaded, mode: Mode) -> anyhow::Result<u8> {
    let metrics = Metrics::new()?;
    let http = loaded.settings.http.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Before anything is started that would have to be stopped.
    let server = runtime
        .block_on(HttpServer::bind(&http))
        .map_err(|error| anyhow::anyhow!("http.listen: {} cannot be bound: {error}", http.listen))?;
    let namespace = loaded.settings.namespace.as_str();
    let pipelines = loaded.pipelines.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %server.address()?, namespace, pipelines, "onceflow");
    let signals = runtime.block_on(async { Signals::new() })?;
    let supervisor = Supervisor::start(inputs, loaded, mode, metrics.clone())?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let app = App { supervisor: supervisor.clone(), metrics };
    let serving = runtime.spawn(server.serve(app, async {
        // It is never sent: with its other half it is over.
        let _ = stopped.await;
    }));
    runtime.spawn(service_manager::keep_informed(supervisor.clone()));
    service_manager::ready();
    let outcomes = runtime.block_on(wait(supervisor, signals));
    drop(stop);
    // Whoever asked for the end hears that it has come.
    if runtime.block_on(async { tokio::time::timeout(LAST_ANSWERS, serving).await }).is_err() {
        tracing::debug!("someone is still being answered; the end does not wait for that");
    }
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(outcomes.iter().map(exit_code).fold(0, worse))
}

/// Signals that would end the process if nobody listened.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for the end; a signal asks for it, or for a reload.
async fn wait(supervisor: Supervisor, mut signals: Signals) -> Vec<Outcome> {
    let over = supervisor.over();
    tokio::pin!(over);
    loop {
        tokio::select! {
            outcomes = &mut over => return outcomes,
            _ = signals.terminate.recv() => stop(&supervisor),
            _ = signals.interrupt.recv() => stop(&supervisor),
            _ = signals.hangup.recv() => {
                let supervisor = supervisor.clone();
                // What it did, or why it did nothing, is in the log.
                tokio::spawn(async move { supervisor.reload().await.is_ok() });
            }
        }
    }
}

fn stop(supervisor: &Supervisor) {
    service_manager::stopping();
    tracing::info!("stopping: a final checkpoint, then the end");
    supervisor.close();
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Done | Outcome::Abandoned => 0,
        Outcome::StoppedWithoutCheckpoint => TEMPORARY,
        Outcome::Refused(_) => 1,
        Outcome::Failed(failure) => match failure.kind {
            ErrorKind::Data => BAD_DATA,
            ErrorKind::Config => CONFIG,
            ErrorKind::Bug => 1,
            ErrorKind::Retry | ErrorKind::EpochFailed | ErrorKind::Fenced | ErrorKind::OutcomeUnknown => {
                TEMPORARY
            }
        },
    }
}

/// Of two exit codes the one that needs a person more: a mistake, then bad data, then what goes away by itself.
fn worse(one: u8, other: u8) -> u8 {
    let rank = |code: u8| match code {
        0 => 0,
        TEMPORARY => 1,
        BAD_DATA => 2,
        CONFIG => 3,
        _ => 4,
    };
    if rank(other) > rank(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use onceflow_protocol::coordinator::Failure;

    use super::*;

    #[test]
    fn exit_codes_say_what_to_do() {
        let failed = |kind| Outcome::Failed(Failure { kind, message: String::new() });
        assert_eq!(exit_code(&Outcome::Done), 0);
        assert_eq!(exit_code(&failed(ErrorKind::Data)), 65);
        assert_eq!(exit_code(&failed(ErrorKind::Config)), 78);
        assert_eq!(exit_code(&failed(ErrorKind::Bug)), 1);
        assert_eq!(exit_code(&Outcome::Refused(String::new())), 1);
        assert_eq!(exit_code(&Outcome::StoppedWithoutCheckpoint), 75);
        assert_eq!(worse(65, 75), 65);
        assert_eq!(worse(0, 75), 75);
    }
}
