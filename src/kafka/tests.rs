//! This layer against a real Kafka, whose address is in `ONCEFLOW_TEST_KAFKA`. Without it these tests say that
//! they were skipped. Each test uses topics and ids of its own, so that they run beside each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use onceflow_protocol::ErrorKind;

use super::admin::{Creation, NewTopic};
use super::errors::Code;
use super::reader::Bounds;
use super::*;

const LIMIT: Duration = Duration::from_secs(30);
const GROUP: &str = "onceflow-tests";

/// A cluster to test against, and names that nobody else uses.
struct Cluster {
    connection: Connection,
    admin: Admin,
    prefix: String,
}

fn cluster(test: &str) -> Option<Cluster> {
    cluster_with(test, &[])
}

fn cluster_with(test: &str, properties: &[(&str, &str)]) -> Option<Cluster> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let Ok(bootstrap) = std::env::var("ONCEFLOW_TEST_KAFKA") else {
        eprintln!("SKIPPED: {test} needs a Kafka, and ONCEFLOW_TEST_KAFKA is not set");
        return None;
    };
    let properties: BTreeMap<String, String> =
        properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let connection = Connection::new(bootstrap, &properties).unwrap();
    let admin = Admin::open(&connection).unwrap();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    Some(Cluster { connection, admin, prefix: format!("{test}-{}-{}-{unique}", std::process::id(), now()) })
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

impl Cluster {
    fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    fn topic(&self, suffix: &str, partitions: i32, config: &[(&str, &str)]) -> String {
        let name = self.name(suffix);
        let config: Vec<(&str, String)> = config.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let new =
            NewTopic { name: &name, partitions: Some(partitions), replication: Some(1), config: &config };
        assert_eq!(self.admin.create_topic(&new, LIMIT).unwrap(), Creation::Created);
        while self.admin.describe_topic(&name, LIMIT).unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        name
    }

    fn producer(&self) -> TransactionalProducer {
        self.producer_within(&[])
    }

    fn producer_within(&self, limits: &[TopicLimits]) -> TransactionalProducer {
        let settings = ProducerSettings::new(self.name("0"), Duration::from_secs(60), limits);
        let mut producer = TransactionalProducer::create(&self.connection, &settings).unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer
    }

    fn open(&self, topic: &str, from: i64) -> (Reader, PartitionQueue) {
        let (reader, mut queues) = Reader::open(&self.connection, GROUP, &[(topic, 0, from)], None).unwrap();
        (reader, queues.remove(0))
    }
}

fn record<'a>(topic: TopicRef, key: &'a str, value: &'a str) -> OutRecord<'a> {
    OutRecord {
        topic,
        partition: None,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        timestamp: now(),
        headers: &[],
    }
}

/// Writes records in one transaction each.
fn write(producer: &mut TransactionalProducer, topic: &str, records: &[(&str, &str)]) {
    let topic = producer.topic(topic).unwrap();
    for (key, value) in records {
        producer.begin().unwrap();
        producer.send(&record(topic, key, value)).unwrap();
        producer.commit(LIMIT).unwrap();
    }
}

/// Reads until the end of the partition, and at least until `end`.
fn read_to(queue: &mut PartitionQueue, end: i64) -> Vec<(i64, String)> {
    let deadline = soon();
    let mut records = Vec::new();
    loop {
        let fetched = queue.poll(100, Duration::from_millis(200)).unwrap();
        for i in 0..fetched.batch.len() {
            let value = fetched.batch.value(i).unwrap_or_default();
            records.push((fetched.batch.offset(i), String::from_utf8(value.to_vec()).unwrap()));
        }
        if fetched.reached_end.is_some_and(|position| position >= end) {
            return records;
        }
        assert!(Instant::now() < deadline, "at {} instead of {end}: {records:?}", queue.next_offset());
    }
}

