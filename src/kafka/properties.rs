//! How the clients are configured: our defaults, then the user's properties verbatim, then what the guarantee
//! needs. The last writer wins inside librdkafka, aliases included, so ours always win; the refused names of
//! `onceflow_engine::kafka_properties` only make sure that nobody is surprised by it.
//!
//! Traps behind the defaults:
//! - `fetch.queue.backoff.ms` (1000 by default) stops a partition for a second whenever its queue is full.
//! - The broker compares the *batch* with the topic's `max.message.bytes`, and librdkafka never splits a batch:
//!   thousands of tiny records to a topic that allows 2,000 bytes were all refused (tried). So the smallest limit
//!   among the sinks' topics bounds `batch.size`.
//! - With split queues `queued.max.messages.kbytes` counts per partition, not per consumer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use onceflow_engine::kafka_properties;

use super::errors::{KafkaError, Result};
use super::native::Conf;
use super::topic_limits::TopicLimits;

/// Which records a consumer sees, and which offset its ends of partitions stand at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records only; ends are last stable offsets.
    Committed,
    /// Every record, those of open and aborted transactions too; ends are high watermarks.
    Uncommitted,
}

/// How to reach one cluster: brokers, and the user's properties (TLS, SASL, tuning).
#[derive(Clone)]
pub struct Connection {
    bootstrap_servers: String,
    properties: BTreeMap<String, String>,
}

impl fmt::Debug for Connection {
    /// Property values may be secrets: only names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// What a transactional producer needs to know besides the connection.
#[derive(Clone, Debug)]
pub struct ProducerSettings {
    /// Exactly one per shard, for ever.
    pub transactional_id: String,
    /// How long a transaction may stay open before the broker ends it.
    pub transaction_timeout: Duration,
    /// The smallest `max.message.bytes` among the topics that will be written.
    pub smallest_limit: u64,
    /// The largest.
    pub largest_limit: u64,
}

/// Records that a consumer holds ready for its workers, of all partitions together, KiB. Holding more keeps no worker busier, and what has
/// waited long is out of the processor's caches when its turn comes.
const READY_KB: usize = 32 << 10;
/// Bounds of a partition's part of that.
const READY_PARTITION_KB: RangeInclusive<usize> = 512..=8 << 10;

/// Kafka's default `max.message.bytes`.
const DEFAULT_LIMIT: u64 = 1_048_588;

impl ProducerSettings {
    /// Settings for a producer that writes to these topics (control topic and dead letters included).
    pub fn new(
        transactional_id: impl Into<String>,
        transaction_timeout: Duration,
        topics: &[TopicLimits],
    ) -> Self {
        let limits = || topics.iter().map(|topic| topic.max_message_bytes);
        Self {
            transactional_id: transactional_id.into(),
            transaction_timeout,
            smallest_limit: limits().min().unwrap_or(DEFAULT_LIMIT),
            largest_limit: limits().max().unwrap_or(DEFAULT_LIMIT),
        }
    }
}

/// What is wrong with a user's properties: each with its name and the reason. Empty: nothing, as far as can be
/// known without connecting.
pub fn check(properties: &BTreeMap<String, String>) -> Vec<(String, String)> {
    properties
        .iter()
        .filter_map(|(name, value)| objection(name, value).map(|reason| (name.clone(), reason)))
        .collect()
}

fn objection(name: &str, value: &str) -> Option<String> {
    kafka_properties::refusal(name)
        .or_else(|| kafka_properties::java_only(name))
        .map(str::to_owned)
        .or_else(|| Conf::objection(name, value))
}

impl Connection {
    /// A connection with the user's properties, checked.
    ///
    /// # Errors
    /// `Config`, naming every property that is refused or unknown to librdkafka.
    pub fn new(bootstrap_servers: impl Into<String>, properties: &BTreeMap<String, String>) -> Result<Self> {
        let problems = check(properties);
        if !problems.is_empty() {
            let list: Vec<String> = problems.iter().map(|(name, why)| format!("`{name}`: {why}")).collect();
            return Err(KafkaError::config("read Kafka properties", list.join("; ")));
        }
        Ok(Self { bootstrap_servers: bootstrap_servers.into(), properties: properties.clone() })
    }

