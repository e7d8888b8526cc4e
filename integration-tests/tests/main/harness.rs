//! The tools of these tests, against the same Kafka: a reader that overlooks records would prove anything.

use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::Scenario;
use onceflow_integration_tests::topic::{Isolation, NewRecord, Producer, read_all, write_all};

#[test]
fn what_is_written_is_read() {
    let scenario = Scenario::new("harness");
    scenario.create_topics(4);
    let written: Vec<NewRecord> = Orders { records: 4_000, ..Orders::default() }.generate().collect();
    write_all(scenario.kafka, &scenario.input(), written.clone());
    let read = scenario.committed(&scenario.input());
    for partition in 0..4 {
        let of = |records: &mut dyn Iterator<Item = (i32, Option<Vec<u8>>)>| -> Vec<Option<Vec<u8>>> {
            records.filter(|(home, _)| *home == partition).map(|(_, value)| value).collect()
        };
        let there = of(&mut read.iter().map(|record| (record.partition, record.value.clone())));
        assert!(there == of(&mut written.iter().map(|record| (record.partition, record.value.clone()))));
    }
    assert_eq!(read[0].headers.len(), 1);
}

#[test]
fn what_is_empty_is_told_from_what_is_absent() {
    let scenario = Scenario::new("harness-empty");
    scenario.create_topics(1);
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let kinds = [(None, None), (bytes(""), bytes("")), (bytes("k"), bytes("v"))];
    let headers = vec![("a".to_owned(), None), ("a".to_owned(), bytes("")), ("b".to_owned(), bytes("x"))];
    let written = kinds.clone().map(|(key, value)| NewRecord {
        partition: 0,
        timestamp: 7,
        key,
        value,
        headers: headers.clone(),
    });
    write_all(scenario.kafka, &scenario.input(), written);
    let read = scenario.committed(&scenario.input());
    let found: Vec<_> = read.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
    assert_eq!(found, kinds);
    assert!(read.iter().all(|record| record.headers == headers && record.timestamp == 7), "{read:?}");
}

#[test]
fn aborted_records_are_seen_by_one_reader_only() {
    let scenario = Scenario::new("harness-aborted");
    scenario.create_topics(1);
    let producer = Producer::transactional(scenario.kafka, &scenario.input(), &scenario.name);
    let records: Vec<NewRecord> =
        Orders { records: 300, partitions: 1, ..Orders::default() }.generate().collect();
    for (index, chunk) in records.chunks(100).enumerate() {
        chunk.iter().for_each(|record| producer.send(record));
        if index == 1 { producer.abort() } else { producer.commit() }
    }
    assert_eq!(scenario.committed(&scenario.input()).len(), 200);
    assert_eq!(read_all(scenario.kafka, &scenario.input(), Isolation::Uncommitted).len(), 300);
    // Three chunks, each with its marker.
    assert_eq!(scenario.kafka.end_offset(&scenario.input(), 0), Some(303));
    scenario.kafka.delete_records(&scenario.input(), 0, 250);
    assert_eq!(scenario.committed(&scenario.input()).first().map(|record| record.offset), Some(250));
}

#[test]
fn a_killed_broker_keeps_its_data_and_its_port() {
    let kafka = onceflow_integration_tests::kafka::Kafka::start();
    kafka.create_topic("kept", 1);
    let spec = Orders { records: 100, partitions: 1, ..Orders::default() };
    write_all(&kafka, "kept", spec.generate());
    kafka.kill(1);
    kafka.restart(1);
    assert_eq!(read_all(&kafka, "kept", Isolation::Committed).len(), 100);
}
