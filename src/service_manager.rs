//! What a service manager hears of this process: systemd's notifications, sd_notify(3). Without one, nothing is told.
//!
//! `READY` comes once the daemon runs its pipelines, whether or not they have reached their brokers: `/readyz` tells that. `WATCHDOG` is
//! told as long as every pipeline's driver gets on, fenced ones included: a fenced pipeline waits for a person, and a restart would only
//! fence the other instance in return.

use std::collections::BTreeMap;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::pipeline::PipelineStatus;
use crate::supervisor::Supervisor;

/// Longest time between two looks at the pipelines.
const LOOK: Duration = Duration::from_secs(5);

/// The daemon is up.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun; it ends with [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "no clock for the service manager"),
    }
}

/// The daemon is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells, for ever, how the pipelines are and that the process lives.
pub async fn keep_informed(supervisor: Supervisor) {
    let watchdog = sd_notify::watchdog_enabled();
    let mut interval = tokio::time::interval(watchdog.map_or(LOOK, |limit| LOOK.min(limit / 2)));
    let (mut told, mut pulses) = (String::new(), BTreeMap::new());
    loop {
        interval.tick().await;
        let status = summary(&supervisor.list());
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        if watchdog.is_none() {
            continue;
        }
        let now = supervisor.pulses();
        let stuck: Vec<&String> = now
            .iter()
            .filter(|(name, pulse)| pulses.get(*name) == Some(*pulse))
            .map(|(name, _)| name)
            .collect();
        match stuck.is_empty() {
            true => tell(&[NotifyState::Watchdog]),
            false => {
                tracing::error!(?stuck, "pipelines whose driver does not get on: the watchdog is not told")
            }
        }
        pulses = now;
    }
}

/// One line: how many pipelines run, and what the others do.
fn summary(pipelines: &[PipelineStatus]) -> String {
    let running = pipelines.iter().filter(|pipeline| pipeline.state == "running").count();
    let others = pipelines.iter().filter(|pipeline| pipeline.state != "running");
    let others: Vec<String> =
        others.map(|pipeline| format!("{} {}", pipeline.name, pipeline.state)).collect();
    let separator = if others.is_empty() { "" } else { "; " };
    format!("{running} of {} pipelines running{separator}{}", pipelines.len(), others.join(", "))
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_the_pipelines_are() {
        let status =
            |name: &str, state| PipelineStatus { name: name.into(), state, ready: false, detail: "x".into() };
        assert_eq!(summary(&[]), "0 of 0 pipelines running");
        assert_eq!(summary(&[status("a", "running")]), "1 of 1 pipelines running");
        assert_eq!(
            summary(&[status("a", "fenced"), status("b", "running"), status("c", "failed")]),
            "1 of 3 pipelines running; a fenced, c failed"
        );
    }
}