    /// Defaults, then the user's.
    fn base(&self, defaults: &[(&str, &str)]) -> Conf {
        let common = [
            ("client.id", "onceflow"),
            ("socket.keepalive.enable", "true"),
            // Brokers close idle connections; that is no news.
            ("log.connection.close", "false"),
            // Back within a second after a broker's restart, not within ten.
            ("reconnect.backoff.max.ms", "1000"),
        ];
        let mut conf = Conf::default();
        for (name, value) in common.iter().chain(defaults) {
            conf.set(*name, *value);
        }
        for (name, value) in &self.properties {
            conf.set(name, value);
        }
        conf.set("bootstrap.servers", &self.bootstrap_servers);
        conf.set("allow.auto.create.topics", "false");
        conf.set("statistics.interval.ms", "0");
        conf
    }

    /// For a consumer with assigned partitions. The group is never joined: it only names the offsets that are
    /// committed for lag tools.
    /// An end of partition is noticed by a fetch that waited `fetch_wait` and brought nothing. `partitions`: how many share the memory for
    /// records that are ready.
    pub(super) fn consumer(
        &self,
        group_id: &str,
        isolation: Isolation,
        fetch_wait: Duration,
        partitions: usize,
    ) -> Conf {
        let ready_kb =
            (READY_KB / partitions.max(1)).clamp(*READY_PARTITION_KB.start(), *READY_PARTITION_KB.end());
        let mut conf = self.base(&[
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", &fetch_wait.as_millis().to_string()),
            ("fetch.error.backoff.ms", "100"),
            ("queued.min.messages", "10000"),
            ("queued.max.messages.kbytes", &ready_kb.to_string()),
        ]);
        conf.set("group.id", group_id);
        conf.set("enable.auto.commit", "false");
        conf.set("enable.auto.offset.store", "false");
        conf.set("auto.offset.reset", "error");
        conf.set("enable.partition.eof", "true");
        conf.set(
            "isolation.level",
            match isolation {
                Isolation::Committed => "read_committed",
                Isolation::Uncommitted => "read_uncommitted",
            },
        );
        conf
    }

    /// For a consumer whose client tells how it is: see [`super::leaders`].
    pub(super) fn watched_consumer(
        &self,
        group_id: &str,
        fetch_wait: Duration,
        partitions: usize,
        every: Duration,
    ) -> Conf {
        let mut conf = self.consumer(group_id, Isolation::Committed, fetch_wait, partitions);
        conf.set("statistics.interval.ms", every.as_millis().to_string());
        conf
    }

    /// For the transactional producer.
    pub(super) fn producer(&self, settings: &ProducerSettings) -> Conf {
        // Below the smallest limit with room for the batch's framing. A user may want smaller batches, not larger.
        let bound = settings.smallest_limit.saturating_sub(1_000).clamp(1, i32::MAX.unsigned_abs().into());
        let mut conf = self.base(&[
            ("linger.ms", "20"),
            ("batch.size", "500000"),
            ("compression.codec", "lz4"),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "131072"),
        ]);
        if conf.get("batch.size").and_then(|size| size.parse().ok()).is_some_and(|size: u64| size > bound) {
            conf.set("batch.size", bound.to_string());
        }
        let largest = settings.largest_limit.clamp(1_000, 1_000_000_000);
        conf.set("message.max.bytes", largest.to_string());
        conf.set("transactional.id", &settings.transactional_id);
        conf.set("transaction.timeout.ms", settings.transaction_timeout.as_millis().to_string());
        conf.set("enable.idempotence", "true");
        conf.set("acks", "all");
        conf.set("delivery.report.only.error", "true");
        conf.set("partitioner", "murmur2_random");
        conf
    }

