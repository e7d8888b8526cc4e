//! Results that are larger than the output topic takes: they follow `on_error`, or stop the pipeline with a word about it. None is
//! silently absent.

use std::path::{Path, PathBuf};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Live, NewRecord, write_all};
use onceflow_integration_tests::verify::{verify, verify_with_refused};

use crate::run::{Run, commits, drain};

/// Bytes that the output topic takes in a batch.
const SMALL: &str = "12000";
/// The length of a name whose rows do not fit.
const LONG: usize = 15_000;

/// Every hundredth user gets a name too long for the output.
fn lengthened(record: NewRecord) -> NewRecord {
    let key = String::from_utf8(record.key.unwrap()).unwrap();
    let number: u64 = key.trim_start_matches("user-").parse().unwrap();
    let name = if number % 100 == 7 { format!("{key}{}", "x".repeat(LONG)) } else { key.clone() };
    // A broken order may have lost its end, but it is replaced alike: what counts is that it stays broken.
    let value = record.value.map(|value| {
        let text = String::from_utf8_lossy(&value);
        text.replacen(&format!("\"{key}\""), &format!("\"{name}\""), 1).into_bytes()
    });
    NewRecord { key: Some(name.into_bytes()), value, ..record }
}

fn is_too_long(user: &str) -> bool {
    user.len() > LONG
}

fn prepare(name: &str, limit: &str, on_error: &'static str) -> (Scenario, PathBuf) {
    let scenario = Scenario::new(name);
    scenario.kafka.create_topic(&scenario.input(), 4);
    scenario.kafka.create_topic_with(&scenario.output(), 2, &[("max.message.bytes", limit)]);
    scenario.kafka.create_topic(&scenario.dead_letter(), 1);
    let file = scenario.write_windowed(&Settings { parallelism: 2, on_error, ..Settings::default() });
    (scenario, file)
}

/// It must end with 65 and say which topic takes no more than what.
fn stops_clearly(scenario: &Scenario, file: &Path) {
    let mut daemon = Daemon::run(scenario, file);
    assert_eq!(daemon.wait().code(), Some(65), "{}", daemon.log_end());
    let log = daemon.log();
    assert!(log.contains("failed; a restart would fail again"), "{log}");
    assert!(log.contains("totals") || log.contains(&scenario.output()), "it does not say where: {log}");
}

#[test]
fn a_row_too_large_for_the_topic_becomes_a_dead_letter() {
    let mut run = Run::begin("too-large");
    let (scenario, file) = prepare("too-large", SMALL, "dead_letter");
    let orders = Orders { seed: run.rng.bits(), ..Orders::default() };
    let live = Live::start(scenario.kafka, &scenario.input(), 1_000, orders.endless().map(lengthened));
    let kills = run.either(6, 40);
    for kill in 0..kills {
        if kill % 2 == 0 {
            let mut daemon = Daemon::run(&scenario, &file);
            commits(&scenario, &mut daemon, 10);
            std::thread::sleep(run.moment(300));
            daemon.kill();
        } else {
            Daemon::run_armed(&scenario, &file, "after-decision:12").wait_for_self_kill();
        }
    }
    run.event(format_args!("killed {kills} times"));
    live.stop();
    let mut daemon = Daemon::run(&scenario, &file);
    drain(&scenario, &mut daemon);
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    let (verdict, refused) = verify_with_refused(&scenario, Window::TUMBLING, is_too_long);
    assert!(refused > 10, "{refused}");
    run.held(
        &scenario,
        &verdict,
        format_args!("{kills} kills, {refused} rows too large for the output, each a dead letter once"),
    );
}

#[test]
fn a_row_too_large_for_the_topic_stops_a_pipeline_that_must_not_lose_any() {
    let run = Run::begin("too-large-fail");
    let (scenario, file) = prepare("too-large-fail", SMALL, "fail");
    let orders = Orders { broken_one_in: 0, ..Orders::default() };
    write_all(scenario.kafka, &scenario.input(), orders.generate().map(lengthened));
    // It is as clear the second time: no restart makes the row any smaller.
    stops_clearly(&scenario, &file);
    stops_clearly(&scenario, &file);
    scenario.kafka.configure_topic(&scenario.output(), "max.message.bytes", "1048588");
    let mut daemon = Daemon::run(&scenario, &file);
    drain(&scenario, &mut daemon);
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    let verdict = verify(&scenario, Window::TUMBLING);
    run.held(
        &scenario,
        &verdict,
        "two clear stops at a row too large, and everything once the topic took it",
    );
}

/// The daemon learns a topic's limits when it starts. If someone lowers them under it, the broker's refusal stops it, and the next
/// start knows.
#[test]
fn a_limit_lowered_under_load_stops_clearly_and_the_next_start_knows() {
    let run = Run::begin("lowered-limit");
    let (scenario, file) = prepare("lowered-limit", "1048588", "dead_letter");
    let live =
        Live::start(scenario.kafka, &scenario.input(), 1_000, Orders::default().endless().map(lengthened));
    let mut daemon = Daemon::run(&scenario, &file);
    commits(&scenario, &mut daemon, 20);
    scenario.kafka.configure_topic(&scenario.output(), "max.message.bytes", SMALL);
    assert_eq!(daemon.wait().code(), Some(65), "{}", daemon.log_end());
    let log = daemon.log();
    assert!(log.contains(&scenario.output()), "it does not say which topic: {log}");
    run.event("stopped with 65; starting again");
    let mut daemon = Daemon::run(&scenario, &file);
    commits(&scenario, &mut daemon, 20);
    live.stop();
    drain(&scenario, &mut daemon);
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    // Rows of before the change fitted.
    let (verdict, refused) = verify_with_refused(&scenario, Window::TUMBLING, is_too_long);
    assert!(refused > 0);
    run.held(&scenario, &verdict, format_args!("one clear stop, then {refused} rows as dead letters"));
}