#[test]
fn only_what_was_committed_is_read_and_positions_pass_markers() {
    let Some(cluster) = cluster("visibility") else { return };
    let topic = cluster.topic("t", 1, &[]);
    let mut producer = cluster.producer();
    write(&mut producer, &topic, &[("k", "committed")]);
    let out = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    producer.send(&record(out, "k", "left open")).unwrap();
    producer.flush(LIMIT).unwrap();

    // The open transaction holds the stable end back, and with it the reader.
    let (mut reader, mut queue) = cluster.open(&topic, 0);
    assert_eq!(read_to(&mut queue, 2), [(0, "committed".to_owned())]);
    assert_eq!(reader.beginning_and_stable_end(&topic, 0, LIMIT).unwrap(), Bounds { low: 0, end: 2 });

    // The next producer's init ends it; then nothing is there but markers.
    drop(producer);
    let mut producer = cluster.producer();
    assert_eq!(read_to(&mut queue, 4), []);
    assert_eq!(queue.next_offset(), 4);

    write(&mut producer, &topic, &[("k", "second")]);
    assert_eq!(read_to(&mut queue, 6), [(4, "second".to_owned())]);
    assert_eq!(queue.next_offset(), 6);
    reader.poll_main().unwrap();
}

#[test]
fn a_second_producer_fences_the_first() {
    let Some(cluster) = cluster("fencing") else { return };
    let topic = cluster.topic("t", 1, &[]);
    let mut first = cluster.producer();
    let out = first.topic(&topic).unwrap();
    first.begin().unwrap();
    first.send(&record(out, "k", "of the first")).unwrap();
    first.flush(LIMIT).unwrap();

    let mut second = cluster.producer();
    write(&mut second, &topic, &[("k", "of the second")]);

    let error = first.commit(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    assert_eq!(error.code, Some(Code::Fenced), "{error}");
    assert_eq!(first.poll(Duration::ZERO).unwrap_err().kind, ErrorKind::Fenced);
    let error = first.begin().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    match first.send(&record(out, "k", "too late")) {
        Err(SendError::Failed(error)) => assert_eq!(error.kind, ErrorKind::Fenced, "{error}"),
        other => panic!("{other:?}"),
    }
    let (_reader, mut queue) = cluster.open(&topic, 0);
    assert_eq!(read_to(&mut queue, 4), [(2, "of the second".to_owned())]);
}

#[test]
fn a_fenced_producer_learns_it_while_it_sends() {
    let Some(cluster) = cluster("sending") else { return };
    let topic = cluster.topic("t", 1, &[]);
    let mut first = cluster.producer();
    let out = first.topic(&topic).unwrap();
    first.begin().unwrap();
    first.send(&record(out, "k", "before")).unwrap();
    first.flush(LIMIT).unwrap();
    let _second = cluster.producer();
    first.send(&record(out, "k", "after")).unwrap();
    let error = first.flush(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    let error = first.commit(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
}

#[test]
fn a_transaction_that_the_broker_timed_out_looks_like_fencing_and_leaves_nothing() {
    let Some(cluster) = cluster("timeout") else { return };
    let topic = cluster.topic("t", 1, &[]);
    let settings = ProducerSettings::new(cluster.name("0"), Duration::from_secs(1), &[]);
    let mut producer = TransactionalProducer::create(&cluster.connection, &settings).unwrap();
    producer.init_transactions(LIMIT).unwrap();
    let out = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    producer.send(&record(out, "k", "too slow")).unwrap();
    producer.flush(LIMIT).unwrap();

    // The broker looks for expired transactions every ten seconds, unless configured otherwise.
    let (_reader, mut queue) = cluster.open(&topic, 0);
    assert_eq!(read_to(&mut queue, 2), []);
    let error = producer.commit(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Fenced, "{error}");
    assert_eq!(error.code, Some(Code::Fenced), "{error}");
    producer.abandon();
    write(&mut cluster.producer(), &topic, &[("k", "again")]);
    assert_eq!(read_to(&mut queue, 4), [(2, "again".to_owned())]);
}

#[test]
fn each_partition_has_its_queue() {
    let Some(cluster) = cluster("queues") else { return };
    let topic = cluster.topic("t", 3, &[]);
    let mut producer = cluster.producer();
    let out = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    for i in 0..3_000 {
        let value = i.to_string();
        producer.send(&OutRecord { partition: Some(i % 3), ..record(out, "k", &value) }).unwrap();
    }
    producer.commit(LIMIT).unwrap();

    let assignments: Vec<(&str, i32, i64)> = (0..3).map(|p| (topic.as_str(), p, 0)).collect();
    let (mut reader, queues) = Reader::open(&cluster.connection, GROUP, &assignments, None).unwrap();
    let workers: Vec<_> = queues
        .into_iter()
        .map(|mut queue| {
            std::thread::spawn(move || {
                let partition = queue.partition();
                let records = read_to(&mut queue, 1_001);
                (partition, records)
            })
        })
        .collect();
    for worker in workers {
        let (partition, records) = worker.join().unwrap();
        let expected: Vec<(i64, String)> =
            (0..1_000).map(|i| (i64::from(i), (3 * i + partition).to_string())).collect();
        assert_eq!(records, expected);
    }
    reader.poll_main().unwrap();
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    let Some(cluster) = cluster("roundtrip") else { return };
    let topic = cluster.topic("t", 1, &[]);
    let mut producer = cluster.producer();
    let out = producer.topic(&topic).unwrap();
    let headers: [(&str, Option<&[u8]>); 4] =
        [("a", Some(b"1")), ("b", None), ("a", Some(b"")), ("größe", Some(&[0, 255]))];
    let full = OutRecord { timestamp: 1_000, headers: &headers, ..record(out, "key", "value") };
    producer.begin().unwrap();
    producer.send(&full).unwrap();
    producer.send(&OutRecord { key: None, value: None, headers: &[], ..full }).unwrap();
    producer.send(&OutRecord { key: Some(b""), value: Some(b""), headers: &[], ..full }).unwrap();
    producer.commit(LIMIT).unwrap();

    let (_reader, mut queue) = cluster.open(&topic, 0);
    let deadline = soon();
    let batch = loop {
        let fetched = queue.poll(10, Duration::from_millis(100)).unwrap();
        if !fetched.batch.is_empty() {
            break fetched.batch;
        }
        assert!(Instant::now() < deadline);
    };
    assert_eq!(batch.len(), 3);
    assert_eq!((batch.key(0), batch.value(0)), (Some(&b"key"[..]), Some(&b"value"[..])));
    assert_eq!((batch.key(1), batch.value(1)), (None, None));
    assert_eq!((batch.key(2), batch.value(2)), (Some(&b""[..]), Some(&b""[..])));
    assert_eq!((batch.timestamp(0), batch.size(0), batch.size(1)), (Some(1_000), 8, 0));
    let mut seen = Vec::new();
    batch.headers(0, &mut |name, value| seen.push((name.to_owned(), value.map(<[u8]>::to_vec))));
    let expected: Vec<(String, Option<Vec<u8>>)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(seen, expected);
    batch.headers(1, &mut |name, _| panic!("header {name}"));
    // The batch outlives everything that it came from.
    drop((queue, _reader));
    assert_eq!(batch.value(0), Some(&b"value"[..]));
}

#[test]
fn a_record_that_the_broker_refuses_is_data() {
    let Some(cluster) = cluster("refused") else { return };
    let small = cluster.topic("small", 1, &[("max.message.bytes", "1000")]);
    let mut producer = cluster.producer();
    let out = producer.topic(&small).unwrap();
    producer.begin().unwrap();
    // Incompressible, so that no compression makes it fit.
    let value: String =
        (0..3_000_u32).map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90)).collect();
    producer.send(&record(out, "k", &value)).unwrap();
    let error = producer.commit(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.what.contains(&small), "{error}");

    let near = cluster.topic("near", 1, &[("message.timestamp.after.max.ms", "3600000")]);
    let mut producer = cluster.producer();
    let out = producer.topic(&near).unwrap();
    producer.begin().unwrap();
    producer.send(&OutRecord { timestamp: now() + 7_200_000, ..record(out, "k", "v") }).unwrap();
    let error = producer.flush(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert_eq!(error.code, Some(Code::InvalidTimestamp), "{error}");
}

#[test]
fn what_the_limits_let_pass_the_broker_takes() {
    let Some(cluster) = cluster("limits") else { return };
    let topic = cluster.topic(
        "t",
        1,
        &[
            ("max.message.bytes", "2000"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("cleanup.policy", "compact"),
        ],
    );
    let limits = cluster.admin.topic_limits(&topic, LIMIT).unwrap();
    assert_eq!((limits.max_message_bytes, limits.after_max_ms), (2_000, Some(3_600_000)));
    let mut producer = cluster.producer_within(std::slice::from_ref(&limits));
    let out = producer.topic(&topic).unwrap();
    let timestamp = now() + 3_500_000;
    let key = b"key";
    let longest = limits.at(now()).max_record_bytes - key.len() - 2;
    let value: Vec<u8> = (0..longest as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    producer.begin().unwrap();
    // Many at once: were the batch not bounded by the topic's limit, all of them would be refused.
    for _ in 0..50 {
        let full = OutRecord {
            topic: out,
            partition: None,
            key: Some(key),
            value: Some(&value),
            timestamp,
            headers: &[("h", Some(b"v"))],
        };
        producer.send(&full).unwrap();
    }
    for i in 0..500 {
        producer.send(&record(out, "small", &i.to_string())).unwrap();
    }
    producer.commit(LIMIT).unwrap();
    assert!(longest > 1_500, "the room for headers takes more than a quarter of a small limit: {longest}");
}

#[test]
fn a_full_queue_is_told_apart_and_the_send_repeated() {
    let Some(cluster) = cluster_with("full", &[("queue.buffering.max.messages", "10"), ("linger.ms", "900")])
    else {
        return;
    };
    let topic = cluster.topic("t", 1, &[]);
    let mut producer = cluster.producer();
    let out = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    let mut refused = 0;
    for i in 0..100 {
        let value = i.to_string();
        while let Err(error) = producer.send(&record(out, "k", &value)) {
            assert!(matches!(error, SendError::QueueFull), "{error}");
            refused += 1;
            producer.flush(LIMIT).unwrap();
        }
    }
    let started = Instant::now();
    producer.commit(LIMIT).unwrap();
    assert!(started.elapsed() < Duration::from_millis(800), "the commit waited for linger.ms");
    assert!(refused > 0);
    let (_reader, mut queue) = cluster.open(&topic, 0);
    let values: Vec<String> = read_to(&mut queue, 101).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn dropping_a_producer_waits_for_nothing() {
    let Some(cluster) = cluster_with("drop", &[("linger.ms", "900")]) else { return };
    let topic = cluster.topic("t", 1, &[]);
    for abandon in [false, true] {
        let mut producer = cluster.producer();
        let out = producer.topic(&topic).unwrap();
        producer.begin().unwrap();
        for _ in 0..1_000 {
            producer.send(&record(out, "k", "never sent")).unwrap();
        }
        let started = Instant::now();
        if abandon {
            producer.abandon();
            assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        } else {
            drop(producer);
            assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        }
    }
}

#[test]
fn a_position_outside_the_log_is_refused_with_the_numbers() {
    let Some(cluster) = cluster("range") else { return };
    let topic = cluster.topic("t", 1, &[]);
    write(&mut cluster.producer(), &topic, &[("k", "v")]);
    let (_reader, mut queue) = cluster.open(&topic, 1_000);
    let deadline = soon();
    let error = loop {
        match queue.poll(10, Duration::from_millis(100)) {
            Err(error) => break error,
            Ok(fetched) => assert!(fetched.batch.is_empty() && fetched.reached_end.is_none()),
        }
        assert!(Instant::now() < deadline, "no error");
    };
    assert_eq!(error.kind, ErrorKind::Data, "{error}");
    assert!(error.what.contains(&topic) && error.what.contains("offset 1000"), "{error}");
}

#[test]
fn a_topic_that_goes_away_is_an_error() {
    // By default the client waits 30 s before it believes that a topic is gone.
    let Some(cluster) = cluster_with(
        "deleted",
        &[("topic.metadata.propagation.max.ms", "1000"), ("topic.metadata.refresh.interval.ms", "500")],
    ) else {
        return;
    };
    let topic = cluster.topic("t", 1, &[]);
    write(&mut cluster.producer(), &topic, &[("k", "v")]);
    let (mut reader, mut queue) = cluster.open(&topic, 0);
    assert_eq!(read_to(&mut queue, 2).len(), 1);
    cluster.admin.delete_topic(&topic, LIMIT).unwrap();
    let deadline = soon();
    let error = loop {
        if let Err(error) = reader.poll_main() {
            break error;
        }
        if let Err(error) = queue.poll(10, Duration::from_millis(100)) {
            break error;
        }
        assert!(Instant::now() < deadline, "no error");
    };
    assert!(matches!(error.kind, ErrorKind::Config | ErrorKind::EpochFailed), "{:?} {error}", error.kind);
}

#[test]
fn a_recreated_topic_has_another_id() {
    let Some(cluster) = cluster("recreated") else { return };
    let topic = cluster.topic("t", 2, &[]);
    let first = cluster.admin.describe_topic(&topic, LIMIT).unwrap().unwrap();
    assert_eq!((first.partitions, first.replication), (2, 1));
    cluster.admin.delete_topic(&topic, LIMIT).unwrap();
    while cluster.admin.describe_topic(&topic, LIMIT).unwrap().is_some() {
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.topic("t", 2, &[]);
    let second = cluster.admin.describe_topic(&topic, LIMIT).unwrap().unwrap();
    assert!(first.id.is_some() && second.id.is_some() && first.id != second.id, "{first:?} {second:?}");
}

#[test]
fn group_offsets_can_be_asked_for() {
    let Some(cluster) = cluster("offsets") else { return };
    let topic = cluster.topic("t", 2, &[]);
    let mut producer = cluster.producer();
    let out = producer.topic(&topic).unwrap();
    producer.begin().unwrap();
    for timestamp in [1_000, 2_000, 3_000] {
        producer.send(&OutRecord { timestamp, partition: Some(0), ..record(out, "k", "v") }).unwrap();
    }
    producer.commit(LIMIT).unwrap();
    let group = cluster.name("group");
    let reader = Reader::idle(&cluster.connection, &group, Isolation::Committed).unwrap();
    let partitions = [(topic.as_str(), 0), (topic.as_str(), 1)];
    let answer = |a, b| vec![(topic.clone(), 0, a), (topic.clone(), 1, b)];
    assert_eq!(reader.committed(&partitions, LIMIT).unwrap(), answer(None, None));
    reader.commit_offsets(&[(&topic, 0, 3)], Some(LIMIT)).unwrap();
    assert_eq!(reader.committed(&partitions, LIMIT).unwrap(), answer(Some(3), None));
    reader.commit_offsets(&[(&topic, 0, 4)], None).unwrap();
    let deadline = soon();
    while reader.committed(&partitions, LIMIT).unwrap() != answer(Some(4), None) {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn the_cluster_tells_what_a_start_needs() {
    let Some(cluster) = cluster("cluster") else { return };
    assert!(!cluster.admin.cluster_id(LIMIT).unwrap().is_empty());
    assert!(cluster.admin.brokers(LIMIT).unwrap() >= 1);
    assert!(cluster.admin.transaction_max_timeout(LIMIT).unwrap() >= Duration::from_secs(60));
    assert_eq!(cluster.admin.describe_topic(&cluster.name("none"), LIMIT).unwrap(), None);
    let error = cluster.admin.describe_configs(&cluster.name("none"), LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::EpochFailed, "{error}");
    let too_long = ProducerSettings::new(cluster.name("0"), Duration::from_secs(100_000), &[]);
    let mut producer = TransactionalProducer::create(&cluster.connection, &too_long).unwrap();
    let error = producer.init_transactions(LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
}

#[test]
fn an_unreachable_cluster_is_retried_and_says_why() {
    // Needs no Kafka: nobody listens on port 1.
    let connection = Connection::new("127.0.0.1:1", &BTreeMap::new()).unwrap();
    let short = Duration::from_millis(1_500);
    let admin = Admin::open(&connection).unwrap();
    let error = admin.cluster_id(short).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
    assert!(error.message.contains("refused"), "{error}");
    let error = admin.describe_topic("t", short).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
    let settings = ProducerSettings::new("id", Duration::from_secs(10), &[]);
    let mut producer = TransactionalProducer::create(&connection, &settings).unwrap();
    let error = producer.init_transactions(short).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
}

#[test]
fn the_control_topic_is_created_once_and_verified() {
    let Some(cluster) = cluster("control") else { return };
    let control = ControlTopic { name: cluster.name("control"), shards: 2 };
    let first = control.ensure(&cluster.admin, LIMIT).unwrap();
    assert!(first.created);
    assert_eq!(first.topic.partitions, 2);
    let again = control.ensure(&cluster.admin, LIMIT).unwrap();
    assert!(!again.created);
    assert_eq!(again.topic, first.topic);

    let more = ControlTopic { shards: 3, ..control };
    let error = more.ensure(&cluster.admin, LIMIT).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.message.contains("2 partitions for 3 shards"), "{error}");
    let wrong = ControlTopic { name: cluster.topic("wrong", 1, &[("cleanup.policy", "delete")]), shards: 1 };
    let error = wrong.ensure(&cluster.admin, LIMIT).unwrap_err();
    assert!(error.message.contains("cleanup.policy"), "{error}");
}

/// A control topic with a reader of each isolation.
fn control(cluster: &Cluster) -> (String, ControlReader, ControlReader) {
    let topic = ControlTopic { name: cluster.name("control"), shards: 1 };
    topic.ensure(&cluster.admin, LIMIT).unwrap();
    let open =
        |isolation| ControlReader::open(&cluster.connection, GROUP, &topic.name, 0, isolation).unwrap();
    let (committed, uncommitted) = (open(Isolation::Committed), open(Isolation::Uncommitted));
    (topic.name, committed, uncommitted)
}

/// Waits until committed readers see everything before `end`: a commit returns before its markers are written.
fn stable(reader: &ControlReader, end: i64) {
    let deadline = soon();
    while reader.bounds(deadline).unwrap().end < end {
        assert!(Instant::now() < deadline);
    }
}

fn values(newest: &Newest) -> Vec<(&str, &str)> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    newest.records.values().map(|record| (text(&record.key), text(&record.value))).collect()
}

#[test]
fn the_newest_decision_is_found_from_the_end_backwards() {
    let Some(cluster) = cluster("backwards") else { return };
    let (topic, committed, _) = control(&cluster);
    let empty = committed.newest(Until::End, &|_| false, soon()).unwrap();
    assert_eq!((empty.complete, empty.end, empty.records.len()), (true, 0, 0));

    let mut producer = cluster.producer();
    write(&mut producer, &topic, &[("decision", "old"), ("claim", "first")]);
    for i in 0..300 {
        write(&mut producer, &topic, &[("decision", &i.to_string())]);
    }
    stable(&committed, 604);
    // One stretch is enough for the decision, and does not reach the claim.
    let found = committed.newest(Until::End, &|newest| newest.get(b"decision").is_some(), soon()).unwrap();
    assert_eq!(values(&found), [("decision", "299")]);
    assert!(!found.complete);
    assert_eq!(found.end, 604);
    // Older stretches do not replace what is newer.
    let all = committed.newest(Until::End, &|newest| newest.get(b"claim").is_some(), soon()).unwrap();
    assert_eq!(values(&all), [("claim", "first"), ("decision", "299")]);
    let none = committed.newest(Until::End, &|newest| newest.get(b"nothing").is_some(), soon()).unwrap();
    assert!(none.complete);
    assert_eq!(values(&none), values(&all));
}

#[test]
fn a_start_waits_for_its_own_claim() {
    let Some(cluster) = cluster("claim") else { return };
    let (topic, committed, _) = control(&cluster);
    let mut old = cluster.producer();
    write(&mut old, &topic, &[("claim", "old"), ("decision", "1")]);
    let out = old.topic(&topic).unwrap();
    old.begin().unwrap();
    old.send(&record(out, "decision", "never committed")).unwrap();
    old.flush(LIMIT).unwrap();

    // Held back by the open transaction, the committed end stands before it.
    let mine = |record: &ControlRecord| record.key == b"claim" && record.value == b"mine";
    let error = committed
        .newest(Until::Record(&mine), &|_| true, Instant::now() + Duration::from_millis(500))
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry, "{error}");
    assert!(error.message.contains("did not come"), "{error}");

    let claim = std::thread::spawn({
        let (connection, topic, id) = (cluster.connection.clone(), topic.clone(), cluster.name("0"));
        move || {
            std::thread::sleep(Duration::from_millis(300));
            let settings = ProducerSettings::new(id, Duration::from_secs(60), &[]);
            let mut producer = TransactionalProducer::create(&connection, &settings).unwrap();
            producer.init_transactions(LIMIT).unwrap();
            write(&mut producer, &topic, &[("claim", "mine")]);
            producer
        }
    });
    let found =
        committed.newest(Until::Record(&mine), &|newest| newest.get(b"decision").is_some(), soon()).unwrap();
    assert_eq!(values(&found), [("claim", "mine"), ("decision", "1")]);
    let own = found.get(b"claim").unwrap().offset;
    assert_eq!(found.end, own + 1);

    // A later claim is seen by going on from there.
    let mut producer = claim.join().unwrap();
    let mut later = Vec::new();
    committed.scan(found.end, Until::End, soon(), &mut |record| later.push(record)).unwrap();
    assert_eq!(later, []);
    write(&mut producer, &topic, &[("claim", "another's")]);
    stable(&committed, own + 4);
    committed.scan(found.end, Until::End, soon(), &mut |record| later.push(record)).unwrap();
    assert_eq!(later.iter().map(|r| r.value.as_slice()).collect::<Vec<_>>(), [b"another's"]);
}

#[test]
fn recovery_sees_a_claim_before_it_is_decided_and_learns_its_fate() {
    let Some(cluster) = cluster("fate") else { return };
    let (topic, committed, uncommitted) = control(&cluster);
    let mut own = cluster.producer();
    write(&mut own, &topic, &[("claim", "own")]);
    let out = own.topic(&topic).unwrap();
    own.begin().unwrap();
    own.send(&record(out, "decision", "in doubt")).unwrap();
    own.flush(LIMIT).unwrap();

    // Our own open transaction hides nothing from an uncommitted reader.
    let after_own = 1;
    let claims_after = |from| {
        let mut claims = Vec::new();
        uncommitted
            .scan(from, Until::End, soon(), &mut |record| {
                if record.key == b"claim" {
                    claims.push(record.offset);
                }
            })
            .unwrap();
        claims
    };
    assert_eq!(claims_after(after_own), [0_i64; 0]);

    let mut other = cluster.producer();
    let out = other.topic(&topic).unwrap();
    other.begin().unwrap();
    other.send(&record(out, "claim", "other's")).unwrap();
    other.flush(LIMIT).unwrap();
    let claims = claims_after(after_own);
    assert_eq!(claims.len(), 1);
    assert_eq!(committed.fate(claims[0], soon()).unwrap(), Fate::Undecided);

    // It crashes before the commit; the next one ends its transaction, and commits.
    drop(other);
    let mut third = cluster.producer();
    assert_eq!(committed.fate(claims[0], soon()).unwrap(), Fate::AbortedOrReplaced);
    write(&mut third, &topic, &[("claim", "third's")]);
    stable(&committed, 8);
    let claims = claims_after(claims[0] + 1);
    assert_eq!(claims.len(), 1);
    assert_eq!(committed.fate(claims[0], soon()).unwrap(), Fate::Committed);
    assert_eq!(committed.fate(0, soon()).unwrap(), Fate::Committed);
    assert_eq!(uncommitted.fate(0, soon()).unwrap_err().kind, ErrorKind::Bug);
}
