//! `validate --connect` against a real cluster, and what else commands say about a file.

use std::process::Output;

use onceflow_integration_tests::daemon::onceflow;
use onceflow_integration_tests::http::free_port;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use serde_json::Value;

fn validate(scenario: &Scenario, arguments: &[&str]) -> Output {
    onceflow().arg("validate").args(arguments).arg(scenario.dir().join("pipeline.yaml")).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_cluster_that_has_everything_passes() {
    let scenario = Scenario::new("connected");
    scenario.create_topics(4);
    scenario.write_windowed(&Settings::default());
    let output = validate(&scenario, &["--connect", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["valid"], true);
    let checks = answer["pipelines"][0]["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["result"] == "ok"
            || check["what"].as_str().unwrap().starts_with("transactional id")),
        "{answer:#}"
    );
    let detail = |what: &str| {
        let found = checks.iter().find(|check| check["what"] == what);
        found.unwrap_or_else(|| panic!("{what}: {answer:#}"))["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail(&format!("topic {}", scenario.input())).starts_with("4 partitions"));
    assert!(detail(&format!("control topic {}", scenario.control())).contains("does not exist yet"));
    assert!(!scenario.storage().exists(), "nothing is created");
    let again = validate(&scenario, &["--connect"]);
    assert!(text(&again).contains("does not exist yet; the first start creates it"), "{}", text(&again));
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_what_to_do() {
    let scenario = Scenario::new("unconnected");
    scenario.kafka.create_topic(&scenario.input(), 1);
    let file = scenario.write_windowed(&Settings { timeout: "1h", ..Settings::default() });
    let pipeline = std::fs::read_to_string(&file).unwrap();
    let storage = format!("file://{}/checkpoints", scenario.dir().display());
    std::fs::write(&file, pipeline.replace(&storage, "file:///dev/null/onceflow")).unwrap();
    let output = validate(&scenario, &["--connect"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for wrong in [
        format!(
            "kafka-topics --bootstrap-server {} --create --topic {}",
            scenario.kafka.bootstrap(),
            scenario.output()
        ),
        format!("--create --topic {}", scenario.dead_letter()),
        "raise transaction.max.timeout.ms".to_owned(),
        "/dev/null: ".to_owned(),
    ] {
        assert!(said.contains(&wrong), "{wrong}\n{said}");
    }
    assert_eq!(said.matches("FAILED").count(), 4, "{said}");
}

#[test]
fn brokers_that_do_not_answer_are_a_temporary_trouble() {
    let scenario = Scenario::new("nobody");
    let file = scenario.write_windowed(&Settings::default());
    let nowhere = format!("127.0.0.1:{}", free_port());
    let pipeline = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, pipeline.replace(scenario.kafka.bootstrap(), &nowhere)).unwrap();
    let output = validate(&scenario, &["--connect"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("check kafka.bootstrap_servers"), "{said}");
}

#[test]
fn mistakes_are_json_for_programs() {
    let scenario = Scenario::new("json");
    let file = scenario.write_windowed(&Settings::default());
    let pipeline = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, pipeline.replace("dealy", "delay").replace("delay: 5s", "dealy: 5s")).unwrap();
    let output = validate(&scenario, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(78));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mistake = &answer["mistakes"][0];
    assert_eq!((&answer["valid"], &mistake["code"]), (&false.into(), &"E0103".into()));
    assert!(
        mistake["line"].as_u64() > Some(1) && mistake["label"].as_str().unwrap().contains("`delay`"),
        "{answer:#}"
    );
}

#[test]
fn permissions_are_printed_as_commands() {
    let scenario = Scenario::new("acls");
    scenario.write_windowed(&Settings::default());
    let output = validate(&scenario, &["--print-acls", "--principal", "User:me"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let commands: Vec<&str> = said.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(commands.len(), 6, "{said}");
    assert!(commands.iter().all(
        |command| command.starts_with("kafka-acls --bootstrap-server ") && command.contains(" User:me ")
    ));
}
