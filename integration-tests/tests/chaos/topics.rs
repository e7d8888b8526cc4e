//! Topics that are deleted, grow, or become others of the same name under the daemon's hands.

use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Live, NewRecord, write_all};
use onceflow_integration_tests::verify::verify;

use crate::run::{Run, commits, drain};

#[test]
fn an_output_topic_deleted_under_load_stops_the_pipeline_and_is_named() {
    let run = Run::begin("deleted-output");
    // The dead letters' topic is written all the time, the output at the end of each window.
    let topics: [fn(&Scenario) -> String; 2] = [Scenario::output, Scenario::dead_letter];
    for which in &topics[..run.either(1, 2)] {
        let scenario = Scenario::new("deleted-output");
        scenario.create_topics(4);
        let file = scenario.write_windowed(&Settings::default());
        let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
        let mut daemon = Daemon::run(&scenario, &file);
        commits(&scenario, &mut daemon, 10);
        let topic = which(&scenario);
        scenario.kafka.delete_topic(&topic);
        assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log_end());
        let log = daemon.log();
        let last = log.lines().rfind(|line| line.contains("failed; a restart would fail again"));
        assert!(last.is_some_and(|line| line.contains(&topic)), "{topic} is not named: {log}");
        // Nothing is created behind the operator's back, and the next start says the same.
        assert_eq!(scenario.kafka.end_offset(&topic, 0), None);
        let mut daemon = Daemon::run(&scenario, &file);
        assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log_end());
        assert!(daemon.log().contains(&topic), "{}", daemon.log());
        // Once it is there again, work goes on.
        scenario.kafka.create_topic(&topic, 2);
        let mut daemon = Daemon::run(&scenario, &file);
        commits(&scenario, &mut daemon, 10);
        live.stop();
        daemon.stop();
        run.event(format_args!(
            "{topic} was deleted: named, refused while it was gone, work went on when it was back"
        ));
    }
    run.held_clearly("output and dead letter topic deleted under load, each named by the stop");
}

/// Lateness that nothing reaches: what a new partition holds is older than what the others have been read to.
fn patient() -> Settings {
    Settings { lateness: "1h", parallelism: 2, ..Settings::default() }
}

fn part(first: u64, partitions: std::ops::Range<i32>) -> impl Iterator<Item = NewRecord> {
    let count = partitions.len() as u64;
    let orders = Orders { seed: first, records: 4_000, late_one_in: 0, ..Orders::default() };
    orders.generate().enumerate().map(move |(i, record)| NewRecord {
        partition: partitions.start + (i as u64 % count) as i32,
        ..record
    })
}

/// Partitions are looked for at a start: one that is added while the daemon runs is read, from its beginning, after the next.
#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn a_partition_that_is_added_is_read_from_its_beginning() {
    let run = Run::begin("added-partition");
    let scenario = Scenario::new("added-partition");
    scenario.create_topics(3);
    let file = scenario.write_windowed(&patient());
    write_all(scenario.kafka, &scenario.input(), part(1, 0..3));
    let mut daemon = Daemon::run(&scenario, &file);
    drain(&scenario, &mut daemon);
    daemon.stop();

    scenario.kafka.grow_topic(&scenario.input(), 5);
    write_all(scenario.kafka, &scenario.input(), part(2, 0..5));
    let mut daemon = Daemon::run(&scenario, &file);
    drain(&scenario, &mut daemon);
    run.event("two partitions were added while it was stopped, and read");

    scenario.kafka.grow_topic(&scenario.input(), 6);
    write_all(scenario.kafka, &scenario.input(), part(3, 0..6));
    daemon.eventually_alive("to read the partitions that it knows", |_| {
        std::thread::sleep(Duration::from_millis(200));
        (scenario.decided_offsets()? == scenario.input_ends()[..5]).then_some(())
    });
    daemon.kill();
    // The start that finds the partition dies right after its claim, before it has committed where to begin, and once more after that.
    Daemon::run_armed(&scenario, &file, "after-claim").wait_for_self_kill();
    Daemon::run_armed(&scenario, &file, "after-epoch-zero").wait_for_self_kill();
    let mut daemon = Daemon::run(&scenario, &file);
    drain(&scenario, &mut daemon);
    run.event("another was added while it ran, and read after the next start");
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    let verdict = verify(&scenario, Window::TUMBLING);
    run.held(&scenario, &verdict, "partitions added while stopped and while running");
}

#[test]
fn a_source_topic_recreated_under_load_is_refused() {
    let run = Run::begin("recreated-source");
    let scenario = Scenario::new("recreated-source");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    let mut daemon = Daemon::run(&scenario, &file);
    commits(&scenario, &mut daemon, 3);
    scenario.kafka.delete_topic(&scenario.input());
    scenario.kafka.create_topic(&scenario.input(), 4);
    write_all(scenario.kafka, &scenario.input(), Orders { seed: 2, ..Orders::default() }.generate());
    // What it meets first is a matter of moments: no topic (78), offsets that are not there (65), or another topic (1).
    let code = daemon.wait().code();
    assert!(matches!(code, Some(1 | 65 | 78)), "{code:?}\n{}", daemon.log_end());
    assert!(daemon.log().contains(&scenario.input()), "{}", daemon.log());
    let output = scenario.committed(&scenario.output());
    for _ in 0..2 {
        let mut daemon = Daemon::run(&scenario, &file);
        assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log_end());
        let log = daemon.log();
        assert!(log.contains(&scenario.input()) && log.contains("created anew"), "{log}");
    }
    assert!(scenario.committed(&scenario.output()) == output, "a refused start wrote output");
    run.held_clearly(format_args!(
        "a source topic recreated under load: exit {code:?}, then refused by name"
    ));
}
