//! What Prometheus scrapes.
//!
//! Each pipeline has a registry of its own, whose metrics all carry `pipeline`; [`Metrics::encode`] puts them together, so
//! that every name appears once. Names and labels are an interface: dashboards and alerts are built on them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds in seconds of the checkpoint's histogram: 0.5 ms to 65 s, doubling.
const DURATION_BUCKETS: (f64, f64, usize) = (0.0005, 2.0, 18);

/// The states of a pipeline, as `onceflow_pipeline_state` and the API name them.
pub const PIPELINE_STATES: [&str; 7] =
    ["starting", "running", "restarting", "stopping", "stopped", "fenced", "failed"];

/// Metrics of the process and of its pipelines. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    process: Registry,
    config_last_reload_successful: IntGauge,
    pipelines: Mutex<BTreeMap<String, Registry>>,
}

impl Metrics {
    /// Metrics of the process, without a pipeline yet.
    pub fn new() -> prometheus::Result<Metrics> {
        let process = Registry::new();
        #[cfg(target_os = "linux")]
        process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let build = register(&process, |opts| IntGaugeVec::new(opts, &["version"]), BUILD_INFO)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let config_last_reload_successful = register(&process, IntGauge::with_opts, LAST_RELOAD)?;
        // What is running was read without a mistake.
        config_last_reload_successful.set(1);
        let shared = Shared { process, config_last_reload_successful, pipelines: Mutex::default() };
        Ok(Metrics { shared: Arc::new(shared) })
    }

    /// The settings and pipeline files were read again: with a mistake, or without.
    pub fn reloaded(&self, successful: bool) {
        self.shared.config_last_reload_successful.set(successful.into());
    }

    /// A pipeline is no more.
    pub fn remove(&self, pipeline: &str) {
        self.pipelines().remove(pipeline);
    }

    /// New metrics for a pipeline, all zero. Those of an earlier pipeline of that name go.
    pub fn pipeline(&self, name: &str) -> prometheus::Result<PipelineMetrics> {
        let labels = HashMap::from([("pipeline".to_owned(), name.to_owned())]);
        let registry = Registry::new_custom(None, Some(labels))?;
        let metrics = PipelineMetrics::register(&registry)?;
        self.pipelines().insert(name.to_owned(), registry);
        Ok(metrics)
    }

