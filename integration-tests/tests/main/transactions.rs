//! Input that was itself written in transactions: aborted records do not exist, markers leave gaps that are no gaps.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Isolation, Producer, read_all};
use onceflow_integration_tests::verify::verify;

#[test]
fn aborted_input_is_never_counted() {
    let scenario = Scenario::new("aborted");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    let producer = Producer::transactional(scenario.kafka, &scenario.input(), &scenario.name);
    let records: Vec<_> = Orders { records: 6_000, late_one_in: 0, ..Orders::default() }.generate().collect();
    for (index, chunk) in records.chunks(500).enumerate() {
        chunk.iter().for_each(|record| producer.send(record));
        // The last transaction is an aborted one, so that the run has to end behind a marker.
        if index % 3 == 2 { producer.abort() } else { producer.commit() }
    }
    Daemon::run_until_end(&scenario, &file);
    let verdict = verify(&scenario, Window::TUMBLING);
    assert_eq!(verdict.input, 4_000);
    assert_eq!(read_all(scenario.kafka, &scenario.input(), Isolation::Uncommitted).len(), 6_000);
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(verify(&scenario, Window::TUMBLING), verdict);
}
