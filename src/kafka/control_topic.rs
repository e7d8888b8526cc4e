//! The control topic: one per pipeline, one partition per shard, compacted; claims and decisions live in it.
//!
//! It is created explicitly and verified at every start. What is verified is what correctness needs: compaction
//! without deletion (else old decisions expire), a partition for every shard, no unclean leader election and
//! more than one copy where the cluster has brokers for it (else an acknowledged decision can be lost). Small
//! segments and an eager cleaner only keep starts fast: the active segment is never compacted.
//!
//! Only [`Ensured::created`] proves that there was no such topic before.

use std::time::{Duration, Instant};

use super::admin::{Admin, Creation, NewTopic, TopicConfig, TopicDescription};
use super::errors::{KafkaError, Result};

/// Which topic it is, and for how many shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlTopic {
    /// The topic's name.
    pub name: String,
    /// The number of shards; shard `n` uses partition `n`.
    pub shards: i32,
}

/// A control topic that exists and was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// Whether this very call created it: then it is empty, and there was none before.
    pub created: bool,
    /// What it is now.
    pub topic: TopicDescription,
}

/// How long to sleep before asking again for a topic that was just created.
const PROPAGATION_STEP: Duration = Duration::from_millis(50);

impl ControlTopic {
    /// Creates the topic if there is none, and verifies it.
    ///
    /// # Errors
    /// `Config`, naming the setting, for a topic that would not keep decisions, or without permission; `Retry`
    /// when brokers do not answer within `timeout`.
    pub fn ensure(&self, admin: &Admin, timeout: Duration) -> Result<Ensured> {
        let deadline = Instant::now() + timeout;
        let created = match admin.describe_topic(&self.name, timeout)? {
            Some(_) => false,
            None => self.request(admin, timeout, Admin::create_topic)? == Creation::Created,
        };
        let topic = loop {
            if let Some(topic) = admin.describe_topic(&self.name, timeout)? {
                break topic;
            }
            if Instant::now() >= deadline {
                return Err(KafkaError::timed_out(
                    format!("create control topic {}", self.name),
                    "created, but no broker knows it yet",
                ));
            }
            std::thread::sleep(PROPAGATION_STEP);
        };
        self.verify(&topic, &admin.describe_configs(&self.name, timeout)?)?;
        Ok(Ensured { created, topic })
    }

    /// Verifies the topic without creating it; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub fn inspect(&self, admin: &Admin, timeout: Duration) -> Result<Option<TopicDescription>> {
        let Some(topic) = admin.describe_topic(&self.name, timeout)? else { return Ok(None) };
        self.verify(&topic, &admin.describe_configs(&self.name, timeout)?)?;
        Ok(Some(topic))
    }

    /// Asks whether the topic could be created, and creates nothing.
    ///
    /// # Errors
    /// `Config` for what the broker would refuse, `Retry` without an answer.
    pub fn try_to_create(&self, admin: &Admin, timeout: Duration) -> Result<()> {
        self.request(admin, timeout, Admin::try_to_create_topic)
    }

    fn request<T>(
        &self,
        admin: &Admin,
        timeout: Duration,
        create: impl FnOnce(&Admin, &NewTopic<'_>, Duration) -> Result<T>,
    ) -> Result<T> {
        let replicas = admin.brokers(timeout)?.clamp(1, 3);
        let in_sync = if replicas >= 3 { 2 } else { 1 };
        let config = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", "16777216".to_owned()),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ("unclean.leader.election.enable", "false".to_owned()),
            ("min.insync.replicas", in_sync.to_string()),
        ];
        let replication = i32::try_from(replicas).ok();
        let topic =
            NewTopic { name: &self.name, partitions: Some(self.shards), replication, config: &config };
        create(admin, &topic, timeout)
    }

    fn verify(&self, topic: &TopicDescription, config: &TopicConfig) -> Result<()> {
        let problems = self.problems(
            topic,
            config.get("cleanup.policy").unwrap_or_default(),
            config.is_on("unclean.leader.election.enable"),
            config.required_number("min.insync.replicas")?,
        );
        if problems.is_empty() {
            return Ok(());
        }
        Err(KafkaError::config(format!("verify control topic {}", self.name), problems.join("; ")))
    }

    /// What is wrong with the topic, all at once.
    fn problems(
        &self,
        topic: &TopicDescription,
        policy: &str,
        unclean_election: bool,
        in_sync: i64,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let policies: Vec<&str> = policy.split(',').map(str::trim).collect();
        if !policies.contains(&"compact") {
            problems.push(format!("cleanup.policy is {policy:?} and must be \"compact\""));
        }
        if policies.contains(&"delete") {
            problems.push("cleanup.policy must not contain \"delete\": decisions would expire".to_owned());
        }
        if topic.partitions < self.shards {
            problems.push(format!("{} partitions for {} shards", topic.partitions, self.shards));
        }
        if unclean_election {
            problems.push(
                "unclean.leader.election.enable must be false: an acknowledged decision could be lost"
                    .to_owned(),
            );
        }
        let replicas = i64::try_from(topic.replication).unwrap_or(i64::MAX);
        if in_sync > replicas {
            problems.push(format!(
                "min.insync.replicas is {in_sync}, with {replicas} replicas: no decision could be written"
            ));
        }
        if replicas >= 3 && in_sync < 2 {
            problems.push(format!(
                "min.insync.replicas is {in_sync} and must be at least 2 with {replicas} replicas: \
                 an acknowledged decision could be lost with one broker"
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(
        partitions: i32,
        replication: usize,
        policy: &str,
        unclean: bool,
        in_sync: i64,
    ) -> Vec<String> {
        let control = ControlTopic { name: "ns.p.control".to_owned(), shards: 2 };
        let topic = TopicDescription { id: None, partitions, replication };
        control.problems(&topic, policy, unclean, in_sync)
    }

    #[test]
    fn good_topics_pass() {
        assert!(problems(2, 1, "compact", false, 1).is_empty());
        assert!(problems(5, 3, "compact", false, 2).is_empty());
    }

    #[test]
    fn each_mistake_is_named() {
        let one = |found: Vec<String>, text: &str| {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(text), "{found:?}");
        };
        one(problems(2, 1, "", false, 1), "must be \"compact\"");
        one(problems(2, 1, "compact,delete", false, 1), "must not contain \"delete\"");
        one(problems(1, 1, "compact", false, 1), "1 partitions for 2 shards");
        one(problems(2, 1, "compact", true, 1), "unclean.leader.election");
        one(problems(2, 1, "compact", false, 2), "no decision could be written");
        one(problems(2, 3, "compact", false, 1), "at least 2");
        assert_eq!(problems(1, 1, "delete", true, 2).len(), 5);
    }
}
