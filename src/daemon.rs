//! The daemon: settings, pipelines, HTTP, signals, and the exit code.
//!
//! Every pipeline has a fate of its own: one that fails leaves the others running, and the process unready. It ends when the last
//! pipeline has ended.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use onceflow_engine::plan::Plan;
use onceflow_protocol::ErrorKind;
use onceflow_protocol::coordinator::{Failure, Outcome};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::http::{HttpServer, Statuses};
use crate::metrics::Metrics;
use crate::pipeline::{Context, Driver, Request, Status, said};
use crate::settings::Settings;

/// Exit code for bad data under `on_error: fail` (EX_DATAERR).
const BAD_DATA: u8 = 65;
/// Exit code for what may go away by itself: a service manager should start again (EX_TEMPFAIL).
const TEMPORARY: u8 = 75;
/// Exit code for a mistake in a file or a setting (EX_CONFIG).
pub const CONFIG: u8 = 78;

/// How the daemon runs its pipelines.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Stop at the offsets that are the sources' ends now.
    pub until_end: bool,
}

/// Runs pipelines until they have ended, or until a signal asks them to. Returns the process's exit code; threads of the pipelines may
/// still be at work.
///
/// # Errors
/// If the HTTP address cannot be bound, or the process lacks threads.
pub fn run(settings: &Settings, plans: Vec<Plan>, mode: Mode) -> anyhow::Result<u8> {
    let metrics = Metrics::new()?;
    let statuses = Statuses::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let server = runtime.block_on(HttpServer::bind(settings.http.listen, metrics.clone(), statuses.clone()));
    let server = server
        .map_err(|error| anyhow::anyhow!("http.listen: {} cannot be bound: {error}", settings.http.listen))?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), http = %server.address()?, namespace = settings.namespace, "onceflow");
    runtime.spawn(server.serve(std::future::pending()));

    let (ended, outcomes) = unbounded_channel();
    let mut pipelines = vec![];
    for plan in plans {
        pipelines.push(start(settings, plan, mode, &metrics, &statuses, ended.clone())?);
    }
    drop(ended);
    let code = runtime.block_on(wait(pipelines, outcomes))?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(code)
}

fn start(
    settings: &Settings,
    plan: Plan,
    mode: Mode,
    metrics: &Metrics,
    statuses: &Statuses,
    ended: UnboundedSender<Outcome>,
) -> anyhow::Result<Sender<Request>> {
    let name = plan.pipeline.clone();
    let metrics = Arc::new(metrics.pipeline(&name)?);
    let status = || Status::new(&name, statuses.clone(), metrics.clone());
    let (status, fate) = (status(), status());
    let (requests, inbox) = bounded(16);
    let context = match Context::new(Arc::new(plan), &settings.namespace, mode.until_end, metrics) {
        Ok(context) => Arc::new(context),
        Err(error) => {
            let outcome = Outcome::Failed(Failure { kind: error.kind, message: error.to_string() });
            tracing::error!(pipeline = name, reason = %error, "cannot be started");
            status.ended(&outcome);
            let _ = ended.send(outcome);
            return Ok(requests);
        }
    };
    std::thread::Builder::new().name(format!("driver-{name}")).spawn(move || {
        let driver = Driver::new(context, status, inbox);
        let _ = ended.send(supervise(&name, &fate, move || driver.run()));
    })?;
    Ok(requests)
}

/// Runs a pipeline. A broken invariant, at which its driver panics, ends this pipeline alone, and leaves word in the log and in the
/// probes.
fn supervise(pipeline: &str, status: &Status, run: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = format!("a broken invariant stopped the pipeline: {}", said(panic.as_ref()));
        tracing::error!(pipeline, reason = message, "failed; this is a bug of Onceflow");
        let outcome = Outcome::Failed(Failure { kind: ErrorKind::Bug, message });
        status.ended(&outcome);
        outcome
    })
}

/// Waits for every pipeline's end; a signal asks all of them to stop.
async fn wait(
    pipelines: Vec<Sender<Request>>,
    mut outcomes: UnboundedReceiver<Outcome>,
) -> anyhow::Result<u8> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut code = 0;
    loop {
        tokio::select! {
            outcome = outcomes.recv() => match outcome {
                Some(outcome) => code = worse(code, exit_code(&outcome)),
                None => return Ok(code),
            },
            _ = terminate.recv() => stop(&pipelines),
            _ = interrupt.recv() => stop(&pipelines),
        }
    }
}

fn stop(pipelines: &[Sender<Request>]) {
    tracing::info!("stopping: a final checkpoint, then the end");
    for pipeline in pipelines {
        // One that has ended, or was asked often enough, needs no asking.
        let _ = pipeline.try_send(Request::Stop);
    }
}

fn exit_code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Done => 0,
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
    use onceflow_protocol::coordinator::Phase;

    use super::*;

    #[test]
    fn a_broken_invariant_poisons_one_pipeline() {
        let (metrics, statuses) = (Metrics::new().unwrap(), Statuses::default());
        let status = |name| Status::new(name, statuses.clone(), Arc::new(metrics.pipeline(name).unwrap()));
        let (sound, broken) = (status("sound"), status("broken"));
        for status in [&sound, &broken] {
            status.entered(Phase::Running, None);
        }
        let outcome = supervise("broken", &broken, || panic!("illegal transition"));
        assert!(
            matches!(&outcome, Outcome::Failed(failure) if failure.kind == ErrorKind::Bug),
            "{outcome:?}"
        );
        assert_eq!(supervise("sound", &sound, || Outcome::Done), Outcome::Done);
        let all = statuses.all();
        assert_eq!((all[0].state, all[0].ready), ("running", true));
        assert_eq!((all[1].state, all[1].ready), ("failed", false));
        assert!(all[1].detail.ends_with("illegal transition"), "{}", all[1].detail);
    }

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
