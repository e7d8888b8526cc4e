//! Asking a running pipeline for one key: sessions over two workers, windows, totals and duplicates, in memory and in RocksDB.

use std::path::PathBuf;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::BASE;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, write_all};
use serde_json::{Value, json};

const MINUTE: i64 = 60_000;

fn order(partition: i32, user: &str, country: &str, ms: i64) -> NewRecord {
    let value = format!(
        r#"{{"user_id":"{user}","customer":{{"address":{{"country":{country}}}}},"amount":"1.00","weight":1,"ts":{}}}"#,
        BASE + ms
    );
    NewRecord { partition, timestamp: BASE + ms, key: None, value: Some(value.into_bytes()), headers: vec![] }
}

fn write_pipeline(scenario: &Scenario, settings: &Settings) -> PathBuf {
    let steps = format!(
        "steps:
  sessions: {{ from: orders, window: {{ session: 8m }}, group_by: [user_id], aggregate: {{ n: count(*) }} }}
  hourly:
    from: orders
    window: {{ tumbling: 1h }}
    group_by: [user_id]
    aggregate: {{ n: count(*) }}
    emit: updates
    allowed_lateness: 2h
  totals: {{ from: orders, ttl: 8d, group_by: [user_id, country], aggregate: {{ n: count(*) }} }}
  first: {{ from: orders, deduplicate: {{ key: [country], within: 8m }} }}
sinks:
  sessions: {{ from: sessions, topic: {out}, format: json }}
  hourly: {{ from: hourly, topic: {out}, key: [user_id, window_start], format: json }}
  totals: {{ from: totals, topic: {out}, key: [user_id, country], format: json }}
  first: {{ from: first, topic: {out}, format: json }}
",
        out = scenario.output(),
    );
    scenario.write("pipeline.yaml", &(scenario.preamble(settings) + &scenario.source(settings) + &steps))
}

/// What each step says of a key, and the windows that it holds.
fn why(daemon: &Daemon, scenario: &Scenario, key: &str) -> Vec<(String, Value)> {
    let output = daemon.command(&["why", &scenario.name, "--key", key, "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps = answer["steps"].as_array().unwrap().iter();
    steps.map(|step| (step["step"].as_str().unwrap().to_owned(), step["key"].clone())).collect()
}

fn of_step<'a>(answer: &'a [(String, Value)], step: &str) -> &'a Value {
    &answer.iter().find(|(name, _)| name == step).unwrap_or_else(|| panic!("{step}: {answer:?}")).1
}

fn window(start: i64, end: i64, fires: Option<i64>, closes: i64) -> Value {
    json!({ "start_ms": BASE + start, "end_ms": BASE + end, "fires_at_ms": fires.map(|at| BASE + at), "closes_at_ms": BASE + closes })
}

