//! Plain clients, without transactions or offsets to manage: what the demo writes its input and reads its proof with.
//!
//! They share nothing with the reader and the producer of the pipelines, on purpose: a mistake there must not hide behind the same
//! mistake in what checks it. Errors are for people, so that they are [`anyhow::Error`]s.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// How long a cluster may be silent before we give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visible {
    /// Those of committed transactions, and those outside any.
    Committed,
    /// All of them, those of aborted transactions too.
    All,
}

/// A record as a plain reader sees it.
#[derive(Debug)]
pub struct PlainRecord<'a> {
    /// Where it was read.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes.
    pub value: Option<&'a [u8]>,
    message: &'a BorrowedMessage<'a>,
}

impl<'a> PlainRecord<'a> {
    fn of(message: &'a BorrowedMessage<'a>) -> Self {
        let (key, value) = (message.key(), message.payload());
        Self { partition: message.partition(), offset: message.offset(), key, value, message }
    }

    /// The last header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let headers = self.message.headers()?;
        headers.iter().filter(|header| header.key == name).last().and_then(|header| header.value)
    }
}

/// A cluster.
#[derive(Debug, Clone)]
pub struct Plain {
    bootstrap: String,
}

impl Plain {
    /// The cluster behind `HOST:PORT[,…]`; nothing is connected yet.
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// Creates topics whose records do not expire, with the cluster's default replication.
    pub fn create_topics(&self, topics: &[(&str, i32)]) -> Result<()> {
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|(name, partitions)| {
                NewTopic::new(name, *partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1")
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let results = runtime.block_on(self.admin()?.create_topics(&new, &options()));
        for result in results.with_context(|| format!("creating topics at {}", self.bootstrap))? {
            result.map_err(|(topic, code)| anyhow::anyhow!("creating the topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes topics.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(self.admin()?.delete_topics(topics, &options()))?;
        Ok(())
    }

    /// Hands every record of a topic to `visit`, from the beginning to what is the end now, partition by partition in order.
    pub fn read(
        &self,
        topic: &str,
        visible: Visible,
        mut visit: impl FnMut(&PlainRecord<'_>) -> Result<()>,
    ) -> Result<u64> {
        let consumer = self.consumer(visible)?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        ensure!(partitions > 0, "the topic {topic} has no partitions");
        let mut unread: BTreeSet<i32> = (0..partitions as i32).collect();
        let mut from = TopicPartitionList::new();
        for partition in &unread {
            from.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&from)?;
        let mut count = 0;
        let mut last = Instant::now();
        while !unread.is_empty() {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Ok(message)) => {
                    visit(&PlainRecord::of(&message))?;
                    count += 1;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unread.remove(&partition);
                }
                Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
                None if last.elapsed() > PATIENCE => {
                    bail!("reading {topic}: nothing comes from partitions {unread:?}")
                }
                None => continue,
            }
            last = Instant::now();
        }
        Ok(count)
    }

    /// Follows partition 0 of a topic that need not be there yet, committed records only.
    pub fn follow(&self, topic: &str) -> Result<Follower> {
        let consumer = self.consumer(Visible::Committed)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&from)?;
        Ok(Follower { consumer })
    }

    /// An idempotent producer; records with a key go where the Java client would put them.
    pub fn producer(&self, topic: &str) -> Result<PlainProducer> {
        let failed = Arc::new(AtomicU64::new(0));
        let inner = self
            .config()
            .set("enable.idempotence", "true")
            .set("linger.ms", "10")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            .create_with_context(Deliveries(Arc::clone(&failed)))?;
        Ok(PlainProducer { inner, failed, topic: topic.to_owned() })
    }

    fn consumer(&self, visible: Visible) -> Result<BaseConsumer> {
        let isolation = match visible {
            Visible::Committed => "read_committed",
            Visible::All => "read_uncommitted",
        };
        let consumer = self
            .config()
            // librdkafka wants a name even where no group is joined and nothing committed.
            .set("group.id", "onceflow-plain-reader")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.queue.backoff.ms", "5")
            .create()?;
        Ok(consumer)
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("allow.auto.create.topics", "false");
        config
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// See [`Plain::follow`].
pub struct Follower {
    consumer: BaseConsumer,
}

impl Follower {
    /// Hands what has come since the last call to `visit`, without waiting. A topic that is not there yet is no error.
    pub fn drain(&self, mut visit: impl FnMut(&PlainRecord<'_>)) -> Result<()> {
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            match polled {
                Ok(message) => visit(&PlainRecord::of(&message)),
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) => match error.rdkafka_error_code() {
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition,
                    ) => {}
                    _ => return Err(error).context("following the control topic"),
                },
            }
        }
        Ok(())
    }
}

/// See [`Plain::producer`].
pub struct PlainProducer {
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

impl PlainProducer {
    /// Hands one record over, waiting while the queue is full. `timestamp` in milliseconds since 1970.
    pub fn send(&self, key: &[u8], value: &[u8], timestamp: i64) -> Result<()> {
        loop {
            let record = BaseRecord::to(&self.topic).key(key).payload(value).timestamp(timestamp);
            match self.inner.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("producing to {}", self.topic)),
            }
        }
    }

    /// Waits until everything is delivered; an error if anything was not.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush(PATIENCE).with_context(|| format!("producing to {}", self.topic))?;
        let failed = self.failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} records were not delivered to {}", self.topic);
        Ok(())
    }
}
