//! Two instances of one pipeline: the younger one works, the older one notices, stays up and says by whom.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::Live;
use onceflow_integration_tests::verify::verify;

/// The claim id of the instance that claimed last.
fn newest_claim(scenario: &Scenario) -> serde_json::Value {
    let records = scenario.committed(&scenario.control());
    records.iter().rfind(|record| record.key.as_deref() == Some(b"claim")).expect("no claim").json()
}

fn assert_fenced(daemon: &mut Daemon, by: &serde_json::Value) {
    let answer = daemon.eventually_alive("to be fenced", |daemon| {
        daemon.get("/readyz").filter(|answer| answer.status != 200 && answer.body.contains(" fenced"))
    });
    assert_eq!(answer.status, 503);
    let instance = by["instance"].as_str().unwrap_or_else(|| panic!("a claim without instance: {by}"));
    assert!(answer.body.contains(instance), "{:?} does not name {instance}", answer.body);
    assert_eq!(daemon.metric("onceflow_pipeline_state", &["state=\"fenced\""]), Some(1.0));
    assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200));
}

#[test]
fn the_second_instance_works_and_the_first_stays_up_fenced() {
    let scenario = Scenario::new("fenced");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
    let mut first = Daemon::run(&scenario, &file);
    first.wait_until_ready();
    let mut second = Daemon::run(&scenario, &file);
    second.wait_until_ready();
    assert_fenced(&mut first, &newest_claim(&scenario));
    live.stop();
    // No war: the second one is still the owner, and the first one still there.
    assert_eq!(second.get("/readyz").map(|answer| answer.status), Some(200));
    first.stop();
    second.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}

#[test]
fn a_zombie_that_wakes_up_does_no_harm() {
    let scenario = Scenario::new("zombie");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { parallelism: 2, ..Settings::default() });
    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
    let mut zombie = Daemon::run(&scenario, &file);
    zombie.eventually_alive("to commit", |_| {
        scenario.kafka.end_offset(&scenario.control(), 0).filter(|end| *end >= 8)
    });
    zombie.signal(libc::SIGSTOP);
    let mut successor = Daemon::run(&scenario, &file);
    successor.wait_until_ready();
    let claimed = scenario.kafka.end_offset(&scenario.control(), 0).unwrap();
    successor.eventually_alive("to commit", |_| {
        scenario.kafka.end_offset(&scenario.control(), 0).filter(|end| *end >= claimed + 6)
    });
    zombie.signal(libc::SIGCONT);
    assert_fenced(&mut zombie, &newest_claim(&scenario));
    live.stop();
    assert_eq!(successor.get("/readyz").map(|answer| answer.status), Some(200));
    zombie.stop();
    successor.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}
