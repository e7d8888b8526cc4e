//! How far a consumer group has committed: what every contender does with its checkpoints, and so what shows from outside that it works.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const CALL: Duration = Duration::from_secs(30);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);

/// A group and the topic that it reads.
pub struct Group {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Group {
    /// Looks on, and never joins.
    ///
    /// # Errors
    /// If there is no such topic.
    pub fn new(bootstrap: &str, group: &str, topic: &str) -> Result<Group> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            // A transaction that is still open must not make the answer wait: what was committed before it is asked for.
            .set("isolation.level", "read_uncommitted")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
        if partitions == 0 {
            bail!("there is no topic {topic}");
        }
        Ok(Group { consumer, topic: topic.to_owned(), partitions })
    }

    /// Of the topic.
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// The committed offset of each partition, 0 where there is none.
    ///
    /// # Errors
    /// If the broker does not say.
    pub fn committed(&self) -> Result<Vec<i64>> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partitions {
            asked.add_partition(&self.topic, partition);
        }
        let began = Instant::now();
        let told = loop {
            match self.consumer.committed_offsets(asked.clone(), CALL) {
                Ok(told) => break told,
                // The group's coordinator is still being made, or moves.
                Err(error) if began.elapsed() < CALL && is_transient(&error) => std::thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
        };
        let offset = |partition| -> Result<i64> {
            let found = told.find_partition(&self.topic, partition).context("a partition is missing")?;
            found.error()?;
            Ok(if let Offset::Offset(offset) = found.offset() { offset } else { 0 })
        };
        (0..self.partitions).map(offset).collect()
    }

    /// Where each partition ends now.
    ///
    /// # Errors
    /// If the broker does not say.
    pub fn ends(&self) -> Result<Vec<i64>> {
        let end = |partition| -> Result<i64> {
            Ok(self.consumer.fetch_watermarks(&self.topic, partition, CALL)?.1)
        };
        (0..self.partitions).map(end).collect()
    }

    /// Calls `seen` with the committed offsets, every few milliseconds, until it is content.
    ///
    /// # Errors
    /// Those of `seen`, or if it is not content within `patience`.
    pub fn watch(
        &self,
        what: &str,
        patience: Duration,
        mut seen: impl FnMut(&[i64]) -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            let committed = self.committed()?;
            if seen(&committed)? {
                return Ok(());
            }
            if began.elapsed() > patience {
                bail!("waited {} s for {what}; committed: {committed:?}", patience.as_secs());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until all that is in the topic now has been committed; calls `alive` meanwhile.
    ///
    /// # Errors
    /// Those of `alive`, or if it is not committed within `patience`.
    pub fn wait_for_ends(&self, patience: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
        let ends = self.ends()?;
        self.watch("everything to be committed", patience, |committed| {
            alive()?;
            Ok(committed == ends)
        })
    }
}

fn is_transient(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    matches!(
        error.rdkafka_error_code(),
        Some(CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator)
    )
}
