//! Reading source partitions: one consumer, manual assignment, and one queue per partition that the worker
//! which owns the partition drains in batches.
//!
//! Guarantees:
//! - Queues are split off before the partitions are assigned, so that no record can go astray. A record on the
//!   main queue, or one below its queue's [`PartitionQueue::next_offset`], is a broken invariant (`Bug`).
//! - Only committed records arrive, in offset order; gaps are normal (markers, compaction, aborted records).
//! - The next offset also moves over transaction markers: the end-of-partition event carries the position.
//! - A position that is not in the log (retention, truncation) is an error that names it (`Data`), never a jump.
//! - Trouble that the client repairs by itself (a broker away, a leader moving) is logged and not returned: a
//!   partition that stands still shows in its lag, not as an error, and in [`PartitionQueue::is_heard`].
//!
//! Recovery: none. After an error reader and queues are thrown away, and a new reader begins at the decided
//! positions. Queues and batches keep the consumer alive; it goes with the last of them.
//!
//! Traps, tried on a real Kafka:
//! - The end of a partition stands at the last stable offset, and comes once for each time that it is reached.
//! - Pausing drops what was fetched but not taken, and resuming fetches it again, but only after up to a second
//!   (0.85 s where the broker has no other partition to fetch). So back-pressure is better done by not polling:
//!   fetching stops when the queue is full, and whoever polls again finds a full queue at once.
//! - The queue's limits count records as they are after decompression, but are looked at between fetches: one
//!   fetch (1 MB) of well compressed records overshoots them by its compression ratio.
//! - A topic that is deleted and created anew is read on at the old offset, without an error where the new log
//!   is long enough by then: whoever owns the reader compares topic ids (`Admin::describe_topic`).
//! - A look-up by time can find a transaction's marker, whose time is the commit's: an offset, but no record.

use std::sync::Arc;
use std::time::Duration;

use super::errors::{Code, KafkaError, Result};
use super::leaders::{self, Heard, Leaders};
use super::native::{Client, Conf, MessageBatch, Partitions, Queue, Role};
use super::permissions::{Operation, Resource};
use super::properties::{Connection, Isolation};

/// How long a broker holds a fetch at a partition's end. New records end the wait; long waits save requests.
const SOURCE_FETCH_WAIT: Duration = Duration::from_millis(100);
const SCAN_FETCH_WAIT: Duration = Duration::from_millis(10);

/// The consumer's main handle.
pub struct Reader {
    client: Arc<Client>,
    group: Resource,
    /// Where silence matters.
    leaders: Option<Leaders>,
}

/// The queue of one assigned partition.
pub struct PartitionQueue {
    topic: Arc<str>,
    partition: i32,
    next_offset: i64,
    queue: Queue,
    /// Where silence matters.
    heard: Option<Arc<Heard>>,
}

/// What one poll brought.
#[derive(Debug)]
pub struct Fetched {
    /// Records in offset order, perhaps none.
    pub batch: MessageBatch,
    /// The partition's end was reached behind the batch's last record; the position there. Nothing of it is
    /// known any more once a later poll brings records without it.
    pub reached_end: Option<i64>,
}

/// A partition's first offset and its end (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still in the log.
    pub low: i64,
    /// The last stable offset of a committed reader, the high watermark of an uncommitted one.
    pub end: i64,
}

/// An offset per partition, where there is one.
pub type Offsets = Vec<(String, i32, Option<i64>)>;