    /// For administrative requests.
    pub(super) fn admin(&self) -> Conf {
        self.base(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::super::native::{Client, Role};
    use super::*;
    use onceflow_protocol::ErrorKind;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn settings() -> ProducerSettings {
        ProducerSettings::new("ns.p.0", Duration::from_secs(90), &[])
    }

    #[test]
    fn every_client_can_be_built() {
        let connection = Connection::new("localhost:1", &BTreeMap::new()).unwrap();
        let consumer = connection.consumer("group", Isolation::Committed, Duration::from_millis(100), 4);
        Client::new(Role::Consumer, &consumer).unwrap();
        Client::new(Role::Producer, &connection.producer(&settings())).unwrap();
        Client::new(Role::Producer, &connection.admin()).unwrap();
    }

    #[test]
    fn partitions_share_the_memory_for_records_that_are_ready() {
        let connection = Connection::new("localhost:1", &BTreeMap::new()).unwrap();
        let ready = |partitions| {
            let conf = connection.consumer("group", Isolation::Committed, Duration::ZERO, partitions);
            conf.get("queued.max.messages.kbytes").unwrap().to_owned()
        };
        assert_eq!([0, 1, 4, 16, 1000].map(ready), ["8192", "8192", "8192", "2048", "512"]);
    }

    #[test]
    fn users_win_over_defaults_and_lose_against_the_guarantee() {
        let mut connection = Connection::new("localhost:1", &properties(&[("linger.ms", "3")])).unwrap();
        connection.properties.insert("acks".to_owned(), "1".to_owned());
        let conf = connection.producer(&settings());
        assert_eq!(conf.get("linger.ms"), Some("3"));
        assert_eq!(conf.get("acks"), Some("all"));
        assert_eq!(conf.get("transaction.timeout.ms"), Some("90000"));
    }

    #[test]
    fn mistakes_are_reported_by_name_and_all_at_once() {
        let found = check(&properties(&[
            ("acks", "1"),
            ("sasl.jaas.config", "x"),
            ("no.such.property", "1"),
            ("linger.ms", "soon"),
            ("security.protocol", "plaintext"),
        ]));
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["acks", "linger.ms", "no.such.property", "sasl.jaas.config"]);
        let error =
            Connection::new("x:1", &properties(&[("acks", "1"), ("no.such.property", "1")])).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.contains("`acks`") && error.message.contains("`no.such.property`"), "{error}");
    }

    #[test]
    fn the_refused_names_exist_and_the_java_names_do_not() {
        for name in kafka_properties::refused_names() {
            let objection = Conf::objection(name, "");
            let unknown = objection.is_some_and(|text| text.contains("No such configuration property"));
            assert!(!unknown, "librdkafka has no `{name}`: nobody needs to refuse it");
        }
        for name in kafka_properties::java_only_names() {
            let objection = Conf::objection(name, "").unwrap_or_default();
            assert!(
                objection.contains("No such configuration property") || objection.contains("Java"),
                "librdkafka knows `{name}`: {objection}"
            );
        }
    }

    #[test]
    fn the_smallest_topic_bounds_the_batch_and_the_largest_the_record() {
        let topics: Vec<TopicLimits> = [100_000, 2_000_000]
            .map(|bytes| TopicLimits {
                topic: "t".to_owned(),
                max_message_bytes: bytes,
                before_max_ms: None,
                after_max_ms: None,
                partitions: 1,
            })
            .into();
        let settings = ProducerSettings::new("id", Duration::from_secs(60), &topics);
        let batch = |wanted: &[(&str, &str)]| {
            let conf = Connection::new("x:1", &properties(wanted)).unwrap().producer(&settings);
            conf.get("batch.size").unwrap().to_owned()
        };
        assert_eq!(batch(&[]), "99000");
        assert_eq!(batch(&[("batch.size", "200000")]), "99000");
        assert_eq!(batch(&[("batch.size", "5000")]), "5000");
        let conf = Connection::new("x:1", &BTreeMap::new()).unwrap().producer(&settings);
        assert_eq!(conf.get("message.max.bytes"), Some("2000000"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let connection = Connection::new("x:1", &properties(&[("sasl.password", "hunter2")])).unwrap();
        assert!(!format!("{connection:?}").contains("hunter2"));
    }
}
