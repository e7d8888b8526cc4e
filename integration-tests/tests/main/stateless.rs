//! A pipeline without windows: records pass with key, headers and timestamp, to every sink whose `where` lets them.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::{Order, Orders};
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Isolation, Live, Record, read_all};

fn write(scenario: &Scenario, german: &str) -> std::path::PathBuf {
    let settings = Settings { interval: "50ms", parallelism: 2, ..Settings::default() };
    let text = scenario.preamble(&settings)
        + &scenario.source(&settings)
        + &format!(
            "steps:
  paid:
    from: orders
    where: amount > 0
    select:
      order_id: order_id
      user_id: user_id
      country: country
      cents: cast(amount * 100 as bigint)
      ts: ts
sinks:
  all:
    from: paid
    topic: {all}
    format: json
  german:
    from: paid
    where: country = 'DE'
    key: user_id
    topic: {german}
    format: json
",
            all = scenario.output()
        );
    scenario.write("pipeline.yaml", &text)
}

#[test]
fn every_record_passes_once_however_often_it_is_killed() {
    let scenario = Scenario::new("clean");
    scenario.create_topics(4);
    let german = format!("{}.de", scenario.name);
    scenario.kafka.create_topic(&german, 3);
    let file = write(&scenario, &german);
    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
    let points =
        ["after-epoch-zero", "after-decision:2", "after-commit:3", "after-decision", "after-confirmed"];
    Daemon::die_at(&scenario, &file, &points);
    live.stop();
    Daemon::run_until_end(&scenario, &file);

    let input = scenario.committed(&scenario.input());
    let sorted = |mut rows: Vec<(String, Record)>| {
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let by_id = |topic: &str| -> Vec<(String, Record)> {
        let rows = scenario.committed(topic).into_iter();
        sorted(rows.map(|record| (record.json()["order_id"].as_str().unwrap().to_owned(), record)).collect())
    };
    let parsed = input.iter().filter_map(|record| {
        let order = Order::parse(record.value.as_deref().unwrap())?;
        (order.cents > 0).then(|| (record.json()["order_id"].as_str().unwrap().to_owned(), record.clone()))
    });
    let expected = sorted(parsed.collect());
    let germans: Vec<_> = expected
        .iter()
        .filter(|(_, record)| record.json()["customer"]["address"]["country"].as_str() == Some("DE"))
        .cloned()
        .collect();
    assert!(germans.len() > 1_000 && germans.len() < expected.len());

    for (topic, expected) in [(scenario.output(), &expected), (german.clone(), &germans)] {
        let rows = by_id(&topic);
        let ids = |rows: &[(String, Record)]| rows.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(rows.len(), expected.len(), "{topic}");
        assert!(ids(&rows) == ids(expected), "{topic} holds other orders than the input");
        for ((id, row), (_, original)) in rows.iter().zip(expected) {
            let order = Order::parse(original.value.as_deref().unwrap()).unwrap();
            let json = row.json();
            assert_eq!(json["user_id"].as_str(), Some(order.user.as_str()), "{id}");
            assert_eq!(json["country"].as_str(), order.country.as_deref(), "{id}");
            assert_eq!(json["cents"].as_i64(), Some(order.cents), "{id}");
            assert_eq!(json["ts"].as_i64(), Some(order.ts), "{id}");
            assert_eq!(json.as_object().unwrap().len(), 5, "{json}");
            assert_eq!(row.key, original.key, "{id}");
            assert_eq!(row.headers, original.headers, "{id}");
            assert_eq!(row.timestamp, order.ts, "{id}: the timestamp is the event time");
        }
    }
    assert_eq!(scenario.files("snapshots").len(), 0, "a stateless pipeline writes no files");
    // Deaths between the sends and the commit have left aborted records: this is what a reader without transactions sees.
    assert!(read_all(scenario.kafka, &scenario.output(), Isolation::Uncommitted).len() > expected.len());
}