impl Reader {
    /// Opens a consumer on partitions, each at the next offset to read, with a queue for each in the same order.
    /// The group is not joined. With `idle_after`, the shortest time after which the silence of one of them counts, the
    /// consumer watches whether their leaders answer.
    ///
    /// # Errors
    /// `Config` for what librdkafka refuses. Brokers are not asked yet: what they object to comes through
    /// the queues.
    pub fn open(
        connection: &Connection,
        group_id: &str,
        assignments: &[(&str, i32, i64)],
        idle_after: Option<Duration>,
    ) -> Result<(Self, Vec<PartitionQueue>)> {
        let conf = match idle_after {
            None => connection.consumer(group_id, Isolation::Committed, SOURCE_FETCH_WAIT, assignments.len()),
            Some(after) => {
                let every = leaders::interval(after);
                connection.watched_consumer(group_id, SOURCE_FETCH_WAIT, assignments.len(), every)
            }
        };
        let mut reader = Self { leaders: idle_after.map(Leaders::new), ..Self::with(&conf, group_id)? };
        let queues = reader.assign(assignments)?;
        Ok((reader, queues))
    }

    /// A consumer without partitions, to ask for offsets, or for a short scan: it notices the end of a
    /// partition quickly.
    ///
    /// # Errors
    /// `Config` for what librdkafka refuses.
    pub fn idle(connection: &Connection, group_id: &str, isolation: Isolation) -> Result<Self> {
        let conf = connection.consumer(group_id, isolation, SCAN_FETCH_WAIT, 1);
        Self::with(&conf, group_id)
    }

    fn with(conf: &Conf, group_id: &str) -> Result<Self> {
        let group = Resource::Group(group_id.to_owned());
        Ok(Self { client: Client::new(Role::Consumer, conf)?, group, leaders: None })
    }

    /// librdkafka looks for the coordinator of a group that it never joins.
    fn unless_repaired(&self, error: KafkaError) -> Result<()> {
        error.needing(Operation::Read, &self.group).unless_repaired()
    }

    /// Splits off the queues and then assigns, once per consumer.
    pub(super) fn assign(&mut self, assignments: &[(&str, i32, i64)]) -> Result<Vec<PartitionQueue>> {
        let queues = assignments
            .iter()
            .map(|&(topic, partition, next_offset)| {
                if next_offset < 0 {
                    // librdkafka would take it for one of its symbols, "the end" for example.
                    return Err(KafkaError::bug(
                        "assign partitions",
                        format!("{topic} [{partition}] at offset {next_offset}"),
                    ));
                }
                let queue = Queue::of_partition(&self.client, topic, partition)?;
                let topic: Arc<str> = Arc::from(topic);
                let heard = self.leaders.as_mut().map(|leaders| leaders.watch(Arc::clone(&topic), partition));
                Ok(PartitionQueue { topic, partition, next_offset, queue, heard })
            })
            .collect::<Result<Vec<_>>>()?;
        Partitions::new(assignments.iter().copied())?.assign(&self.client)?;
        Ok(queues)
    }

    /// Serves the main queue without waiting: errors of the client as a whole. To be called regularly (every
    /// 100 ms or so), from any one thread.
    ///
    /// # Errors
    /// What the client cannot repair by itself; `Bug` for a record, which belongs to a split queue.
    pub fn poll_main(&mut self) -> Result<()> {
        while let Some((batch, events)) = self.client.poll_consumer(Duration::ZERO) {
            if !batch.is_empty() {
                return Err(KafkaError::bug(
                    "serve the consumer's main queue",
                    format!("a record at offset {} arrived beside its partition's queue", batch.offset(0)),
                ));
            }
            for event in events {
                if event.code != Code::PartitionEOF {
                    self.unless_repaired(KafkaError::from_code(
                        "read from Kafka",
                        event.code,
                        event.message,
                    ))?;
                }
            }
        }
        if let (Some(leaders), Some(statistics)) = (&self.leaders, self.client.take_statistics()) {
            leaders.note(&statistics);
        }
        self.client.take_errors().into_iter().try_for_each(|error| self.unless_repaired(error))
    }

    /// Commits group offsets, which serve lag tools only. Without `wait` the answer is not seen.
    ///
    /// # Errors
    /// What the coordinator answers within `wait`; nobody needs to react to it.
    pub fn commit_offsets(&self, next_offsets: &[(&str, i32, i64)], wait: Option<Duration>) -> Result<()> {
        let offsets = Partitions::new(next_offsets.iter().copied())?;
        let committed = match wait {
            Some(timeout) => offsets.commit_and_wait(&self.client, timeout),
            None => offsets.commit(&self.client),
        };
        committed.map_err(|error| error.needing(Operation::Read, &self.group))
    }