    /// Everything, in Prometheus' text format.
    pub fn encode(&self) -> prometheus::Result<String> {
        let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
        let gathered = self.pipelines().values().flat_map(Registry::gather).collect::<Vec<_>>();
        for mut family in gathered.into_iter().chain(self.shared.process.gather()) {
            match families.get_mut(family.name()) {
                Some(known) => known.mut_metric().extend(family.take_metric()),
                None => {
                    families.insert(family.name().to_owned(), family);
                }
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.into_values().collect::<Vec<_>>(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// What the metrics of the process are.
    #[cfg(test)]
    pub fn describe(&self) -> Vec<Description> {
        let gathered = self.shared.process.gather();
        let describe = |family: &MetricFamily| Description {
            name: family.name().to_owned(),
            kind: if family.get_field_type() == prometheus::proto::MetricType::COUNTER {
                "counter"
            } else {
                "gauge"
            },
            labels: family.get_metric()[0].get_label().iter().map(|label| label.name().to_owned()).collect(),
            help: family.help().to_owned(),
        };
        gathered.iter().map(describe).collect()
    }

    fn pipelines(&self) -> MutexGuard<'_, BTreeMap<String, Registry>> {
        self.shared.pipelines.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

const LAST_RELOAD: (&str, &str) = (
    "onceflow_config_last_reload_successful",
    "1 if settings and pipeline files were without a mistake when they were read last, 0 if that changed nothing.",
);

const BUILD_INFO: (&str, &str) = ("onceflow_build_info", "Always 1; the version is a label.");

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    make: impl FnOnce(Opts) -> prometheus::Result<M>,
    (name, help): (&str, &str),
) -> prometheus::Result<M> {
    let metric = make(Opts::new(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(opts: Opts, labels: &[&str]) -> prometheus::Result<HistogramVec> {
    let (start, factor, count) = DURATION_BUCKETS;
    let buckets = prometheus::exponential_buckets(start, factor, count)?;
    HistogramVec::new(HistogramOpts { common_opts: opts, buckets }, labels)
}

/// What a metric is, for the reference.
#[cfg(test)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its own labels.
    pub labels: Vec<String>,
    /// What it counts or measures.
    pub help: String,
}

#[cfg(test)]
impl Description {
    fn of(metric: &dyn prometheus::core::Collector) -> Description {
        use prometheus::proto::MetricType;

        let desc = metric.desc()[0];
        let kind = match metric.collect()[0].get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        };
        Description {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        }
    }
}

/// Declares the metrics of a pipeline once: field, type, labels, name and help.
macro_rules! pipeline_metrics {
    ($($field:ident: $type:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// Handles to the metrics of one pipeline. Cheap to clone; hot paths keep the handles of their labels
        /// (`with_label_values`), which are atomics.
        #[derive(Clone, Debug)]
        pub struct PipelineMetrics {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl PipelineMetrics {
            /// What they are.
            #[cfg(test)]
            pub fn describe(&self) -> Vec<Description> {
                vec![$(Description::of(&self.$field)),*]
            }

            fn register(registry: &Registry) -> prometheus::Result<PipelineMetrics> {
                Ok(PipelineMetrics { $($field: register(registry, $make, ($name, $help))?,)* })
            }
        }
    };
}

pipeline_metrics! {
    records_in: IntCounterVec = |o| IntCounterVec::new(o, &["source", "topic", "partition"]),
        "onceflow_records_in_total", "Records read, those read again after a restart too.";
    bytes_in: IntCounter = IntCounter::with_opts,
        "onceflow_bytes_in_total", "Bytes of keys and values of the records read.";
    records_filtered: IntCounterVec = |o| IntCounterVec::new(o, &["step"]),
        "onceflow_records_filtered_total", "Records that a step's condition left out.";
    duplicates: IntCounterVec = |o| IntCounterVec::new(o, &["step"]),
        "onceflow_duplicates_total", "Rows that a deduplication held back.";
    records_dropped: IntCounterVec = |o| IntCounterVec::new(o, &["step", "reason"]),
        "onceflow_records_dropped_total", "Records dropped because the pipeline says so, by reason.";
    late_records: IntCounterVec = |o| IntCounterVec::new(o, &["step"]),
        "onceflow_late_records_total", "Records whose windows were all closed.";
    dead_letters: IntCounterVec = |o| IntCounterVec::new(o, &["reason"]),
        "onceflow_dead_letters_total", "Records written to the dead letter topic, by reason.";
    records_out: IntCounterVec = |o| IntCounterVec::new(o, &["sink"]),
        "onceflow_records_out_total", "Records produced, those of aborted transactions too.";
    records_committed: IntCounterVec = |o| IntCounterVec::new(o, &["sink"]),
        "onceflow_records_committed_total", "Records produced in committed transactions.";
    source_lag_records: IntGauge = IntGauge::with_opts,
        "onceflow_source_lag_records", "Records between the positions and the ends of all partitions.";
    watermark_timestamp_seconds: GaugeVec = |o| GaugeVec::new(o, &["source", "topic", "partition"]),
        "onceflow_watermark_timestamp_seconds", "Watermark of a partition, seconds since the epoch.";
    watermark_lag_seconds: Gauge = Gauge::with_opts,
        "onceflow_watermark_lag_seconds", "Time from the pipeline's watermark to now, in seconds.";
    partition_idle: IntGaugeVec = |o| IntGaugeVec::new(o, &["source", "topic", "partition"]),
        "onceflow_partition_idle", "1 while a partition does not count for the watermark.";
    windows_open: IntGauge = IntGauge::with_opts,
        "onceflow_windows_open", "Panes that hold state.";
    worker_seconds: CounterVec = |o| CounterVec::new(o, &["state", "by"]),
        "onceflow_worker_seconds_total",
        "Time of the workers in seconds: busy by records, windows or a checkpoint, idle, blocked by the sink or a checkpoint.";
    stage_seconds: CounterVec = |o| CounterVec::new(o, &["kind", "stage"]),
        "onceflow_stage_seconds_total",
        "Busy time of the workers in seconds, by source (decoding), step and sink (encoding).";
    checkpoint_duration_seconds: HistogramVec = |o| histogram(o, &["phase"]),
        "onceflow_checkpoint_duration_seconds", "Duration of the phases of a checkpoint in seconds.";
    checkpoint_written_bytes: IntGauge = IntGauge::with_opts,
        "onceflow_checkpoint_written_bytes", "Bytes that the newest checkpoint wrote.";
    checkpoint_full_bytes: IntGauge = IntGauge::with_opts,
        "onceflow_checkpoint_full_bytes", "Bytes that the newest checkpoint names.";
    checkpoints: IntCounterVec = |o| IntCounterVec::new(o, &["result"]),
        "onceflow_checkpoints_total", "Checkpoints, by result.";
    checkpoint_last_success_timestamp_seconds: Gauge = Gauge::with_opts,
        "onceflow_checkpoint_last_success_timestamp_seconds",
        "When the newest checkpoint was confirmed, seconds since the epoch.";
    transactions: IntCounterVec = |o| IntCounterVec::new(o, &["result"]),
        "onceflow_transactions_total", "Transactions, by result.";
    transaction_open_seconds: Gauge = Gauge::with_opts,
        "onceflow_transaction_open_seconds", "Age of the open transaction in seconds, 0 without one.";
    output_buffer_bytes: IntGauge = IntGauge::with_opts,
        "onceflow_output_buffer_bytes", "Output that waits for the next transaction, in bytes.";
    state_bytes: IntGauge = IntGauge::with_opts,
        "onceflow_state_bytes", "State in memory and beyond it, in bytes.";
    restarts: IntCounterVec = |o| IntCounterVec::new(o, &["reason"]),
        "onceflow_restarts_total", "Restarts of the pipeline inside the process, by reason.";
    recovery_duration_seconds: Gauge = Gauge::with_opts,
        "onceflow_recovery_duration_seconds", "Duration of the newest start, from its begin to the first record, in seconds.";
    pipeline_state: IntGaugeVec = |o| IntGaugeVec::new(o, &["state"]),
        "onceflow_pipeline_state", "1 for the state that the pipeline is in, 0 for the others.";
}

impl PipelineMetrics {
    /// Sets the pipeline's state, one of [`PIPELINE_STATES`].
    pub fn set_state(&self, state: &str) {
        for known in PIPELINE_STATES {
            self.pipeline_state.with_label_values(&[known]).set(i64::from(known == state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_share_names_and_carry_their_label() {
        let metrics = Metrics::new().unwrap();
        let one = metrics.pipeline("one").unwrap();
        let two = metrics.pipeline("two").unwrap();
        one.records_in.with_label_values(&["orders", "orders", "3"]).inc_by(7);
        two.records_in.with_label_values(&["orders", "orders", "3"]).inc_by(8);
        two.checkpoint_duration_seconds.with_label_values(&["commit"]).observe(0.01);
        one.set_state("running");
        let text = metrics.encode().unwrap();
        for line in [
            r#"onceflow_records_in_total{partition="3",source="orders",topic="orders",pipeline="one"} 7"#,
            r#"onceflow_records_in_total{partition="3",source="orders",topic="orders",pipeline="two"} 8"#,
            r#"onceflow_checkpoint_duration_seconds_count{phase="commit",pipeline="two"} 1"#,
            r#"onceflow_pipeline_state{state="running",pipeline="one"} 1"#,
            r#"onceflow_pipeline_state{state="fenced",pipeline="one"} 0"#,
            r#"onceflow_state_bytes{pipeline="one"} 0"#,
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE onceflow_records_in_total counter").count(), 1);
        assert!(text.contains("onceflow_build_info{version="));
        assert!(text.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn a_pipeline_that_comes_again_starts_at_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.pipeline("one").unwrap().bytes_in.inc_by(5);
        metrics.pipeline("one").unwrap();
        assert!(metrics.encode().unwrap().contains("onceflow_bytes_in_total{pipeline=\"one\"} 0\n"));
    }
}
