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
    let points =
        ["after-epoch-zero", "after-decision:2", "after-commit:3", "after-decision", "after-confirmed"];
    Daemon::die_at(&scenario, &file, &points);
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

#[test]
fn raw_bytes_are_routed_by_what_their_records_say() {
    let scenario = Scenario::new("raw");
    scenario.create_topics(2);
    let told = format!("{}.told", scenario.name);
    scenario.kafka.create_topic(&told, 1);
    let text = format!(
        "{}sources:
  bytes: {{ topics: [{}], format: raw, schema: {{ value: binary not null }}, tombstones: skip, on_error: dead_letter }}
steps:
  routed: {{ from: bytes, where: header('route') = 'a' and _key is distinct from 'no' }}
  told:
    from: routed
    select: {{ topic: _topic, partition: _partition, offset: _offset, at: _timestamp, key: _key, headers: _headers }}
sinks:
  copy: {{ from: routed, topic: {}, format: raw }}
  told: {{ from: told, where: _partition = 1, topic: {told}, format: {{ type: json, timestamps: epoch_ms }} }}
",
        scenario.preamble(&Settings { interval: "50ms", ..Settings::default() }),
        scenario.input(),
        scenario.output()
    );
    let file = scenario.write("pipeline.yaml", &text);
    let records = (0..240).map(|i| {
        let route = |to: &[u8]| ("route".to_owned(), Some(to.to_vec()));
        // The last header of a name counts; one in twelve is not text, and fails where it is read.
        let headers = match i % 4 {
            0 => vec![route(b"b"), route(b"a"), ("n".to_owned(), None)],
            1 => vec![route(b"a"), route(if i % 12 == 1 { b"\xff" } else { b"b" })],
            2 => vec![],
            _ => vec![route(b"a")],
        };
        let value = [Some(vec![0, 0xff, i as u8]), Some(vec![]), None][(i % 3) as usize].clone();
        let key = [Some(&b"no"[..]), Some(b"yes"), None][(i / 4 % 3) as usize].map(<[u8]>::to_vec);
        NewRecord { partition: (i % 2) as i32, timestamp: BASE + i, key, value, headers }
    });
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_until_end(&scenario, &file);

    let route = |record: &Record| {
        let last = record.headers.iter().rfind(|(name, _)| name == "route");
        last.and_then(|(_, value)| value.clone())
    };
    let input = scenario.committed(&scenario.input());
    let there = |record: &&Record| record.value.is_some();
    let routed: Vec<&Record> = input
        .iter()
        .filter(there)
        .filter(|record| route(record).as_deref() == Some(b"a") && record.key.as_deref() != Some(b"no"))
        .collect();
    let by_time = |record: &Record| {
        (record.timestamp, record.key.clone(), record.value.clone(), record.headers.clone())
    };
    let mut copied: Vec<_> = scenario.committed(&scenario.output()).iter().map(by_time).collect();
    let mut expected: Vec<_> = routed.iter().map(|record| by_time(record)).collect();
    copied.sort();
    expected.sort();
    assert!(expected.len() > 30, "{}", expected.len());
    assert_eq!(copied, expected);

    let text =
        |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let expected: Vec<serde_json::Value> = routed
        .iter()
        .filter(|record| record.partition == 1)
        .map(|record| {
            let header = |(name, value): &(String, Option<Vec<u8>>)| serde_json::json!({ "name": name, "value": text(value) });
            serde_json::json!({
                "topic": scenario.input(),
                "partition": 1,
                "offset": record.offset,
                "at": record.timestamp,
                "key": text(&record.key),
                "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
            })
        })
        .collect();
    let told: Vec<_> = scenario.committed(&told).iter().map(Record::json).collect();
    assert_eq!(told, expected);
    let unreadable = input.iter().filter(there).filter(|record| route(record).as_deref() == Some(b"\xff"));
    assert_eq!(scenario.committed(&scenario.dead_letter()).len(), unreadable.count());
}
