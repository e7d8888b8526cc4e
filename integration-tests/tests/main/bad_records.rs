//! Records that cannot be read, and what `on_error` makes of them.

use std::collections::HashMap;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::{BASE, Orders};
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, write_all};
use onceflow_integration_tests::verify::{dead_letters, output_rows, verify};

/// One record of each kind that the schema of the tests cannot accept.
fn bad() -> Vec<(&'static str, Option<Vec<u8>>)> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let deep = format!(r#"{{"user_id":"u","amount":1,"weight":1,"ts":{BASE},"deep":{}"#, "[".repeat(20_000));
    vec![
        ("a tombstone", None),
        ("nothing", text("")),
        ("blanks", text("  \n")),
        ("no JSON", text("user_id=u;amount=1")),
        ("cut short", text(r#"{"user_id":"u","amount":1,"weight":1,"ts":17672"#)),
        ("more than one value", text(r#"{"user_id":"u","amount":1,"weight":1,"ts":1767225600000} {}"#)),
        ("an array", text(r#"[{"user_id":"u","amount":1,"weight":1,"ts":1767225600000}]"#)),
        ("null", text("null")),
        ("a missing member that is not null", text(r#"{"amount":1,"weight":1,"ts":1767225600000}"#)),
        ("a null that is not null", text(r#"{"user_id":null,"amount":1,"weight":1,"ts":1767225600000}"#)),
        ("an object for a text", text(r#"{"user_id":{},"amount":1,"weight":1,"ts":1767225600000}"#)),
        ("a text for a double", text(r#"{"user_id":"u","amount":1,"weight":"heavy","ts":1767225600000}"#)),
        ("a text for an integer", text(r#"{"user_id":"u","amount":1,"weight":1,"ts":"today"}"#)),
        ("a fraction for an integer", text(r#"{"user_id":"u","amount":1,"weight":1,"ts":1767225600000.5}"#)),
        (
            "an integer out of range",
            text(r#"{"user_id":"u","amount":1,"weight":1,"ts":9223372036854775808}"#),
        ),
        (
            "a decimal out of range",
            text(r#"{"user_id":"u","amount":99999999999.00,"weight":1,"ts":1767225600000}"#),
        ),
        (
            "an array for a nested text",
            text(
                r#"{"user_id":"u","amount":1,"weight":1,"ts":1767225600000,"customer":{"address":{"country":[]}}}"#,
            ),
        ),
        ("a broken escape", text(r#"{"user_id":"\x","amount":1,"weight":1,"ts":1767225600000}"#)),
        ("half a surrogate pair", text(r#"{"user_id":"\ud83d","amount":1,"weight":1,"ts":1767225600000}"#)),
        (
            "bytes that are not UTF-8",
            Some(b"{\"user_id\":\"\xff\xfe\",\"amount\":1,\"weight\":1,\"ts\":1767225600000}".to_vec()),
        ),
        ("an endless nesting in a member nobody reads", Some(deep.into_bytes())),
    ]
}

fn record(index: i64, value: Option<Vec<u8>>) -> NewRecord {
    let headers = vec![
        ("trace".to_owned(), Some(vec![0, 255, 7])),
        ("trace".to_owned(), Some(b"twice".to_vec())),
        ("nothing".to_owned(), None),
        ("onceflow.reason".to_owned(), Some(b"forged".to_vec())),
    ];
    // Keys of every kind: text, bytes that are no text, empty, none.
    let key = [Some(b"key".to_vec()), Some(vec![0xff, 0]), Some(vec![]), None][index as usize % 4].clone();
    NewRecord { partition: (index % 2) as i32, timestamp: BASE + index, key, value, headers }
}

#[test]
fn each_kind_ends_in_the_dead_letter_topic_unchanged() {
    let scenario = Scenario::new("bad");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings::default());
    // Good ones between them, in the same batches: they must not be drawn in.
    let good = |index: i64| {
        Some(format!(r#"{{"user_id":"good","amount":1.50,"weight":2,"ts":{}}}"#, BASE + index).into_bytes())
    };
    let mut records = Vec::new();
    for (_, value) in bad() {
        let index = records.len() as i64;
        records.push(record(index, value));
        records.push(record(index + 1, good(index + 1)));
        records.push(record(index + 2, good(index + 2)));
    }
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_until_end(&scenario, &file);

    let input = scenario.committed(&scenario.input());
    let letters = dead_letters(&scenario, &input);
    let mut kinds: HashMap<Option<Vec<u8>>, &str> =
        bad().into_iter().map(|(kind, value)| (value, kind)).collect();
    for record in &input {
        let kind = kinds.remove(&record.value);
        let reason = letters.get(&(record.partition, record.offset)).map(String::as_str);
        assert_eq!(
            reason,
            kind.map(|_| "decode"),
            "{kind:?}: {:?}",
            record.value.as_deref().map(String::from_utf8_lossy)
        );
    }
    assert_eq!(kinds.len(), 0, "not in the input: {kinds:?}");
    let rows = output_rows(&scenario.committed(&scenario.output()), Window::TUMBLING);
    let totals = &rows[&("good".to_owned(), BASE)];
    assert_eq!(
        (rows.len(), totals.orders, totals.cents),
        (1, 2 * bad().len() as i64, 300 * bad().len() as i64)
    );
}

#[test]
fn under_fail_the_pipeline_ends_with_65_and_writes_nothing_of_that_epoch() {
    let scenario = Scenario::new("fail");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings { on_error: "fail", ..Settings::default() });
    let mut records: Vec<NewRecord> = Orders { broken_one_in: 0, records: 2_000, ..Orders::default() }
        .generate()
        .map(|record| NewRecord { partition: record.partition % 2, ..record })
        .collect();
    records.push(record(0, Some(b"{broken".to_vec())));
    write_all(scenario.kafka, &scenario.input(), records);
    let offset = scenario.kafka.end_offset(&scenario.input(), 0).unwrap() - 1;
    // Not by --until-end alone: the daemon too must give up, as no restart makes the record any better.
    for arguments in [&["--until-end"][..], &[]] {
        let mut daemon = Daemon::start(&scenario, &file, arguments, &[]);
        assert_eq!(daemon.wait().code(), Some(65), "{}", daemon.log_end());
        let log = daemon.log();
        assert!(
            log.contains(&offset.to_string()) && log.contains(&scenario.input()),
            "it does not say where: {log}"
        );
    }
    assert_eq!(scenario.committed(&scenario.dead_letter()), []);
}

#[test]
fn under_drop_they_are_counted_and_gone() {
    let scenario = Scenario::new("drop");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings { on_error: "drop", ..Settings::default() });
    let records = bad().into_iter().enumerate().map(|(index, (_, value))| record(index as i64, value));
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_until_end(&scenario, &file);
    assert_eq!(scenario.committed(&scenario.dead_letter()), []);
    assert_eq!(scenario.committed(&scenario.output()), []);
    let decisions = scenario.decisions();
    let counts = &decisions.last().unwrap()["counts"];
    assert_eq!(counts["in"].as_u64(), Some(bad().len() as u64), "{counts}");
    assert_eq!(counts["dropped"].as_u64(), Some(bad().len() as u64), "{counts}");
}

#[test]
fn an_error_in_an_expression_concerns_its_record_alone() {
    let scenario = Scenario::new("evaluate");
    scenario.create_topics(1);
    let settings = Settings::default();
    let text = scenario.preamble(&settings)
        + &scenario.source(&settings)
        + &format!(
            "steps:
  divided:
    from: orders
    select:
      user_id: user_id
      share: 1000 / cast(amount as bigint)
sinks:
  out:
    from: divided
    topic: {}
    format: json
",
            scenario.output()
        );
    let file = scenario.write("pipeline.yaml", &text);
    let order = |amount: i64| {
        format!(r#"{{"user_id":"u{amount}","amount":{amount},"weight":1,"ts":{BASE}}}"#).into_bytes()
    };
    let records = [4, 0, 5, 0, 8].map(|amount| NewRecord { partition: 0, ..record(0, Some(order(amount))) });
    write_all(scenario.kafka, &scenario.input(), records);
    Daemon::run_until_end(&scenario, &file);
    let shares: Vec<_> =
        scenario.committed(&scenario.output()).iter().map(|record| record.json()["share"].as_i64()).collect();
    assert_eq!(shares, [Some(250), Some(200), Some(125)]);
    let letters = dead_letters(&scenario, &scenario.committed(&scenario.input()));
    assert_eq!(letters, HashMap::from([((0, 1), "evaluate".to_owned()), ((0, 3), "evaluate".to_owned())]));
}

#[test]
fn the_generated_broken_ones_are_found_all() {
    let scenario = Scenario::new("broken");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { parallelism: 2, ..Settings::default() });
    write_all(
        scenario.kafka,
        &scenario.input(),
        Orders { broken_one_in: 20, ..Orders::default() }.generate(),
    );
    Daemon::run_until_end(&scenario, &file);
    assert!(verify(&scenario, Window::TUMBLING).broken > 500);
}
