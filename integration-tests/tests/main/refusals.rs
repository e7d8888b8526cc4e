//! Starts that cannot be right are refused, in words that say what is wrong, and nothing is written.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;
use onceflow_integration_tests::verify::verify;

const REFUSED: Option<i32> = Some(1);

/// A pipeline that has worked through half of its input and was stopped, with windows open.
fn half_done(
    name: &str,
) -> (Scenario, std::path::PathBuf, Vec<onceflow_integration_tests::topic::NewRecord>) {
    let scenario = Scenario::new(name);
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings::default());
    let (first, second) = Orders::default().split(10_000);
    write_all(scenario.kafka, &scenario.input(), first);
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to read the first part", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records >= 10_000.0)
    });
    daemon.stop();
    (scenario, file, second)
}

/// Starts it, expects the refusal, and returns what it said.
fn refusal(scenario: &Scenario, file: &std::path::Path) -> String {
    let output = scenario.committed(&scenario.output());
    let mut daemon = Daemon::start(scenario, file, &["--until-end"], &[]);
    assert_eq!(daemon.wait().code(), REFUSED, "{}", daemon.log_end());
    assert!(scenario.committed(&scenario.output()) == output, "a refused start wrote output");
    daemon.log()
}

#[test]
fn a_damaged_state_file_is_named() {
    let (scenario, file, _) = half_done("damaged");
    let newest = scenario.files("snapshots").pop().expect("no snapshot");
    let whole = std::fs::read(&newest).unwrap();
    // One bit, anywhere: in the header, in the rows, in the footer.
    for position in [0, 9, whole.len() / 3, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x10;
        std::fs::write(&newest, bytes).unwrap();
        let said = refusal(&scenario, &file);
        assert!(said.contains(newest.file_name().unwrap().to_str().unwrap()), "byte {position}: {said}");
    }
    std::fs::write(&newest, &whole[..whole.len() - 1]).unwrap();
    refusal(&scenario, &file);
    // Undamaged again, it goes on as if nothing had been.
    std::fs::write(&newest, whole).unwrap();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}

#[test]
fn a_missing_state_file_is_named() {
    let (scenario, file, _) = half_done("missing");
    let newest = scenario.files("snapshots").pop().expect("no snapshot");
    std::fs::remove_file(&newest).unwrap();
    let said = refusal(&scenario, &file);
    assert!(said.contains(newest.file_name().unwrap().to_str().unwrap()), "{said}");
}

#[test]
fn a_deleted_control_topic_is_no_first_start() {
    let (scenario, file, _) = half_done("no-control");
    scenario.kafka.delete_topic(&scenario.control());
    let said = refusal(&scenario, &file);
    assert!(said.contains(&scenario.control()), "{said}");
}

#[test]
fn an_offset_out_of_retention_is_refused_with_the_numbers() {
    let (scenario, file, second) = half_done("retention");
    let position = scenario.kafka.end_offset(&scenario.input(), 2).unwrap();
    write_all(scenario.kafka, &scenario.input(), second);
    scenario.kafka.delete_records(&scenario.input(), 2, position + 7);
    let said = refusal(&scenario, &file);
    for number in [position, position + 7] {
        assert!(said.contains(&number.to_string()), "{number} is not in: {said}");
    }
}

#[test]
fn a_recreated_input_topic_is_refused() {
    let (scenario, file, second) = half_done("recreated");
    scenario.kafka.delete_topic(&scenario.input());
    scenario.kafka.create_topic(&scenario.input(), 4);
    write_all(scenario.kafka, &scenario.input(), second);
    let said = refusal(&scenario, &file);
    assert!(said.contains(&scenario.input()), "{said}");
}
