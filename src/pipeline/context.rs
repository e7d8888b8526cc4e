//! What every thread of a pipeline may know: its plan, its names, its limits. Nothing here changes while the pipeline runs, apart
//! from counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onceflow_engine::plan::{self, Plan, Stream};
use onceflow_protocol::coordinator::{Restart, Settings, SourceTopics, TimeInput, WindowedStep};
use onceflow_protocol::{Claim, ClaimId, FORMAT_VERSION, NextOffset};

use crate::kafka::{Connection, KafkaError};
use crate::metrics::PipelineMetrics;
use crate::state::cache_bytes;

/// The only shard of a single instance.
pub const SHARD: u32 = 0;

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
    /// `{namespace}.{pipeline}.{shard}`.
    pub transactional_id: String,
    /// `{namespace}.{pipeline}`.
    pub group_id: String,
    /// `{namespace}.{pipeline}.control`.
    pub control_topic: String,
    /// How to reach the cluster.
    pub connection: Connection,
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
    instance: String,
    host: String,
    started_ms: i64,
    generation: AtomicU64,
    /// Ends of a bounded run, by (topic, partition), as they were when the command was started.
    ends: Mutex<Option<BTreeMap<(String, i32), NextOffset>>>,
}

impl Context {
    /// The context of a pipeline.
    ///
    /// # Errors
    /// `Config` for properties that librdkafka refuses.
    pub fn new(
        plan: Arc<Plan>,
        namespace: &str,
        until_end: bool,
        metrics: Arc<PipelineMetrics>,
    ) -> Result<Context, KafkaError> {
        let group_id = format!("{namespace}.{}", plan.pipeline);
        let transactional_id = format!("{group_id}.{SHARD}");
        let workers = plan.parallelism.max(1);
        let memory = plan.state.memory_bytes.saturating_sub(cache_bytes(&plan.state));
        let host = host_name();
        Ok(Context {
            connection: Connection::new(plan.kafka.bootstrap_servers.clone(), &plan.kafka.properties)?,
            settings: settings(&plan, transactional_id.clone(), until_end),
            windowed: windowed_steps(&plan),
            held_limit: ((memory / HELD_PART) as usize).max(1 << 20),
            table_share: (memory / TABLES_PART / workers as u64).max(64 << 10),
            memory_share: memory / workers as u64,
            namespace: namespace.to_string(),
            control_topic: format!("{group_id}.control"),
            group_id,
            transactional_id,
            instance: format!("{host}/{}", std::process::id()),
            host,
            started_ms: wall_clock_ms(),
            pulse: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            ends: Mutex::new(None),
            metrics,
            plan,
        })
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
    pub fn ends<E>(
        &self,
        find: impl FnOnce() -> Result<BTreeMap<(String, i32), NextOffset>, E>,
    ) -> Result<BTreeMap<(String, i32), NextOffset>, E> {
        if !self.settings.until_end {
            return Ok(BTreeMap::new());
        }
        let mut ends = self.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match &*ends {
            Some(ends) => Ok(ends.clone()),
            None => Ok(ends.insert(find()?).clone()),
        }
    }
}

/// Milliseconds since the epoch, for what people read and for what the broker compares with its own clock; no decision of the
/// protocol depends on it.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// The name of this machine.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown-host".to_string() } else { name.to_string() }
}

fn windowed_steps(plan: &Plan) -> Vec<usize> {
    (0..plan.steps.len()).filter(|step| plan.steps[*step].window.is_some()).collect()
}

fn settings(plan: &Plan, transactional_id: String, until_end: bool) -> Settings {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let checkpoint = &plan.checkpoint;
    let windowed = windowed_steps(plan);
    let steps = windowed.iter().map(|step| WindowedStep {
        inputs: time_inputs(plan, &plan.steps[*step].inputs, &windowed),
        lateness_ms: plan.steps[*step].window.as_ref().map_or(0, |window| window.lateness_ms),
    });
    let sources = plan.sources.iter();
    let sources =
        sources.map(|source| SourceTopics { name: source.name.clone(), topics: source.topics.clone() });
    Settings {
        transactional_id,
        sources: sources.collect(),
        steps: steps.collect(),
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
    }
}

/// What the time of these streams depends on: sources, and windowed steps; steps without a window pass time on.
fn time_inputs(plan: &Plan, streams: &[Stream], windowed: &[usize]) -> Vec<TimeInput> {
    let mut inputs = vec![];
    for stream in streams {
        match *stream {
            Stream::Source(source) => inputs.push(TimeInput::Source(source)),
            Stream::Step(step) => match windowed.iter().position(|windowed| *windowed == step) {
                Some(number) => inputs.push(TimeInput::Step(number)),
                None => inputs.extend(time_inputs(plan, &plan.steps[step].inputs, windowed)),
            },
        }
    }
    inputs.sort();
    inputs.dedup();
    inputs
}
