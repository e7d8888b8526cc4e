//! Disorder: within the delay nothing is late; far beyond it everything that comes after the first frontier is.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::{BASE, Order, Orders};
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, write_all};
use onceflow_integration_tests::verify::{dead_letters, verify};

#[test]
fn within_the_delay_nothing_is_late() {
    for (name, window, parallelism) in [
        ("in-delay-tumbling", Window::TUMBLING, 1),
        ("in-delay-hopping", Window::HOPPING, 2),
        ("in-delay-sessions", Window::SESSIONS, 2),
    ] {
        let scenario = Scenario::new(name);
        scenario.create_topics(4);
        // The whole of the delay is used, and there is no allowed lateness behind it to forgive a mistake.
        let orders = Orders { disorder_ms: 5_000, late_one_in: 0, step_ms: 60, ..Orders::default() };
        let file = scenario.write_windowed(&Settings {
            window,
            parallelism,
            lateness: "0s",
            interval: "20ms",
            ..Settings::default()
        });
        write_all(scenario.kafka, &scenario.input(), orders.generate());
        Daemon::run_until_end(&scenario, &file);
        assert_eq!(verify(&scenario, window).late, 0);
    }
}

#[test]
fn far_beyond_it_all_that_follow_a_frontier_are_late() {
    let scenario = Scenario::new("far-late");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    let (first, second) = Orders { late_one_in: 50, ..Orders::default() }.split(10_000);
    write_all(scenario.kafka, &scenario.input(), first);
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to read the first part", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records >= 10_000.0)
    });
    // The final checkpoint moves the frontier over the first part: from here on nothing dated hours before is accepted.
    daemon.stop();
    let boundary: Vec<i64> =
        (0..4).map(|p| scenario.kafka.end_offset(&scenario.input(), p).unwrap()).collect();
    write_all(scenario.kafka, &scenario.input(), second);
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);

    let input = scenario.committed(&scenario.input());
    let letters = dead_letters(&scenario, &input);
    let mut checked = 0;
    for record in input.iter().filter(|record| record.offset >= boundary[record.partition as usize]) {
        let order = Order::parse(record.value.as_deref().unwrap());
        if order.is_some_and(|order| order.is_paid() && order.ts < BASE) {
            let reason = letters.get(&(record.partition, record.offset)).map(String::as_str);
            assert_eq!(reason, Some("late"), "at {}/{}", record.partition, record.offset);
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

/// A partition that holds eighty minutes, beside others that hold one so far, goes no further than `max_drift` and what it had fetched at once.
#[test]
fn a_partition_that_is_ahead_waits_for_the_others() {
    let scenario = Scenario::new("drift");
    scenario.create_topics(4);
    let settings = Settings { lateness: "0s", ..Settings::default() };
    let file = scenario.write_windowed(&settings);
    let text = std::fs::read_to_string(&file).unwrap();
    let idle = format!("idle_after: {}", settings.idle_after);
    assert!(text.contains(&idle));
    let file = scenario.write("drift.yaml", &text.replace(&idle, &format!("{idle}, max_drift: 1m")));
    // More than a client fetches ahead.
    let orders = Orders { records: 160_000, late_one_in: 0, ..Orders::default() };
    let is_first = |order: &NewRecord| order.partition == 0 || order.timestamp < BASE + 60_000;
    write_all(scenario.kafka, &scenario.input(), orders.generate().filter(is_first));
    let ends = scenario.input_ends();
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to read the first minute", |_| {
        scenario.decided_offsets().filter(|offsets| offsets[1..] == ends[1..])
    });
    // As long as the others stand still, it does.
    let mut last = 0;
    let stands_at = daemon.eventually_alive("to stand still", |_| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let now = scenario.decided_offsets()?[0];
        (std::mem::replace(&mut last, now) == now).then_some(now)
    });
    assert!((1..ends[0] / 10 * 8).contains(&stands_at), "{stands_at} of {}", ends[0]);
    write_all(scenario.kafka, &scenario.input(), orders.generate().filter(|order| !is_first(order)));
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(verify(&scenario, Window::TUMBLING).late, 0);
}
