//! Probes and metrics.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;

/// What dashboards and alerts are built on: renaming one breaks them. Those that only trouble counts up are left out.
const METRICS: &[&str] = &[
    "onceflow_records_in_total",
    "onceflow_bytes_in_total",
    "onceflow_records_filtered_total",
    "onceflow_late_records_total",
    "onceflow_dead_letters_total",
    "onceflow_records_out_total",
    "onceflow_records_committed_total",
    "onceflow_source_lag_records",
    "onceflow_watermark_timestamp_seconds",
    "onceflow_watermark_lag_seconds",
    "onceflow_partition_idle",
    "onceflow_windows_open",
    "onceflow_worker_seconds_total",
    "onceflow_checkpoint_duration_seconds",
    "onceflow_checkpoint_written_bytes",
    "onceflow_checkpoint_full_bytes",
    "onceflow_checkpoints_total",
    "onceflow_checkpoint_last_success_timestamp_seconds",
    "onceflow_transactions_total",
    "onceflow_transaction_open_seconds",
    "onceflow_output_buffer_bytes",
    "onceflow_state_bytes",
    "onceflow_recovery_duration_seconds",
    "onceflow_pipeline_state",
    "onceflow_build_info",
    "process_cpu_seconds_total",
];

#[test]
fn probes_and_metrics_tell_the_truth() {
    let scenario = Scenario::new("observed");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    daemon.eventually_alive("to count everything", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records == 20_000.0)
    });
    daemon.eventually_alive("to have no lag", |daemon| {
        daemon.metric("onceflow_source_lag_records", &[]).filter(|lag| *lag == 0.0)
    });
    assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200));
    assert_eq!(daemon.get("/nothing-here").map(|answer| answer.status), Some(404));

    assert_eq!(daemon.metric("onceflow_pipeline_state", &["state=\"running\""]), Some(1.0));
    assert_eq!(daemon.metric("onceflow_pipeline_state", &[]), Some(1.0), "one state at a time");
    let pipeline = format!("pipeline=\"{}\"", scenario.name);
    assert_eq!(daemon.metric("onceflow_records_in_total", &[&pipeline, "source=\"orders\""]), Some(20_000.0));

    let committed = daemon.eventually_alive("to commit rows", |daemon| {
        daemon.metric("onceflow_records_committed_total", &["sink=\"totals\""]).filter(|rows| *rows > 0.0)
    });
    let metrics = daemon.get("/metrics").unwrap();
    assert_eq!(metrics.status, 200);
    let missing: Vec<&&str> =
        METRICS.iter().filter(|name| !metrics.body.contains(&format!("# TYPE {name} "))).collect();
    assert_eq!(missing, [&""; 0], "{}", metrics.body);
    daemon.stop();
    assert!(scenario.committed(&scenario.output()).len() as f64 >= committed);
}

#[test]
fn a_pipeline_that_waits_for_its_broker_is_alive_but_not_ready() {
    let scenario = Scenario::new("no-broker");
    scenario.create_topics(1);
    let file = scenario.write_windowed(&Settings::default());
    let text = std::fs::read_to_string(&file).unwrap();
    let nowhere = format!("127.0.0.1:{}", onceflow_integration_tests::http::free_port());
    std::fs::write(&file, text.replace(scenario.kafka.bootstrap(), &nowhere)).unwrap();
    let mut daemon = Daemon::run(&scenario, &file);
    let answer = daemon.eventually_alive("to answer", |daemon| daemon.get("/healthz"));
    assert_eq!(answer.status, 200);
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(503));
}
