//! What a source can say of its records: what it does not declare, tombstones, where to start, how far ahead they may be.

use std::collections::BTreeMap;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::BASE;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{HeaderList, Live, NewRecord, Record, write_all};

const EXAMPLE: &str = include_str!("../../../config/examples/orders-clean.yaml");

/// Key, and what the sinks must write for it: value, headers, timestamp.
type Written = (Option<Vec<u8>>, HeaderList, i64);

fn country(i: i64) -> &'static str {
    ["DE", "FR", "AT"][(i / 3 % 3) as usize]
}

/// Record `i` of the input: one in seven has no value, one in eleven is broken. White space and escapes are as no encoder writes them.
fn record(i: i64) -> NewRecord {
    let value = match i {
        i if i % 7 == 3 => None,
        i if i % 11 == 5 => Some(format!("{{\"id\":{i}")),
        i => Some(format!(
            r#" {{"id": {i} ,"country":" {} ","email":"{i}@example.org","list":[1, 2,{i}],"te\u0078t":"\u00e9\/","n":1.50e0}}"#,
            country(i).to_lowercase()
        )),
    };
    NewRecord {
        partition: (i % 4) as i32,
        timestamp: BASE + i,
        key: Some(format!("key-{}", i % 40).into_bytes()),
        value: value.map(String::into_bytes),
        headers: vec![("trace".to_owned(), Some(i.to_string().into_bytes())), ("none".to_owned(), None)],
    }
}

/// What becomes of record `i` in the sink `all`; nothing of a broken one.
fn expected(record: &Record) -> Option<Written> {
    let i = record.timestamp - BASE;
    let value = match i {
        i if i % 7 == 3 => None,
        i if i % 11 == 5 => return None,
        i => Some(format!(
            r#"{{"country":"{}","id":{i},"list":[1, 2,{i}],"te\u0078t":"\u00e9\/","n":1.50e0}}"#,
            country(i)
        )),
    };
    Some((value.map(String::into_bytes), record.headers.clone(), record.timestamp))
}

fn by_key(
    records: impl Iterator<Item = (Option<Vec<u8>>, Written)>,
) -> BTreeMap<Option<Vec<u8>>, Vec<Written>> {
    let mut keys: BTreeMap<_, Vec<Written>> = BTreeMap::new();
    records.for_each(|(key, written)| keys.entry(key).or_default().push(written));
    keys
}

