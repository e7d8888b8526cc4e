//! `validate`, and the exit codes of what cannot start.

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::scenario::{Scenario, Settings};

#[test]
fn a_good_file_is_valid_without_a_network() {
    let scenario = Scenario::new("valid");
    let file = scenario.write_windowed(&Settings::default());
    let output = onceflow().arg("validate").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let scenario = Scenario::new("invalid");
    let file = scenario.write_windowed(&Settings::default());
    let text = std::fs::read_to_string(&file).unwrap();
    let mistakes = [
        ("where: amount > 0", "where: amuont > 0"),
        ("window: { tumbling: 60000ms }", "window: { tumbling: sixty }"),
        ("delay: 5s", "dealy: 5s"),
        ("from: paid\n", "from: payd\n"),
    ];
    let broken = mistakes.iter().fold(text, |text, (right, wrong)| {
        assert!(text.contains(right), "{right}");
        text.replacen(right, wrong, 1)
    });
    std::fs::write(&file, &broken).unwrap();
    for command in [vec!["validate"], vec!["run"]] {
        let output = onceflow().args(&command).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{command:?}");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        for (_, wrong) in mistakes {
            let line =
                1 + broken.lines().position(|line| wrong.lines().all(|part| line.contains(part))).unwrap();
            assert!(
                said.contains(&format!("pipeline.yaml:{line}:")),
                "{wrong} in line {line} is not in: {said}"
            );
        }
    }
}

#[test]
fn properties_that_the_guarantee_needs_are_refused() {
    let scenario = Scenario::new("property");
    let file = scenario.write_windowed(&Settings::default());
    let text = std::fs::read_to_string(&file).unwrap();
    let bootstrap = format!("\"{}\"", scenario.kafka.bootstrap());
    for property in ["enable.idempotence", "transactional.id", "isolation.level", "acks"] {
        let with = format!("{bootstrap}, properties: {{ {property}: \"all\" }}");
        std::fs::write(&file, text.replace(&bootstrap, &with)).unwrap();
        let output = onceflow().arg("validate").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(property), "{said}");
    }
}

#[test]
fn a_missing_output_topic_is_a_configuration_error() {
    let scenario = Scenario::new("no-topic");
    scenario.kafka.create_topic(&scenario.input(), 1);
    let file = scenario.write_windowed(&Settings::default());
    let mut daemon = Daemon::run(&scenario, &file);
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log_end());
    assert!(daemon.log().contains(&scenario.output()), "{}", daemon.log_end());
}

#[test]
fn a_file_that_is_not_there_is_a_configuration_error() {
    let scenario = Scenario::new("no-file");
    let output = onceflow().arg("run").arg(scenario.dir().join("absent.yaml")).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.yaml"));
}
