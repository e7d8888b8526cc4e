//! The transactional producer, owned by one sink thread, which alone makes its blocking calls.
//!
//! Guarantees:
//! - No send is silently absent. A refused one is returned: a full queue apart, because the caller waits and
//!   repeats. One that fails later makes the commit fail, and is kept, with its topic and kind.
//! - `abort_transaction` does not exist here: the next `init_transactions` ends the transaction *and* bumps the
//!   epoch, so that a delayed request cannot slip into the next transaction.
//! - Dropping a producer drops what it has queued, and does not wait for brokers.
//!
//! An error of the commit is `OutcomeUnknown`, with two exceptions: `Fenced`, whose outcome is as unknown but which tells
//! the recovery to look who it was, and a record that the broker refused (`Data`). librdkafka never ends a transaction in which a delivery failed, so nothing can have been
//! committed; and stopping is safe in any case, since the next start reads the decision.
//!
//! Traps, tried on a real Kafka:
//! - A second producer with the same id surfaces as fatal `_FENCED`, at the latest when the commit is tried; a
//!   transaction that the broker timed out surfaces in the same way.
//! - A timestamp of 0 is replaced by the present: `topic_limits` refuses it.
//! - A topic that does not exist holds its records back for `topic.metadata.propagation.max.ms` (30 s), and then
//!   fails them as unknown (`Config`).
//! - Without success reports librdkafka's flush looks only every 10 ms whether all is delivered, also inside the
//!   commit: a one-record transaction took 24 ms, and takes 9 with a flush in steps of 1 ms before it.
//! - Right after a commit the next transaction's first request is refused until the markers are written, and is
//!   repeated by the client after 20 ms.
//! - A delivery error of librdkafka must not be read by `rd_kafka_message_errstr`: for produced messages that
//!   is the message's value, without a terminator.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceflow_protocol::ErrorKind;

use super::errors::{Code, KafkaError, Result};
use super::native::{Client, Outgoing, Role, TopicHandle};
use super::permissions::{Operation, Resource};
use super::properties::{Connection, ProducerSettings};

/// A topic of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicRef(usize);

/// A record to be written. It is copied during the send.
#[derive(Clone, Copy, Debug)]
pub struct OutRecord<'a> {
    /// Where to.
    pub topic: TopicRef,
    /// The partition, or `None` for the Java client's choice by key (murmur2; any for a null key).
    pub partition: Option<i32>,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970, greater than 0.
    pub timestamp: i64,
    /// Header names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The producer's queue is full: poll, wait, and send the same record again.
    #[error("the producer's queue is full")]
    QueueFull,
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] KafkaError),
}

/// A producer with one transactional id.
pub struct TransactionalProducer {
    topics: Vec<TopicHandle>,
    by_name: HashMap<String, TopicRef>,
    id: Resource,
    client: Arc<Client>,
}

/// One call of `init_transactions` waits this long before it is repeated, so that the deadline is kept.
const INIT_STEP: Duration = Duration::from_secs(5);

impl TransactionalProducer {
    /// Creates a producer. Nobody is fenced yet.
    ///
    /// # Errors
    /// `Config` for properties that do not fit together.
    pub fn create(connection: &Connection, settings: &ProducerSettings) -> Result<Self> {
        let client = Client::new(Role::Producer, &connection.producer(settings))?;
        let id = Resource::TransactionalId(settings.transactional_id.clone());
        Ok(Self { topics: Vec::new(), by_name: HashMap::new(), id, client })
    }

