//! What sources read: topics by pattern, partitions that are added while the daemon runs, another cluster; and the names of
//! `kafka.ids`.

use std::collections::BTreeSet;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::kafka::Kafka;
use onceflow_integration_tests::orders::BASE;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, write_all};

fn records(partition: i32, ids: std::ops::Range<i64>) -> impl Iterator<Item = NewRecord> {
    ids.map(move |id| NewRecord {
        partition,
        timestamp: BASE + id,
        key: None,
        value: Some(format!(r#"{{"id":{id}}}"#).into_bytes()),
        headers: vec![],
    })
}

/// Every id in the output; panics where one is there twice.
fn ids(scenario: &Scenario) -> BTreeSet<i64> {
    let rows = scenario.committed(&scenario.output());
    let ids: BTreeSet<i64> = rows.iter().map(|row| row.json()["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), rows.len(), "something came twice");
    ids
}

fn passing(scenario: &Scenario, sources: &str, from: &str) -> std::path::PathBuf {
    let settings = Settings { interval: "100ms", parallelism: 2, ..Settings::default() };
    let text = scenario.preamble(&settings)
        + sources
        + &format!(
            "steps:\n  all: {{ from: {from} }}\nsinks:\n  out: {{ from: all, topic: {}, format: json }}\n",
            scenario.output()
        );
    scenario.write("pipeline.yaml", &text)
}

#[test]
fn added_partitions_and_new_topics_of_a_pattern_are_found_while_running() {
    let scenario = Scenario::new("topology");
    scenario.create_topics(1);
    let topic = |name: &str| format!("{}.more.{name}", scenario.name);
    scenario.kafka.create_topic(&topic("a"), 1);
    let sources = format!(
        "sources:
  named: {{ topics: [{input}], format: json, schema: {{ id: bigint }}, on_error: dead_letter }}
  matched: {{ topics: [\"^{name}\\\\.more\\\\..*\"], format: json, schema: {{ id: bigint }} }}
",
        input = scenario.input(),
        name = scenario.name
    );
    let file = passing(&scenario, &sources, "[named, matched]");
    write_all(scenario.kafka, &scenario.input(), records(0, 0..100));
    write_all(scenario.kafka, &topic("a"), records(0, 100..200));
    let mut daemon = Daemon::run(&scenario, &file);
    let until = |daemon: &mut Daemon, what: &str, end: i64| {
        daemon.eventually_alive(what, |_| (ids(&scenario).len() as i64 == end).then_some(()));
    };
    until(&mut daemon, "what is there", 200);

    scenario.kafka.grow_topic(&scenario.input(), 3);
    write_all(scenario.kafka, &scenario.input(), records(2, 200..300));
    until(&mut daemon, "the new partitions", 300);
    scenario.kafka.create_topic(&topic("b"), 2);
    write_all(scenario.kafka, &topic("b"), records(1, 300..400));
    write_all(scenario.kafka, &scenario.input(), records(0, 400..500));
    until(&mut daemon, "the new topic", 500);
    // What was there goes on where it was, also across a death.
    daemon.kill();
    write_all(scenario.kafka, &topic("a"), records(0, 500..600));
    let mut daemon = Daemon::run(&scenario, &file);
    until(&mut daemon, "what came in between", 600);
    daemon.stop();
    assert_eq!(ids(&scenario), (0..600).collect());
    assert!(daemon_log(&scenario).contains("the sources have changed"));

    let positions = scenario.decisions().pop().unwrap()["positions"].clone();
    assert_eq!(positions.as_array().unwrap().len(), 6);
    // A topic that goes away does not hold up the others, nor a later topic of another name.
    scenario.kafka.delete_topic(&topic("b"));
    write_all(scenario.kafka, &topic("a"), records(0, 600..700));
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(ids(&scenario), (0..700).collect());
    // One that comes back as another one is refused, as everywhere.
    scenario.kafka.create_topic(&topic("b"), 2);
    let mut daemon = Daemon::start(&scenario, &file, &["--until-end"], &[]);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log_end());
    assert!(daemon.log().contains("deleted and created anew"), "{}", daemon.log_end());
}

fn daemon_log(scenario: &Scenario) -> String {
    let logs = std::fs::read_dir(scenario.dir()).unwrap().flatten().map(|entry| entry.path());
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "log");
    logs.filter(is_log).map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_source_on_a_second_cluster_is_read_exactly_once_too() {
    let scenario = Scenario::new("clusters");
    scenario.create_topics(1);
    let other: &'static Kafka = Box::leak(Box::new(Kafka::start()));
    // The same name on both.
    other.create_topic(&scenario.input(), 2);
    let sources = format!(
        "sources:
  here: {{ topics: [{input}], format: json, schema: {{ id: bigint }} }}
  there:
    kafka: {{ bootstrap_servers: \"{there}\" }}
    topics: [{input}]
    format: json
    schema: {{ id: bigint }}
",
        input = scenario.input(),
        there = other.bootstrap()
    );
    let file = passing(&scenario, &sources, "[here, there]");
    write_all(scenario.kafka, &scenario.input(), records(0, 0..1_000));
    write_all(other, &scenario.input(), records(1, 1_000..2_000));
    for (point, ids) in [("after-decision", 2_000..2_500), ("after-commit", 2_500..3_000)] {
        write_all(other, &scenario.input(), records(0, ids));
        Daemon::run_armed(&scenario, &file, point).wait_for_self_kill();
    }
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(ids(&scenario), (0..3_000).collect());
    let identities = scenario.decisions().pop().unwrap()["topics"].clone();
    let sources: Vec<_> =
        identities.as_array().unwrap().iter().map(|topic| topic["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["here", "there"]);
    assert_eq!(other.end_offset(&scenario.output(), 0), None, "nothing is written there");
}

#[test]
fn ids_name_the_transactions_and_the_control_topic() {
    let scenario = Scenario::new("ids");
    scenario.create_topics(1);
    let settings = Settings::default();
    let control = format!("team-a.{}-decisions", scenario.name);
    let ids_text = format!(
        "ids: {{ group_id: team-a.group, transactional_id: team-a.{}, control_topic: {control} }}",
        scenario.name
    );
    let preamble = scenario.preamble(&settings).replacen("\" }\n", &format!("\", {ids_text} }}\n"), 1);
    let text = preamble
        + &format!(
            "sources:\n  orders: {{ topics: [{}], format: json, schema: {{ id: bigint }} }}\nsinks:\n  out: {{ from: orders, topic: {}, format: json }}\n",
            scenario.input(),
            scenario.output()
        );
    let file = scenario.write("pipeline.yaml", &text);
    write_all(scenario.kafka, &scenario.input(), records(0, 0..10));
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(ids(&scenario).len(), 10);
    assert_eq!(scenario.kafka.end_offset(&scenario.control(), 0), None);
    let decision = scenario.committed(&control).pop().unwrap().json();
    assert_eq!(decision["transactional_id"].as_str(), Some(format!("team-a.{}.0", scenario.name).as_str()));

    // Another id would not fence the one that was used so far.
    let renamed = text.replace("transactional_id: team-a.", "transactional_id: team-b.");
    let file = scenario.write("pipeline.yaml", &renamed);
    let mut daemon = Daemon::start(&scenario, &file, &["--until-end"], &[]);
    assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log_end());
    assert!(daemon.log().contains("would not fence each other"), "{}", daemon.log_end());
}
