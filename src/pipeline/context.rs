//! What every thread of a pipeline may know: its plan, its names, its limits. Nothing here changes while the pipeline runs, apart
//! from counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onceflow_engine::plan::{self, Plan, Source};
use onceflow_protocol::coordinator::{Requests, Restart, Settings};
use onceflow_protocol::{Claim, ClaimId, FORMAT_VERSION, NextOffset};

use super::history::History;
use super::view::View;
use crate::kafka::{Connection, KafkaError};
use crate::metrics::PipelineMetrics;
use crate::state::cache_bytes;
use crate::storage::{ShardStorage, StorageError};

/// The only shard of a single instance.
pub const SHARD: u32 = 0;
/// Place of the sinks' cluster in [`Context::connections`].
pub const SINKS: usize = 0;

/// Where reading stops, by (number of the source, topic, partition).
pub type Ends = BTreeMap<(usize, String, i32), NextOffset>;

/// Part of `state.memory` that group tables get; the rest is for copies on their way out, held output and the cold store.
const TABLES_PART: u64 = 2;
/// Part of `state.memory` that held output may take.
const HELD_PART: u64 = 8;

/// Shared by the threads of one pipeline.
pub struct Context {
    /// What to do.
    pub plan: Arc<Plan>,
    /// The daemon's namespace.
    pub namespace: String,
    /// `{namespace}.{pipeline}.{shard}`, or as [`Names`] has it.
    pub transactional_id: String,
    /// `{namespace}.{pipeline}`.
    pub group_id: String,
    /// `{namespace}.{pipeline}.control`.
    pub control_topic: String,
    /// How to reach the clusters: that of the sinks and of most sources, then those that sources have of their own.
    pub connections: Vec<Connection>,
    /// For each source its place in `connections`.
    clusters: Vec<usize>,
    /// What the coordinator is told.
    pub settings: Settings,
    /// Numbers of the plan's windowed steps, in order.
    pub windowed: Vec<usize>,
    /// Bytes of output that may be held before sources are no longer polled.
    pub held_limit: usize,
    /// Bytes that one worker's tables may take before it evicts.
    pub table_share: u64,
    /// Bytes that one worker's tables may take where nothing can be evicted.
    pub memory_share: u64,
    /// Figures for `/metrics`.
    pub metrics: Arc<PipelineMetrics>,
    /// Counts up as long as the driver gets on.
    pub pulse: AtomicU64,
    /// How it is doing, for the API.
    pub view: Arc<View>,
    /// Its checkpoints, for the API.
    pub history: Arc<History>,
    instance: String,
    host: String,
    started_ms: i64,
    generation: AtomicU64,
    /// Ends of a bounded run, as they were when the command was started.
    ends: Mutex<Option<Ends>>,
}

impl Context {
    /// The context of a pipeline.
    ///
    /// # Errors
    /// `Config` for properties that librdkafka refuses, and for a control topic that is an input or output too.
    pub fn new(
        plan: Arc<Plan>,
        namespace: &str,
        until_end: bool,
        requests: Requests,
        metrics: Arc<PipelineMetrics>,
    ) -> Result<Context, KafkaError> {
        let Names { group_id, transactional_id, control_topic } = Names::of(&plan, namespace);
        check_control_topic(&plan, &control_topic)?;
        let mut connections =
            vec![Connection::new(plan.kafka.bootstrap_servers.clone(), &plan.kafka.properties)?];
        let mut clusters = vec![];
        for source in &plan.sources {
            clusters.push(match &source.kafka {
                None => SINKS,
                Some(kafka) => {
                    connections.push(Connection::new(kafka.bootstrap_servers.clone(), &kafka.properties)?);
                    connections.len() - 1
                }
            });
        }
        let workers = plan.parallelism.max(1);
        let memory = plan.state.memory_bytes.saturating_sub(cache_bytes(&plan.state));
        let host = host_name();
        Ok(Context {
            connections,
            clusters,
            settings: settings(&plan, transactional_id.clone(), until_end, requests),
            windowed: plan.windowed(),
            held_limit: ((memory / HELD_PART) as usize).max(1 << 20),
            table_share: (memory / TABLES_PART / workers as u64).max(64 << 10),
            memory_share: memory / workers as u64,
            namespace: namespace.to_string(),
            control_topic,
            group_id,
            transactional_id,
            instance: format!("{host}/{}", std::process::id()),
            host,
            started_ms: wall_clock_ms(),
            pulse: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            ends: Mutex::new(None),
            view: Arc::new(View::new()),
            history: Arc::default(),
            metrics,
            plan,
        })
    }

    /// The place of a source's cluster in [`connections`](Self::connections).
    pub fn cluster_of(&self, source: usize) -> usize {
        self.clusters[source]
    }

