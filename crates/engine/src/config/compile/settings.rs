//! Settings of a pipeline over those of the daemon over what is built in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::Defaults;
use crate::config::spec::{self, Spec};
use crate::diagnostics::{Code, Diagnostic, Span};
use crate::plan::{Backend, Checkpoint, Ids, Kafka, Restart, State};

/// What a plan says of the pipeline as a whole.
pub(super) struct Settings {
    pub pipeline: String,
    pub kafka: Kafka,
    pub parallelism: usize,
    pub checkpoint: Checkpoint,
    pub restart: Restart,
    pub state: State,
}

pub(super) fn settle(spec: &Spec, defaults: &Defaults, found: &mut Vec<Diagnostic>) -> Option<Settings> {
    let kafka = kafka(spec, defaults, found);
    let restart = restart(spec, defaults, found);
    let (own, given) = (&spec.checkpoint, &defaults.checkpoint);
    let checkpoint = Checkpoint {
        interval: own.interval.or(given.interval).unwrap_or(Duration::from_secs(1)),
        max_records: own.max_records.or(given.max_records).unwrap_or(1_000_000),
        max_bytes: own.max_bytes.or(given.max_bytes).unwrap_or(64 << 20),
        timeout: own.timeout.or(given.timeout).unwrap_or(Duration::from_secs(60)),
        min_pause: own.min_pause.or(given.min_pause).unwrap_or(Duration::ZERO),
        tolerable_failures: own.tolerable_failures.or(given.tolerable_failures).unwrap_or(0),
        storage: (own.storage.clone().or_else(|| given.storage.clone()))
            .unwrap_or_else(|| PathBuf::from("/var/lib/onceflow/checkpoints")),
        retained: own.retained.or(given.retained).unwrap_or(3),
    };
    let (own, given) = (&spec.state, &defaults.state);
    let state = State {
        backend: own.backend.or(given.backend).unwrap_or(Backend::RocksDb),
        dir: (own.dir.clone().or_else(|| given.dir.clone()))
            .unwrap_or_else(|| PathBuf::from("/var/lib/onceflow/state")),
        memory_bytes: own.memory_bytes.or(given.memory_bytes).unwrap_or(256 << 20),
    };
    Some(Settings {
        pipeline: spec.pipeline.clone()?,
        kafka: kafka?,
        parallelism: spec.parallelism.unwrap_or(1),
        checkpoint,
        restart,
        state,
    })
}

/// The pipeline's strategy, or the daemon's. What the pipeline does not say of its strategy, the daemon may, if it has the same.
fn restart(spec: &Spec, defaults: &Defaults, found: &mut Vec<Diagnostic>) -> Restart {
    use spec::Restart as Said;
    let built_in = Said::Exponential { initial: None, max: None };
    let own = spec.restart.as_ref().map(|restart| &restart.value);
    let given = defaults.restart.as_ref();
    let said = own.or(given).unwrap_or(&built_in);
    let seconds = Duration::from_secs;
    match (said, given.unwrap_or(&built_in)) {
        (Said::None, _) => Restart::None,
        (Said::Fixed { attempts, delay }, given) => {
            let (more, longer) = match given {
                Said::Fixed { attempts, delay } => (*attempts, *delay),
                _ => (None, None),
            };
            Restart::Fixed {
                attempts: attempts.or(more).unwrap_or(3),
                delay: delay.or(longer).unwrap_or(seconds(10)),
            }
        }
        (Said::Exponential { initial, max }, given) => {
            let (first, longest) = match given {
                Said::Exponential { initial, max } => (*initial, *max),
                _ => (None, None),
            };
            let initial = initial.or(first).unwrap_or(seconds(1));
            let max = max.or(longest).unwrap_or(seconds(60));
            if max < initial {
                let message = format!("`max` ({max:?}) is shorter than `initial` ({initial:?})");
                let span = spec.restart.as_ref().map_or(Span::default(), |restart| restart.span);
                found.push(Diagnostic::new(Code::BadValue, span, message));
            }
            Restart::Exponential { initial, max }
        }
        (Said::FailureRate { failures, per, delay }, given) => {
            let (more, time, longer) = match given {
                Said::FailureRate { failures, per, delay } => (*failures, *per, *delay),
                _ => (None, None, None),
            };
            Restart::FailureRate {
                failures: failures.or(more).unwrap_or(3),
                per: per.or(time).unwrap_or(seconds(600)),
                delay: delay.or(longer).unwrap_or(seconds(10)),
            }
        }
    }
}

fn kafka(spec: &Spec, defaults: &Defaults, found: &mut Vec<Diagnostic>) -> Option<Kafka> {
    let servers = spec.kafka.bootstrap_servers.clone().or_else(|| defaults.kafka.bootstrap_servers.clone());
    if servers.is_none() && !spec.kafka.invalid {
        let span = Span { start: spec.span.start, end: spec.span.start + 1 };
        found.push(
            Diagnostic::new(
                Code::NoBootstrap,
                span,
                "neither the pipeline nor the daemon says where Kafka is",
            )
            .hint("add `kafka: { bootstrap_servers: \"localhost:9092\" }`"),
        );
    }
    let properties: BTreeMap<String, String> =
        defaults.kafka.properties.iter().chain(&spec.kafka.properties).cloned().collect();
    Some(Kafka { bootstrap_servers: servers?, properties, ids: spec.kafka.ids.clone() })
}

/// The cluster of a source, which has nothing of the pipeline's.
pub(super) fn of_source(kafka: &crate::config::spec::Kafka) -> Option<Kafka> {
    Some(Kafka {
        bootstrap_servers: kafka.bootstrap_servers.clone()?,
        properties: kafka.properties.iter().cloned().collect(),
        ids: Ids::default(),
    })
}