    /// The group's committed offsets; their presence means that this is not a first start.
    ///
    /// # Errors
    /// `Retry` without a coordinator in time, `Config` without permission.
    pub fn committed(&self, partitions: &[(&str, i32)], timeout: Duration) -> Result<Offsets> {
        let committed = list(partitions, 0)?.committed(&self.client, timeout);
        committed.map_err(|error| error.needing(Operation::Read, &self.group))
    }

    /// A partition's first offset and its last stable offset.
    ///
    /// # Errors
    /// `Retry` without a leader in time, `Config` for a partition that does not exist.
    pub fn beginning_and_stable_end(&self, topic: &str, partition: i32, timeout: Duration) -> Result<Bounds> {
        let bounds = self.client.query_bounds(topic, partition, timeout);
        let (low, end) =
            bounds.map_err(|error| error.needing(Operation::Describe, &Resource::Topic(topic.to_owned())))?;
        Ok(Bounds { low, end })
    }
}

impl Reader {
    /// The offset of a partition's first record with this timestamp (milliseconds since 1970) or a later one; `None` if there is no
    /// such record before the last stable offset.
    ///
    /// # Errors
    /// `Retry` without a leader in time, `Config` for a partition that does not exist.
    pub fn first_at_or_after(
        &self,
        topic: &str,
        partition: i32,
        timestamp: i64,
        timeout: Duration,
    ) -> Result<Option<i64>> {
        let found = list(&[(topic, partition)], timestamp)?.offsets_for_times(&self.client, timeout)?;
        Ok(found.first().and_then(|(_, _, offset)| *offset))
    }
}

fn list(partitions: &[(&str, i32)], offset: i64) -> Result<Partitions> {
    Partitions::new(partitions.iter().map(|&(topic, partition)| (topic, partition, offset)))
}

impl PartitionQueue {
    /// The partition's topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The offset to read next: behind the last record taken, or further where only markers follow.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Whether the partition's leader has answered lately: only then does it mean anything that no record comes. Always, where
    /// nobody asked to watch it.
    pub fn is_heard(&self) -> bool {
        self.heard.as_ref().is_none_or(|heard| heard.lately())
    }

    /// Takes up to `max` records that are there; where none is, waits up to `timeout` for the first.
    ///
    /// # Errors
    /// `Data` where the position is not in the log, `Config` where the partition is gone or forbidden, `Bug` for
    /// a record below the next offset. Records of the same poll are lost with the error, which is no loss,
    /// since the next reader begins at decided positions.
    pub fn poll(&mut self, max: usize, timeout: Duration) -> Result<Fetched> {
        let (batch, events) = self.queue.take(max, timeout);
        for i in 0..batch.len() {
            let offset = batch.offset(i);
            if offset < self.next_offset {
                return Err(KafkaError::bug(
                    self.reading(),
                    format!("a record at offset {offset}, below the next offset {}", self.next_offset),
                ));
            }
            self.next_offset = offset + 1;
        }
        let mut reached_end = None;
        for event in events {
            if event.code == Code::PartitionEOF {
                self.next_offset = self.next_offset.max(event.offset);
                // Records behind the event mean that the end has moved on.
                reached_end = (event.after == batch.len()).then_some(self.next_offset);
            } else {
                KafkaError::from_code(self.reading(), event.code, event.message)
                    .needing(Operation::Read, &Resource::Topic(self.topic.to_string()))
                    .unless_repaired()?;
            }
        }
        Ok(Fetched { batch, reached_end })
    }

    fn reading(&self) -> String {
        format!("read {} [{}] at offset {}", self.topic, self.partition, self.next_offset)
    }
}