#[test]
fn the_example_passes_what_it_does_not_name_and_tombstones_in_their_order() {
    let scenario = Scenario::new("clean-example");
    scenario.create_topics(4);
    let german = format!("{}.de", scenario.name);
    scenario.kafka.create_topic(&german, 3);
    let settings = Settings { interval: "50ms", parallelism: 2, ..Settings::default() };
    // The example as it stands, but for names; what the daemon's defaults would say stands before it.
    let (_, example) = EXAMPLE.split_once("sources:").unwrap();
    let (example, _) = example.split_once("dead_letter: {").unwrap();
    let example = example
        .replace("topics: [orders]", &format!("topics: [{}]", scenario.input()))
        .replace("topic: orders-clean-de", &format!("topic: {german}"))
        .replace("topic: orders-clean\n", &format!("topic: {}\n", scenario.output()));
    let file = scenario.write("pipeline.yaml", &format!("{}sources:{example}", scenario.preamble(&settings)));

    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, (0..).map(record));
    for point in
        ["after-epoch-zero", "after-decision:2", "after-commit:3", "after-decision", "after-confirmed"]
    {
        Daemon::run_armed(&scenario, &file, point).wait_for_self_kill();
    }
    live.stop();
    Daemon::run_until_end(&scenario, &file);

    let input = scenario.committed(&scenario.input());
    assert!(input.len() > 3_000, "{} records are too few to say much", input.len());
    let all = by_key(input.iter().filter_map(|record| Some((record.key.clone(), expected(record)?))));
    let is_german =
        |(value, ..): &Written| value.as_deref().is_none_or(|value| value.starts_with(br#"{"country":"DE""#));
    let germans: BTreeMap<_, Vec<Written>> = all
        .iter()
        .map(|(key, rows)| (key.clone(), rows.iter().filter(|row| is_german(row)).cloned().collect()))
        .collect();
    for (topic, expected) in [(scenario.output(), all), (german, germans)] {
        let rows = scenario.committed(&topic).into_iter();
        let found = by_key(rows.map(|row| (row.key, (row.value, row.headers, row.timestamp))));
        assert!(found.keys().eq(expected.keys()), "{topic} has other keys");
        for (key, rows) in found {
            let key_shown = String::from_utf8_lossy(key.as_deref().unwrap()).into_owned();
            assert!(rows == expected[&key], "{topic}, {key_shown}: {rows:?} is not {:?}", expected[&key]);
        }
    }

    let broken = input.iter().filter(|record| expected(record).is_none()).count();
    assert_eq!(scenario.committed(&scenario.dead_letter()).len(), broken);
    let counts = scenario.decisions().pop().unwrap()["counts"].clone();
    let count = |name: &str| counts[name].as_u64().unwrap();
    assert_eq!(count("in"), input.len() as u64, "{counts}");
    assert_eq!(
        count("used") + count("filtered") + count("late") + count("dead") + count("dropped"),
        count("in")
    );
    assert_eq!((count("dead"), count("dropped")), (broken as u64, 0), "{counts}");
}

#[test]
fn skipped_tombstones_are_counted() {
    let scenario = Scenario::new("tombstones");
    scenario.create_topics(4);
    let file = starting(&scenario, "start: earliest\n    tombstones: skip\n    on_error: drop");
    write_all(scenario.kafka, &scenario.input(), (0..77).map(record));
    Daemon::run_until_end(&scenario, &file);
    let counts = scenario.decisions().pop().unwrap()["counts"].clone();
    // 11 of 77 have no value, 7 others are broken but for the one that has none.
    assert_eq!(
        (&counts["dropped"], &counts["used"], &counts["in"]),
        (&17.into(), &60.into(), &77.into()),
        "{counts}"
    );
    assert_eq!(scenario.committed(&scenario.output()).len(), 60);
}

/// A pipeline that copies ids, whose source has these lines besides.
fn starting(scenario: &Scenario, lines: &str) -> std::path::PathBuf {
    let text = format!(
        "{}sources:
  orders:
    topics: [{}]
    format: json
    schema: {{ id: bigint }}
    {lines}
sinks:
  copy: {{ from: orders, topic: {}, format: json }}
",
        scenario.preamble(&Settings { interval: "50ms", ..Settings::default() }),
        scenario.input(),
        scenario.output()
    );
    scenario.write("pipeline.yaml", &text)
}

fn numbered(ids: std::ops::Range<i64>) -> impl Iterator<Item = NewRecord> {
    ids.map(|id| NewRecord { value: Some(format!("{{\"id\":{id}}}").into_bytes()), ..record(id) })
}

fn copied(scenario: &Scenario) -> Vec<i64> {
    let rows = scenario.committed(&scenario.output());
    let mut ids: Vec<i64> = rows.iter().map(|row| row.json()["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn latest_is_resolved_once() {
    let scenario = Scenario::new("latest");
    scenario.create_topics(4);
    let file = starting(&scenario, "start: latest");
    write_all(scenario.kafka, &scenario.input(), numbered(0..400));
    // The first start dies behind its epoch 0: what comes from now on is read, whoever reads it.
    Daemon::run_armed(&scenario, &file, "after-epoch-zero").wait_for_self_kill();
    write_all(scenario.kafka, &scenario.input(), numbered(400..700));
    Daemon::run_armed(&scenario, &file, "after-claim").wait_for_self_kill();
    write_all(scenario.kafka, &scenario.input(), numbered(700..800));
    Daemon::run_until_end(&scenario, &file);
    assert!(copied(&scenario).into_iter().eq(400..800));
    // A partition that is new to the topic is read from its beginning all the same.
    scenario.kafka.grow_topic(&scenario.input(), 5);
    let new = numbered(800..850).map(|record| NewRecord { partition: 4, ..record });
    write_all(scenario.kafka, &scenario.input(), new);
    Daemon::run_until_end(&scenario, &file);
    assert!(copied(&scenario).into_iter().eq(400..850));
}

#[test]
fn a_timestamp_is_where_each_partition_starts() {
    let scenario = Scenario::new("timestamp");
    scenario.create_topics(4);
    // 250 ms after the first record; the last partition ends before that.
    let file = starting(&scenario, "start: { timestamp: 2026-01-01T01:00:00.250+01:00 }");
    let records = numbered(0..400).filter(|record| record.partition < 3 || record.timestamp < BASE + 200);
    let expected: Vec<i64> = (250..400).filter(|id| id % 4 < 3).collect();
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_armed(&scenario, &file, "after-epoch-zero").wait_for_self_kill();
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(copied(&scenario), expected);
}
