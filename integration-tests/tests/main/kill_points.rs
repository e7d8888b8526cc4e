//! Death at the moments that matter, by the kill points that the environment arms in the shipped binary.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::Live;
use onceflow_integration_tests::verify::verify;

/// Each start is armed with the next of `points`, and dies there; a last one runs to the end.
fn check(name: &str, points: &[&str]) {
    let scenario = Scenario::new(name);
    scenario.create_topics(4);
    let settings = Settings { interval: "50ms", parallelism: 2, ..Settings::default() };
    let file = scenario.write_windowed(&settings);
    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
    Daemon::die_at(&scenario, &file, points);
    live.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}

#[test]
fn in_the_first_start() {
    check("first-start", &["after-claim", "after-claim", "after-epoch-zero", "after-claim"]);
}

#[test]
fn before_and_after_the_snapshot() {
    check("snapshot", &["before-snapshot:2", "after-snapshot", "after-snapshot:3", "before-snapshot"]);
}

#[test]
fn between_the_decision_and_its_commit() {
    check("decision", &["after-decision", "after-decision:2", "after-decision:4"]);
}

#[test]
fn between_the_commit_and_its_confirmation() {
    check("commit", &["after-commit", "after-commit:2", "after-commit:4", "after-claim"]);
}

#[test]
fn around_the_retiring_of_old_snapshots() {
    check("retire", &["after-confirmed:2", "before-retire", "before-retire:3", "after-confirmed"]);
}
