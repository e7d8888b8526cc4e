//! What sinks can say about their records, and what becomes of those that no topic takes.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::BASE;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, Record, write_all};

fn record(partition: i32, timestamp: i64, value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord {
        partition,
        timestamp,
        key: Some(b"k".to_vec()),
        value: Some(value.into()),
        headers: vec![("trace".to_owned(), Some(b"7".to_vec()))],
    }
}

/// The source of these tests: its event time is the Kafka record's.
fn source(scenario: &Scenario, on_error: &str) -> String {
    format!(
        "sources:
  orders:
    topics: [{}]
    format: json
    schema: {{ id: bigint not null, country: varchar, amount: \"decimal(9,2)\", shard: int, note: varchar }}
    on_error: {on_error}
",
        scenario.input()
    )
}

#[test]
fn topics_are_created_and_chosen_partitions_taken_headers_and_timestamps_written() {
    let scenario = Scenario::new("sinks");
    scenario.create_topics(1);
    let settings = Settings { interval: "50ms", ..Settings::default() };
    let topic = |country: &str| format!("{}.{country}", scenario.name);
    let text = scenario.preamble(&settings)
        + &source(&scenario, "dead_letter")
        + &format!(
            "steps:
  routed:
    from: orders
    select: {{ id: id, amount: amount, shard: shard, topic: \"'{name}.' || country\" }}
sinks:
  by_country:
    from: routed
    topic_from: topic
    allowed_topics: [{name}.de, {name}.fr]
    create: {{ partitions: 3, replication_factor: 1, config: {{ retention.ms: -1, max.message.bytes: 5000 }} }}
    key: id
    key_format: raw
    partition: shard
    headers: {{ amount: amount, doubled: id * 2 }}
    timestamp: {BASE} + id
    format: {{ type: json, decimals: string }}
  as_it_came:
    from: orders
    topic: {name}.same
    create: {{}}
    format: json
",
            name = scenario.name
        );
    let file = scenario.write("pipeline.yaml", &text);
    let order = |id: i64, country: &str, shard: i64| {
        record(0, BASE + 100, format!(r#"{{"id":{id},"country":"{country}","amount":1.5,"shard":{shard}}}"#))
    };
    let records = [
        order(1, "de", 2),
        order(2, "fr", 0),
        order(3, "es", 0),
        order(4, "de", 3),
        record(0, BASE, format!(r#"{{"id":5,"note":"{}"}}"#, "x".repeat(20_000))),
    ];
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_until_end(&scenario, &file);
    // A second run finds the topics there.
    write_all(scenario.kafka, &scenario.input(), [order(6, "de", 1)]);
    Daemon::run_until_end(&scenario, &file);

    assert_eq!(scenario.kafka.partitions(&topic("de")), 3);
    let germans = scenario.committed(&topic("de"));
    assert_eq!(germans.iter().map(|row| row.partition).collect::<Vec<_>>(), [1, 2]);
    let first = &germans[1];
    assert_eq!(first.key.as_deref(), Some(&1i64.to_be_bytes()[..]));
    assert_eq!((first.header("amount"), first.header("doubled")), (Some("1.50"), Some("2")));
    assert_eq!((first.headers.len(), first.timestamp), (2, BASE + 1));
    assert_eq!(first.json()["amount"].as_str(), Some("1.50"));
    assert_eq!(scenario.committed(&topic("fr")).len(), 1);
    let same = scenario.committed(&topic("same"));
    assert_eq!(same.len(), 6);
    let as_it_came = |row: &Record| row.key.as_deref() == Some(b"k") && row.header("trace") == Some("7");
    assert!(same.iter().all(as_it_came));

    let letters = scenario.committed(&scenario.dead_letter());
    let errors: Vec<_> = letters.iter().filter_map(|letter| letter.header("onceflow.error")).collect();
    assert_eq!(letters.len(), 3, "{errors:?}");
    let expected =
        ["which is not one of `allowed_topics`", "there is no partition 3: they are 0 to 2", "is null"];
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.contains(expected), "{error}");
    }
    assert!(letters.iter().all(|letter| letter.header("onceflow.reason") == Some("refused")));
}

#[test]
fn what_is_too_large_follows_on_error_in_every_branch_and_its_letter_is_cut() {
    let scenario = Scenario::new("large");
    scenario.kafka.create_topic(&scenario.input(), 1);
    for topic in [scenario.output(), format!("{}.windows", scenario.name), scenario.dead_letter()] {
        scenario.kafka.create_topic_with(&topic, 1, &[("max.message.bytes", "3000")]);
    }
    let settings = Settings::default();
    let text = scenario.preamble(&settings)
        + &source(&scenario, "dead_letter")
        + &format!(
            "steps:
  notes:
    from: orders
    window: {{ tumbling: 1m }}
    group_by: [country]
    aggregate: {{ longest: max(note), n: count(*) }}
sinks:
  all: {{ from: orders, topic: {}, format: json }}
  windows: {{ from: notes, topic: {}.windows, format: json }}
",
            scenario.output(),
            scenario.name
        );
    let file = scenario.write("pipeline.yaml", &text);
    let note = |id: i64, country: &str, length: usize| {
        record(0, BASE, format!(r#"{{"id":{id},"country":"{country}","note":"{}"}}"#, "x".repeat(length)))
    };
    write_all(
        scenario.kafka,
        &scenario.input(),
        [note(1, "de", 10), note(2, "fr", 50_000), note(3, "fr", 10)],
    );
    Daemon::run_until_end(&scenario, &file);

    let ids = |topic: &str| -> Vec<_> {
        scenario.committed(topic).iter().map(|row| row.json()["id"].as_i64()).collect()
    };
    assert_eq!(ids(&scenario.output()), [Some(1), Some(3)]);
    let windows = scenario.committed(&format!("{}.windows", scenario.name));
    assert_eq!(windows.len(), 1, "the window of fr is as large as its longest note");
    let letters = scenario.committed(&scenario.dead_letter());
    assert_eq!(letters.len(), 2);
    let [of_record, of_window] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((of_record.header("onceflow.step"), of_record.value.as_ref()), (Some("all"), None));
    assert_eq!(of_record.header("onceflow.offset"), Some("1"));
    assert!(of_record.header("onceflow.omitted").unwrap().starts_with("value (500"));
    assert_eq!((of_window.header("onceflow.step"), of_window.value.as_ref()), (Some("windows"), None));
    assert_eq!(of_window.header("onceflow.window_start"), Some(BASE.to_string().as_str()));
    assert!(of_window.header("onceflow.omitted").is_some());
}

#[test]
fn late_rows_and_failed_records_reach_sinks_of_their_own_once() {
    let scenario = Scenario::new("sides");
    scenario.create_topics(2);
    let side = |name: &str| format!("{}.{name}", scenario.name);
    for name in ["late", "errors", "retry"] {
        scenario.kafka.create_topic(&side(name), 1);
    }
    let settings = Settings { interval: "50ms", parallelism: 2, ..Settings::default() };
    let text = scenario.preamble(&settings)
        + &source(&scenario, "stream")
        + &format!(
            "steps:
  counted:
    from: orders
    select: {{ country: country, id: id, share: 100 / shard }}
    window: {{ tumbling: 1m, offset: 15s }}
    group_by: [country]
    aggregate: {{ n: count(*) }}
    late: stream
sinks:
  counts: {{ from: counted, topic: {out}, format: json }}
  late: {{ from: counted.late, topic: {name}.late, format: json }}
  errors: {{ from: orders.errors, topic: {name}.errors, format: json }}
  retry: {{ from: orders.errors, topic: {name}.retry, headers: {{ reason: reason }}, format: raw }}
",
            out = scenario.output(),
            name = scenario.name
        );
    let file = scenario.write("pipeline.yaml", &text);
    let order = |at: i64, id: i64, shard: i64| {
        record(0, BASE + at, format!(r#"{{"id":{id},"country":"de","shard":{shard}}}"#))
    };
    let early = [order(20_000, 1, 4), order(21_000, 2, 0), record(0, BASE + 22_000, b"\xff{".to_vec())];
    write_all(scenario.kafka, &scenario.input(), early);
    // Closes the windows of the first partition's time; without a watermark of the other they would wait.
    write_all(
        scenario.kafka,
        &scenario.input(),
        [order(200_000, 3, 1), NewRecord { partition: 1, ..order(200_000, 4, 1) }],
    );
    Daemon::run_armed(&scenario, &file, "after-decision").wait_for_self_kill();
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    daemon.eventually_alive("the first window", |_| {
        (!scenario.committed(&scenario.output()).is_empty()).then_some(())
    });
    write_all(scenario.kafka, &scenario.input(), [order(30_000, 5, 4), order(31_000, 6, 0)]);
    daemon
        .eventually_alive("the late row", |_| (!scenario.committed(&side("late")).is_empty()).then_some(()));
    daemon.stop();

    let counts = scenario.committed(&scenario.output());
    assert_eq!(counts[0].json()["window_start"].as_str(), Some("2026-01-01T00:00:15.000Z"));
    assert_eq!((counts.len(), counts[0].json()["n"].as_i64()), (1, Some(1)));
    let late = scenario.committed(&side("late"));
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].json(), serde_json::json!({"country": "de", "id": 5, "share": 25}));
    assert_eq!((late[0].key.as_deref(), late[0].header("trace")), (Some(&b"k"[..]), Some("7")));

    let errors: Vec<_> = scenario.committed(&side("errors")).iter().map(Record::json).collect();
    let told = |row: &serde_json::Value| {
        (
            row["reason"].as_str().unwrap().to_owned(),
            row["step"].as_str().unwrap().to_owned(),
            row["offset"].as_i64(),
        )
    };
    let expected = |reason: &str, step: &str, offset| (reason.to_owned(), step.to_owned(), Some(offset));
    assert_eq!(
        errors.iter().map(told).collect::<Vec<_>>(),
        [
            expected("evaluate", "counted", 1),
            expected("decode", "orders", 2),
            expected("evaluate", "counted", 5)
        ]
    );
    assert_eq!(errors[1]["value"].as_str(), Some("\u{fffd}{"));
    let retry = scenario.committed(&side("retry"));
    assert_eq!(retry[1].value.as_deref(), Some(&b"\xff{"[..]), "byte for byte");
    assert_eq!((retry.len(), retry[1].timestamp), (3, BASE + 22_000));
    assert_eq!(retry[1].headers, [("reason".to_owned(), Some(b"decode".to_vec()))]);
    assert_eq!(scenario.committed(&scenario.dead_letter()), []);
    let counts = scenario.decisions().pop().unwrap()["counts"].clone();
    assert_eq!(
        (counts["in"].as_u64(), counts["dead"].as_u64(), counts["late"].as_u64()),
        (Some(7), Some(3), Some(1))
    );
}
