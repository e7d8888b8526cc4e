//! Metrics, from their registration.

use std::collections::BTreeSet;

use super::cell;
use crate::metrics::{Description, Metrics, PIPELINE_STATES};

fn all() -> (Vec<Description>, Vec<Description>) {
    let metrics = Metrics::new().unwrap();
    (metrics.pipeline("any").unwrap().describe(), metrics.describe())
}

/// Names of all metrics of ours.
pub fn names() -> BTreeSet<String> {
    let (pipeline, process) = all();
    pipeline.into_iter().chain(process).map(|metric| metric.name).collect()
}

fn table(metrics: &[Description]) -> String {
    let row = |metric: &Description| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let Description { name, kind, help, .. } = metric;
        format!("| `{name}` | {kind} | {} | {} |\n", labels.join(", "), cell(help))
    };
    let rows: String = metrics.iter().map(row).collect();
    format!("| name | type | labels | is |\n| --- | --- | --- | --- |\n{rows}")
}

pub(super) fn page() -> String {
    let (pipeline, process) = all();
    let states = PIPELINE_STATES.map(|state| format!("`{state}`")).join(", ");
    format!(
        "# Metrics\n\n\
         Served as Prometheus' text format at `/metrics`, without a token. What to alert on is in [monitoring](../monitoring.md).\n\n\
         ## Of a pipeline\n\n\
         All of them carry the label `pipeline` as well. Counters begin at zero when the process starts, or the pipeline anew.\n\n\
         {}\n\
         The states of `onceflow_pipeline_state` are {states}: exactly one of them is 1.\n\n\
         ## Of the process\n\n\
         {}",
        table(&pipeline),
        table(&process)
    )
}