    /// Fences every older producer of this id, ends what it had open, and returns when the markers of that are
    /// written. Repeats what may be repeated until `timeout` has passed.
    ///
    /// # Errors
    /// `Retry` when the time was not enough (a predecessor's transaction may still be ending); `Fenced`;
    /// `Config` without permission or with a time limit above the broker's.
    pub fn init_transactions(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.init_transactions(left.min(INIT_STEP)) {
                Err(error) if error.kind == ErrorKind::Retry && Instant::now() < deadline => {
                    tracing::debug!(%error, "init_transactions goes on");
                    // A refusal that comes at once must not turn into a busy loop.
                    std::thread::sleep(Duration::from_millis(50).min(left));
                    self.poll(Duration::ZERO)?;
                }
                result => return result.map_err(|error| error.needing(Operation::Write, &self.id)),
            }
        }
    }

    /// Begins a transaction. No broker hears of it before its first record.
    ///
    /// # Errors
    /// `Fenced` or `EpochFailed` where the client can no more.
    pub fn begin(&mut self) -> Result<()> {
        self.client.begin_transaction()
    }

    /// The reference by which records name a topic. Asks no broker.
    ///
    /// # Errors
    /// `Config` for a name that Kafka does not allow.
    pub fn topic(&mut self, name: &str) -> Result<TopicRef> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(*known);
        }
        let topic = TopicRef(self.topics.len());
        self.topics.push(TopicHandle::new(&self.client, name)?);
        self.by_name.insert(name.to_owned(), topic);
        Ok(topic)
    }

    /// Queues a record of the open transaction.
    ///
    /// # Errors
    /// [`SendError::QueueFull`] apart from everything else; `Data` for a record that is too large, `Bug` for one
    /// without a timestamp or with another producer's topic.
    pub fn send(&mut self, record: &OutRecord<'_>) -> std::result::Result<(), SendError> {
        let Some(topic) = self.topics.get(record.topic.0) else {
            return Err(KafkaError::bug("send a record", "the topic belongs to another producer").into());
        };
        if record.timestamp <= 0 {
            return Err(KafkaError::bug(
                "send a record",
                format!("timestamp {} was not refused before", record.timestamp),
            )
            .into());
        }
        let outgoing = Outgoing {
            partition: record.partition,
            key: record.key,
            value: record.value,
            timestamp: record.timestamp,
            headers: record.headers,
        };
        topic.produce(&outgoing).map_err(|error| match error.code {
            Some(Code::QueueFull) => SendError::QueueFull,
            _ => SendError::Failed(error),
        })
    }

    /// Serves the client's reports, waiting up to `timeout` for one: failed deliveries, and errors of the client
    /// as a whole. To be called regularly while nothing else is.
    ///
    /// # Errors
    /// What ends the epoch: `Data` where the broker refused a record, `Fenced`, `Config`.
    pub fn poll(&mut self, timeout: Duration) -> Result<()> {
        self.client.poll_producer(timeout);
        self.delivered()?;
        let errors = self.client.take_errors().into_iter();
        errors
            .map(|error| error.needing(Operation::Write, &self.id))
            .try_for_each(KafkaError::unless_repaired)
    }

    /// Pushes out what is queued, at once, and waits until all of it is delivered.
    ///
    /// # Errors
    /// `Retry` when records are still on their way after `timeout`; the failure, if one failed.
    pub fn flush(&mut self, timeout: Duration) -> Result<()> {
        let flushed = self.client.flush(timeout);
        self.delivered()?;
        flushed
    }

    /// Flushes and commits the transaction.
    ///
    /// # Errors
    /// Before the commit is tried: a delivery failure, with its kind, or `Retry` when the flush takes longer than
    /// `timeout`. From the commit itself `OutcomeUnknown`, `Fenced` or `Data`, as the module header
    /// explains.
    pub fn commit(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        self.flush(timeout)?;
        let left = deadline.saturating_duration_since(Instant::now());
        self.client.commit_transaction(left).map_err(|error| match self.client.failed_delivery() {
            Some(refused) if refused.kind == ErrorKind::Data => refused,
            // Unknown as well, but the recovery should know that somebody fenced us.
            _ if error.kind == ErrorKind::Fenced => error,
            _ => error.with_kind(ErrorKind::OutcomeUnknown),
        })
    }

    fn delivered(&self) -> Result<()> {
        self.client.failed_delivery().map_or(Ok(()), Err)
    }

    /// Gives up a producer that may be stuck: what it has queued is dropped, and its threads are waited for
    /// elsewhere. If not even that can be started it is leaked, which is harmless once it is fenced.
    pub fn abandon(self) {
        self.client.purge();
        let producer = ManuallyDrop::new(self);
        let end = move || drop(ManuallyDrop::into_inner(producer));
        if let Err(error) = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(end) {
            tracing::warn!(%error, "an abandoned producer is leaked");
        }
    }
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        // Without this, ending the client would wait for brokers to take what is queued.
        self.client.purge();
    }
}