    /// The same for the source of that name.
    pub fn cluster_of_source(&self, name: &str) -> Option<usize> {
        let source = self.plan.sources.iter().position(|source| source.name == name)?;
        Some(self.cluster_of(source))
    }

    /// A claim with an id of its own.
    pub fn new_claim(&self) -> Claim {
        Claim {
            version: FORMAT_VERSION,
            claim: ClaimId(format!("{:032x}", rand::random::<u128>())),
            instance: self.instance.clone(),
            host: self.host.clone(),
            started_ms: self.started_ms,
            transactional_id: self.transactional_id.clone(),
        }
    }

    /// How long a transaction may stay open.
    pub fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.transaction_timeout_ms())
    }

    /// How long flushing or committing may take; the coordinator's own limit is as long.
    pub fn commit_timeout(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms)
    }

    /// A generation that no run of this shard has.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// The generation that the next eviction gets.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Continues with the generations of a snapshot.
    pub fn restore_generation(&self, next: u64) {
        self.generation.store(next, Ordering::Relaxed);
    }

    /// The ends of a bounded run: found once, and kept over restarts inside the process.
    pub fn ends<E>(&self, find: impl FnOnce() -> Result<Ends, E>) -> Result<Ends, E> {
        if !self.settings.until_end {
            return Ok(Ends::new());
        }
        let mut ends = self.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*ends {
            Some(ends) => Ok(ends.clone()),
            None => Ok(ends.insert(find()?).clone()),
        }
    }
}

/// What a pipeline is called in Kafka: from namespace and name, unless `kafka.ids` says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The consumer group.
    pub group_id: String,
    /// The transactional id of the shard: it ends with the shard's number.
    pub transactional_id: String,
    /// The topic of claims and decisions.
    pub control_topic: String,
}

impl Names {
    /// The names of a plan's pipeline.
    pub fn of(plan: &Plan, namespace: &str) -> Names {
        let name = format!("{namespace}.{}", plan.pipeline);
        let ids = plan.kafka.ids.clone();
        let prefix = ids.transactional_id.unwrap_or_else(|| name.clone());
        Names {
            transactional_id: format!("{prefix}.{SHARD}"),
            control_topic: ids.control_topic.unwrap_or_else(|| format!("{name}.control")),
            group_id: ids.group_id.unwrap_or(name),
        }
    }
}

/// Decisions among other records, or other records among decisions, would end badly.
fn check_control_topic(plan: &Plan, control_topic: &str) -> Result<(), KafkaError> {
    let written = plan.output_topics.iter().any(|output| output.name == control_topic);
    let named =
        |source: &Source| source.kafka.is_none() && source.topics.iter().any(|topic| topic == control_topic);
    if !written && !plan.sources.iter().any(named) {
        return Ok(());
    }
    let message = format!("`{control_topic}` is the pipeline's control topic: nothing else can be in it");
    Err(KafkaError::config("name the control topic", message))
}

/// Where the snapshots of a pipeline's one shard are; made if it is not there.
///
/// # Errors
/// Those of the file system.
pub fn open_storage(plan: &Plan, namespace: &str) -> Result<ShardStorage, StorageError> {
    ShardStorage::open(&plan.checkpoint.storage, namespace, &plan.pipeline, SHARD)
}

/// Milliseconds since the epoch, for what people read and for what the broker compares with its own clock; no decision of the
/// protocol depends on it.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// Nanoseconds since the first call, for what is measured.
pub fn monotonic_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown-host".to_string() } else { name.to_string() }
}

fn settings(plan: &Plan, transactional_id: String, until_end: bool, requests: Requests) -> Settings {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let checkpoint = &plan.checkpoint;
    let renamed = plan.sources.iter().filter_map(|source| Some((source.was.clone()?, source.name.clone())));
    Settings {
        transactional_id,
        sources: plan.sources.iter().map(|source| source.name.clone()).collect(),
        renamed: renamed.collect(),
        steps: plan.windowed_steps(),
        workers: plan.parallelism.max(1),
        interval_ms: ms(checkpoint.interval),
        min_pause_ms: ms(checkpoint.min_pause),
        max_records: checkpoint.max_records,
        max_bytes: checkpoint.max_bytes,
        timeout_ms: ms(checkpoint.timeout),
        tolerable_failures: checkpoint.tolerable_failures,
        retained: checkpoint.retained,
        until_end,
        restart: match plan.restart {
            plan::Restart::None => Restart::None,
            plan::Restart::Fixed { attempts, delay } => Restart::Fixed { attempts, delay_ms: ms(delay) },
            plan::Restart::Exponential { initial, max } => {
                Restart::Exponential { initial_ms: ms(initial), max_ms: ms(max) }
            }
            plan::Restart::FailureRate { failures, per, delay } => {
                Restart::FailureRate { failures, per_ms: ms(per), delay_ms: ms(delay) }
            }
        },
        requests,
    }
}
