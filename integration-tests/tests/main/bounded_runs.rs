//! `--until-end`, and the orderly stop.

use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;
use onceflow_integration_tests::verify::verify;

#[test]
fn a_second_run_to_the_end_emits_nothing() {
    let scenario = Scenario::new("twice");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    Daemon::run_until_end(&scenario, &file);
    let first = verify(&scenario, Window::TUMBLING);
    assert!(first.rows > 1_000, "{first:?}");
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(verify(&scenario, Window::TUMBLING), first);
}

#[test]
fn an_empty_topic_ends_at_once() {
    let scenario = Scenario::new("empty");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings::default());
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(scenario.committed(&scenario.output()), []);
}

#[test]
fn windows_of_several_runs_add_up() {
    let scenario = Scenario::new("continued");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { window: Window::HOPPING, ..Settings::default() });
    // The first part is stopped in an orderly way, with windows open; their counts must go on in the second.
    let (first, second) = Orders { late_one_in: 0, ..Orders::default() }.split(9_000);
    write_all(scenario.kafka, &scenario.input(), first);
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to read the first part", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records >= 9_000.0)
    });
    daemon.stop();
    let decided = scenario.decisions().last().unwrap()["counts"]["in"].as_u64();
    assert_eq!(decided, Some(9_000), "the stop takes a final checkpoint");
    write_all(scenario.kafka, &scenario.input(), second);
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::HOPPING);
}

#[test]
fn a_stop_while_nothing_happens_is_quick() {
    let scenario = Scenario::new("idle-stop");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings::default());
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    let start = std::time::Instant::now();
    daemon.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
