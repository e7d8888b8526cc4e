//! The broker dies, and comes back: the pipeline goes on by itself.

use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::kafka::Kafka;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::Live;
use onceflow_integration_tests::verify::verify;

#[test]
fn a_broker_that_is_killed_and_restarted_costs_nothing_but_time() {
    // Leaked, as scenarios keep their broker for the life of the process; the guard ends it with the process.
    let kafka: &'static Kafka = Box::leak(Box::new(Kafka::start()));
    let scenario = Scenario::on(kafka, "broker");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { parallelism: 2, ..Settings::default() });
    let live = Live::start(kafka, &scenario.input(), 1_500, Orders::default().endless());
    let mut daemon = Daemon::run(&scenario, &file);
    for _ in 0..2 {
        let before = kafka.end_offset(&scenario.control(), 0).unwrap_or(0);
        daemon.eventually_alive("to commit", |_| {
            kafka.end_offset(&scenario.control(), 0).filter(|end| *end >= before + 6)
        });
        kafka.kill();
        std::thread::sleep(Duration::from_millis(500));
        kafka.restart();
    }
    live.stop();
    daemon.wait_until_ready();
    // What the topic holds counts: a producer that loses its broker may write a record twice without knowing.
    daemon.eventually_alive("to read everything", |_| {
        (scenario.decided_offsets()? == scenario.input_ends()).then_some(())
    });
    daemon.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
    kafka.kill();
}
