//! What can be asked of a cluster and changed in it, as blocking calls with time limits.
//!
//! A client's requests end in its own private queue, so that calls from several threads do not mix.
//!
//! Traps: `create_topic` that ends in a time-out may have created the topic. Only `Created` proves that there
//! was none. A topic's id comes from DescribeTopics; brokers before 2.8 have none, and then recreating a topic
//! goes unnoticed. After a topic was created, other brokers (and even the same) may deny its existence for a
//! moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::errors::{KafkaError, Result};
use super::native::{AdminQueue, Client, ConfigOf, Role};
use super::permissions::Operation;
use super::properties::Connection;
use super::topic_limits::TopicLimits;

/// While a broker is awaited, the client is asked this often whether there is any hope.
const STEP: Duration = Duration::from_millis(250);

/// A client for administrative requests.
pub struct Admin {
    client: Arc<Client>,
}

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic's id, base64, or `None` from brokers before 2.8.
    pub id: Option<String>,
    /// How many partitions it has.
    pub partitions: i32,
    /// The smallest number of replicas of any partition.
    pub replication: usize,
}

/// A topic's configuration, defaults included.
#[derive(Clone, Debug)]
pub struct TopicConfig {
    topic: String,
    entries: BTreeMap<String, String>,
}

/// How a topic is to be created.
#[derive(Clone, Debug)]
pub struct NewTopic<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many partitions; `None` for the broker's default.
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` for the broker's default.
    pub replication: Option<i32>,
    /// Settings that differ from the broker's defaults.
    pub config: &'a [(&'a str, String)],
}

/// What creating a topic came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// There was none of this name, and now there is.
    Created,
    /// There is one of this name; it was not touched.
    AlreadyExisted,
}

impl TopicConfig {
    /// A setting's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(String::as_str)
    }

    /// A setting's value as a number, `None` if the broker does not have the setting.
    ///
    /// # Errors
    /// `Bug` for what is no number.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    KafkaError::bug(
                        format!("read the configuration of topic {}", self.topic),
                        format!("{name} is {value:?}, not a number"),
                    )
                })
            })
            .transpose()
    }

    /// A number that every broker has.
    ///
    /// # Errors
    /// `Bug` where it is missing or no number.
    pub fn required_number(&self, name: &str) -> Result<i64> {
        self.number(name)?.ok_or_else(|| {
            KafkaError::bug(
                format!("read the configuration of topic {}", self.topic),
                format!("the broker does not tell {name}"),
            )
        })
    }

    /// Whether a boolean setting is on; a missing one is off.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }
}

impl Admin {
    /// A client. This connects to nothing yet.
    ///
    /// # Errors
    /// `Config` for properties that do not fit together.
    pub fn open(connection: &Connection) -> Result<Self> {
        Ok(Self { client: Client::new(Role::Producer, &connection.admin())? })
    }

    /// The cluster's id.
    ///
    /// # Errors
    /// `Retry` when no broker answers in time, `Config` when brokers do not let us in.
    pub fn cluster_id(&self, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(id) = self.client.cluster_id(left.min(STEP)) {
                return Ok(id);
            }
            self.client.hopeless()?;
            if left.is_zero() {
                return Err(
                    self.explained(KafkaError::timed_out("read the cluster's id", "no broker answered"))
                );
            }
        }
    }

    /// How many brokers are alive.
    ///
    /// # Errors
    /// `Retry` when none answers in time.
    pub fn brokers(&self, timeout: Duration) -> Result<usize> {
        Ok(self.client.broker_ids(timeout)?.len())
    }

    /// The names of all topics that may be seen.
    ///
    /// # Errors
    /// `Retry` when no broker answers in time; `Config` without permission.
    pub fn topic_names(&self, timeout: Duration) -> Result<Vec<String>> {
        self.client.topic_names(timeout)
    }

    /// A topic's id, partitions and replicas; `None` if there is no such topic.
    ///
    /// # Errors
    /// `Config` without permission to describe it, `Retry` without an answer.
    pub fn describe_topic(&self, topic: &str, timeout: Duration) -> Result<Option<TopicDescription>> {
        let Some(found) = AdminQueue::new(&self.client)?.describe_topic(topic, false, timeout)? else {
            return Ok(None);
        };
        let partitions = i32::try_from(found.replicas.len())
            .map_err(|_| KafkaError::bug(format!("describe topic {topic}"), "too many partitions"))?;
        let replication = found.replicas.iter().copied().min().unwrap_or(0);
        Ok(Some(TopicDescription { id: found.id, partitions, replication }))
    }

    /// What this client may do with a topic; `None` where there is no such topic, or the brokers do not tell.
    ///
    /// # Errors
    /// As [`Self::describe_topic`].
    pub fn operations(&self, topic: &str, timeout: Duration) -> Result<Option<Vec<Operation>>> {
        let found = AdminQueue::new(&self.client)?.describe_topic(topic, true, timeout)?;
        Ok(found.and_then(|found| found.operations))
    }

    /// A topic's configuration, defaults included.
    ///
    /// # Errors
    /// `Config` for a topic that does not exist or without permission, `Retry` without an answer.
    pub fn describe_configs(&self, topic: &str, timeout: Duration) -> Result<TopicConfig> {
        let entries = AdminQueue::new(&self.client)?.describe_config(ConfigOf::Topic(topic), timeout)?;
        Ok(TopicConfig { topic: topic.to_owned(), entries })
    }

    /// The limits of a topic that is to be written.
    ///
    /// # Errors
    /// As [`Self::describe_configs`].
    pub fn topic_limits(&self, topic: &str, timeout: Duration) -> Result<TopicLimits> {
        let config = self.describe_configs(topic, timeout)?;
        let description = self.describe_topic(topic, timeout)?;
        TopicLimits::from_config(topic, &config, description.map_or(0, |found| found.partitions))
    }

    /// The longest time limit that the brokers grant a transaction (`transaction.max.timeout.ms`): the smallest
    /// among them, since any may become coordinator.
    ///
    /// # Errors
    /// `Config` without permission to read broker configuration, `Retry` without an answer.
    pub fn transaction_max_timeout(&self, timeout: Duration) -> Result<Duration> {
        let name = "transaction.max.timeout.ms";
        let what = "read the brokers' transaction.max.timeout.ms";
        let mut smallest = None;
        for id in self.client.broker_ids(timeout)? {
            let entries = AdminQueue::new(&self.client)?.describe_config(ConfigOf::Broker(id), timeout)?;
            let millis: u64 = entries
                .get(name)
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| KafkaError::config(what, format!("broker {id} does not tell")))?;
            smallest = Some(smallest.map_or(millis, |known: u64| known.min(millis)));
        }
        smallest
            .map(Duration::from_millis)
            .ok_or_else(|| self.explained(KafkaError::timed_out(what, "no broker is alive")))
    }

    /// Creates a topic if there is none of its name.
    ///
    /// # Errors
    /// `Config` for what the broker refuses; `Retry` without an answer, and then the topic may exist.
    pub fn create_topic(&self, topic: &NewTopic<'_>, timeout: Duration) -> Result<Creation> {
        let created = self.request_topic(topic, false, timeout)?;
        Ok(if created { Creation::Created } else { Creation::AlreadyExisted })
    }

    /// Asks whether [`Self::create_topic`] would work, and creates nothing.
    ///
    /// # Errors
    /// As [`Self::create_topic`].
    pub fn try_to_create_topic(&self, topic: &NewTopic<'_>, timeout: Duration) -> Result<()> {
        self.request_topic(topic, true, timeout).map(|_| ())
    }

    fn request_topic(&self, topic: &NewTopic<'_>, only_try: bool, timeout: Duration) -> Result<bool> {
        AdminQueue::new(&self.client)?.create_topic(
            topic.name,
            topic.partitions.unwrap_or(-1),
            topic.replication.unwrap_or(-1),
            topic.config,
            only_try,
            timeout,
        )
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// `Config` where there is none, `Retry` without an answer.
    #[cfg(test)]
    pub fn delete_topic(&self, topic: &str, timeout: Duration) -> Result<()> {
        AdminQueue::new(&self.client)?.delete_topic(topic, timeout)
    }

    /// Adds the client's last trouble to a bare time-out.
    fn explained(&self, mut error: KafkaError) -> KafkaError {
        self.client.poll_producer(Duration::ZERO);
        if let Some(last) = self.client.last_trouble() {
            error.message = format!("{}; the client's last trouble: {last}", error.message);
        }
        error
    }
}