fn check(name: &str, memory: &'static str, filler: usize) {
    assert_eq!(BASE % (60 * MINUTE), 0);
    let scenario = Scenario::new(name);
    scenario.create_topics(2);
    let settings = Settings { parallelism: 2, memory, ..Settings::default() };
    let file = write_pipeline(&scenario, &settings);
    let mut records = vec![
        // One session in two partitions, and so with two workers: joined over seven and eight minutes.
        order(0, "ann", "\"DE\"", 0),
        order(1, "ann", "null", 7 * MINUTE),
        order(0, "ann", "null", 15 * MINUTE),
        // Another.
        order(1, "ann", "\"DE\"", 40 * MINUTE),
    ];
    // Others move time to the second session; many of them are too much for memory.
    records.extend((0..filler).map(|i| order((i % 2) as i32, &format!("user-{i}"), "\"FR\"", 40 * MINUTE)));
    let expected_in = records.len() as f64;
    write_all(scenario.kafka, &scenario.input(), records);
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to commit everything", |_| {
        let counts = scenario.decisions().pop()?["counts"].clone();
        (counts["in"].as_f64() == Some(expected_in)).then_some(())
    });
    assert_eq!(scenario.has_cold_files(), filler > 2);

    let ann = why(&daemon, &scenario, "ann");
    let sessions = json!({ "kind": "sessions", "windows": [window(40 * MINUTE, 48 * MINUTE, Some(49 * MINUTE), 49 * MINUTE)], "more": 0 });
    assert_eq!(of_step(&ann, "sessions"), &json!({ "held": sessions }), "the first is over");
    let hourly = window(0, 60 * MINUTE, Some(60 * MINUTE), 180 * MINUTE);
    assert_eq!(
        of_step(&ann, "hourly"),
        &json!({ "held": { "kind": "windows", "windows": [hourly], "more": 0 } })
    );
    let two = "its keys are written as a JSON object: {\"user_id\": …, \"country\": …}";
    assert_eq!(of_step(&ann, "totals"), &json!({ "no_key": two }));
    assert_eq!(of_step(&ann, "first"), &json!({ "held": { "kind": "rows", "windows": [], "more": 0 } }));

    let total = why(&daemon, &scenario, r#"{"user_id": "ann", "country": null}"#);
    let days = 8 * 24 * 60 * MINUTE;
    let [totals] = of_step(&total, "totals")["held"]["windows"].as_array().unwrap().as_slice() else {
        panic!("{total:?}");
    };
    assert_eq!(totals["start_ms"], BASE + 7 * MINUTE);
    assert_eq!(totals["end_ms"], BASE + 15 * MINUTE + days);
    // The same text is a country that nobody has, and none of the other steps' keys has two members.
    assert_eq!(of_step(&total, "first")["held"]["windows"], json!([]));

    let country = why(&daemon, &scenario, r#"{"country": "DE"}"#);
    let rows = of_step(&country, "first")["held"]["windows"].as_array().unwrap().clone();
    let starts: Vec<i64> = rows.iter().map(|row| row["start_ms"].as_i64().unwrap() - BASE).collect();
    assert!(starts.ends_with(&[40 * MINUTE]), "{country:?}");

    let told = daemon.command(&["why", &scenario.name, "--key", "ann"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.contains("the key has a session from ") && told.contains("the key is in the window from "),
        "{told}"
    );
    let nobody =
        String::from_utf8(daemon.command(&["why", &scenario.name, "--key", "nobody"]).stdout).unwrap();
    assert!(nobody.contains("the key is in no open window"), "{nobody}");

    // Two hours later the hour has fired and may be corrected; the session is gone.
    let later = (0..2).map(|partition| order(partition, "bob", "\"FR\"", 121 * MINUTE));
    write_all(scenario.kafka, &scenario.input(), later);
    let fired = daemon.eventually_alive("the hour to fire", |daemon| {
        let ann = why(daemon, &scenario, "ann");
        of_step(&ann, "hourly")["held"]["windows"][0]["fires_at_ms"].is_null().then_some(ann)
    });
    assert_eq!(
        of_step(&fired, "hourly")["held"]["windows"],
        json!([window(0, 60 * MINUTE, None, 180 * MINUTE)])
    );
    assert_eq!(of_step(&fired, "sessions")["held"]["windows"], json!([]));
    daemon.stop();
}

#[test]
fn a_key_is_found_with_all_workers() {
    check("why-key", "256MiB", 2);
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_key_is_found_in_what_was_evicted() {
    check("why-key-evicted", "64MiB", 400_000);
}

#[test]
fn what_is_no_key_is_refused() {
    let scenario = Scenario::new("why-no-key");
    scenario.create_topics(1);
    let steps =
        "steps:\n  spent: { from: orders, ttl: 1d, group_by: [amount], aggregate: { n: count(*) } }\n";
    let sinks = format!(
        "sinks:\n  spent: {{ from: spent, topic: {}, key: [amount], format: json }}\n",
        scenario.output()
    );
    let settings = Settings::default();
    let text = scenario.preamble(&settings) + &scenario.source(&settings) + steps + &sinks;
    let mut daemon = Daemon::run(&scenario, &scenario.write("pipeline.yaml", &text));
    daemon.wait_until_ready();
    let refused = daemon.command(&["why", &scenario.name, "--key", "much"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("no step has such a key; `spent`: column amount: expected a decimal(12,2), found "),
        "{said}"
    );
    let path = format!("/api/v1/pipelines/{}/why", scenario.name);
    for (query, status) in [
        ("?key=7.5", 200),
        ("?key=%7B%22amount%22%3A7.50%7D", 200),
        ("?key=-7", 200),
        ("?kee=1", 400),
        ("?key=x", 400),
    ] {
        assert_eq!(daemon.get(&format!("{path}{query}")).unwrap().status, status, "{query}");
    }
    assert!(daemon.command(&["why", &scenario.name, "--key", "-7"]).status.success());
    daemon.stop();
}
