//! Whole topics: read from the beginning to the end, and written at a rate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::{Kafka, PATIENCE};

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, and those outside any.
    Committed,
    /// All, those of aborted and open transactions too.
    Uncommitted,
}

/// A record's headers, in order; a header may have no value.
pub type HeaderList = Vec<(String, Option<Vec<u8>>)>;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it was read.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key's bytes; `None` for no key.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: HeaderList,
}

impl Record {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.unwrap_or_default(),
        }
    }

    /// The last header of that name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// The value as JSON; panics if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().unwrap_or_default())
            .unwrap_or_else(|error| panic!("not JSON at {}/{}: {error}", self.partition, self.offset))
    }
}

/// Reads every record of a topic that is there now, up to the last stable offset or the log's end of each partition; sorted by
/// partition and offset.
pub fn read_all(kafka: &Kafka, topic: &str, isolation: Isolation) -> Vec<Record> {
    let consumer = kafka.consumer(match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    });
    let mut from = TopicPartitionList::new();
    let mut unread: BTreeSet<i32> = (0..kafka.partitions(topic)).collect();
    // A topic that is being written need never show its end: what was there at the beginning is enough.
    let end = |partition: &i32| consumer.fetch_watermarks(topic, *partition, PATIENCE).unwrap().1;
    let ends: Vec<i64> = unread.iter().map(end).collect();
    for partition in &unread {
        from.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let mut records = Vec::new();
    let mut last = Instant::now();
    while !unread.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                if message.offset() + 1 >= ends[message.partition() as usize] {
                    unread.remove(&message.partition());
                }
                records.push(Record::from(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
            }
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => {
                assert!(last.elapsed() < PATIENCE, "reading {topic}: nothing comes, {unread:?} unfinished");
                continue;
            }
        }
        last = Instant::now();
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// Calls `see` with the value of every committed record of a topic (nothing for a tombstone), and returns how many there are: for topics that
/// are too large to be held.
pub fn each_committed_value(kafka: &Kafka, topic: &str, mut see: impl FnMut(&[u8])) -> u64 {
    let consumer = kafka.consumer("read_committed");
    let mut from = TopicPartitionList::new();
    let mut unread = kafka.partitions(topic);
    for partition in 0..unread {
        from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let mut records = 0;
    while unread > 0 {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => {
                records += 1;
                see(message.payload().unwrap_or_default());
            }
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => panic!("reading {topic}: nothing comes"),
        }
    }
    records
}

/// A record to write.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Where to write it.
    pub partition: i32,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key's bytes, if any.
    pub key: Option<Vec<u8>>,
    /// The value's bytes; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: HeaderList,
}

/// An idempotent producer that counts what was not delivered.
pub struct Producer {
    inner: ThreadedProducer<Deliveries>,
    failed: Arc<AtomicU64>,
    topic: String,
}

struct Deliveries(Arc<AtomicU64>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Producer {
    /// A producer that writes to one topic.
    pub fn new(kafka: &Kafka, topic: &str) -> Self {
        Self::with(kafka, topic, &[])
    }

    /// A producer whose records belong to transactions of this id; see [`Producer::commit`] and [`Producer::abort`].
    pub fn transactional(kafka: &Kafka, topic: &str, id: &str) -> Self {
        let producer = Self::with(kafka, topic, &[("transactional.id", id)]);
        producer.inner.init_transactions(PATIENCE).unwrap();
        producer.inner.begin_transaction().unwrap();
        producer
    }

    fn with(kafka: &Kafka, topic: &str, settings: &[(&str, &str)]) -> Self {
        let mut config = kafka.client();
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("compression.type", "lz4");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let failed = Arc::new(AtomicU64::new(0));
        let inner = config.create_with_context(Deliveries(Arc::clone(&failed))).unwrap();
        Self { inner, failed, topic: topic.to_owned() }
    }

    /// Hands one record over, waiting while the queue is full.
    pub fn send(&self, record: &NewRecord) {
        loop {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            let mut to = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(record.partition);
            to = to.timestamp(record.timestamp).headers(headers);
            to.key = record.key.as_deref();
            to.payload = record.value.as_deref();
            match self.inner.send(to) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("producing to {}: {error}", self.topic),
            }
        }
    }

    /// Waits until everything is delivered.
    pub fn flush(&self) {
        self.inner.flush(PATIENCE).unwrap();
        assert_eq!(self.failed.load(Ordering::Relaxed), 0, "records of {} were not delivered", self.topic);
    }

    /// Commits the open transaction and begins another.
    pub fn commit(&self) {
        self.inner.commit_transaction(PATIENCE).unwrap();
        self.inner.begin_transaction().unwrap();
    }

    /// Aborts the open transaction, after everything was delivered, and begins another.
    pub fn abort(&self) {
        self.inner.flush(PATIENCE).unwrap();
        self.inner.abort_transaction(PATIENCE).unwrap();
        self.inner.begin_transaction().unwrap();
    }
}

/// Writes everything to a topic at once.
pub fn write_all(kafka: &Kafka, topic: &str, records: impl IntoIterator<Item = NewRecord>) {
    let producer = Producer::new(kafka, topic);
    records.into_iter().for_each(|record| producer.send(&record));
    producer.flush();
}

/// A producer that works in the background, at a rate, until it is stopped. So a test that is slow today does not run out of input.
pub struct Live {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Live {
    /// Starts writing `records` to `topic`, `per_second` of them.
    pub fn start(
        kafka: &'static Kafka,
        topic: &str,
        per_second: u64,
        records: impl Iterator<Item = NewRecord> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let producer = Producer::new(kafka, topic);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            for record in records {
                let due = Duration::from_micros(sent * 1_000_000 / per_second);
                if let Some(early) = due.checked_sub(start.elapsed()) {
                    std::thread::sleep(early.max(Duration::from_millis(2)));
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                producer.send(&record);
                sent += 1;
            }
            producer.flush();
            sent
        });
        Self { stop, thread }
    }

    /// Ends the production, and returns how many records were written and delivered.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
