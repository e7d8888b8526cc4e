//! The durable forms of the control topic: claims and decisions, as versioned JSON.
//!
//! The control topic is compacted: its keys are [`Claim::KEY`] and [`Decision::KEY`], so that it never holds much more than the
//! newest of each. A decision is written inside its epoch's transaction and is the only authority on what to restore.

use serde::{Deserialize, Serialize};

use crate::disorder::Disorder;
use crate::ids::{ClaimId, Epoch, NextOffset};
use crate::time::Watermark;

/// Version of the durable forms written by this code; a record with another version is refused.
pub const FORMAT_VERSION: u32 = 1;

/// "I own this shard from here on": committed in a tiny transaction of its own right after `init_transactions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Fresh for every initialisation of the producer.
    pub claim: ClaimId,
    /// The process, for people.
    pub instance: String,
    /// Host name, for people.
    pub host: String,
    /// When the process started, milliseconds since the epoch, for people.
    pub started_ms: i64,
    /// The transactional id that the claim was made with.
    pub transactional_id: String,
}

impl Claim {
    /// Key of claims in the control topic.
    pub const KEY: &str = "claim";
}

/// Where an epoch ended, and what it ended with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// The epoch that this decision ends; 0 for the start offsets of a new pipeline.
    pub epoch: Epoch,
    /// Names the attempt at this epoch; unique.
    pub attempt: String,
    /// Who decided.
    pub claim: ClaimId,
    /// The transactional id that this was decided with.
    pub transactional_id: String,
    /// Next offsets and watermarks, one for each source partition.
    pub positions: Vec<Position>,
    /// Cumulative over the life of the pipeline.
    pub counts: Counts,
    /// Forced restores and savepoints applied so far, so that a repeated command line applies none twice.
    #[serde(default)]
    pub requests: Vec<String>,
    /// The snapshot that goes with it; none for a stateless pipeline, and none at epoch 0.
    pub manifest: Option<ManifestRef>,
    /// Steps whose state in that snapshot is not to be restored: an operator discarded it, and no snapshot without it was taken yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,
    /// Identity of the source topics, so that a topic that was created anew is not taken for its predecessor.
    pub topics: Vec<TopicIdentity>,
}

impl Decision {
    /// Key of decisions in the control topic.
    pub const KEY: &str = "decision";

    /// No epoch, count or offset gets this far: larger ones are damage, and arithmetic with them would end.
    pub const LIMIT: u64 = 1 << 62;

    /// Whether an instance can have written these numbers. Whoever reads a decision asks first.
    ///
    /// # Errors
    /// Says which number is impossible.
    pub fn check(&self) -> Result<(), String> {
        let Counts { read, used, filtered, late, dead, dropped, out } = self.counts;
        if let Some(count) =
            [read, used, filtered, late, dead, dropped, out].iter().find(|count| **count >= Self::LIMIT)
        {
            return Err(format!("it counts {count} records"));
        }
        if self.epoch.0 >= Self::LIMIT {
            return Err(format!("it ends epoch {}", self.epoch));
        }
        let impossible =
            |at: &&Position| at.partition < 0 || !(0..Self::LIMIT as i64).contains(&at.next_offset.0);
        match self.positions.iter().find(impossible) {
            Some(at) => Err(format!("it is at offset {} of {}-{}", at.next_offset, at.topic, at.partition)),
            None => Ok(()),
        }
    }
}

/// How far one source partition has been consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Name of the source.
    pub source: String,
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The offset to read next.
    pub next_offset: NextOffset,
    /// The partition's watermark, if it ever had a record.
    pub watermark: Option<Watermark>,
    /// How far its records came out of order, where the watermark's delay follows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disorder: Option<Disorder>,
}

/// Where a snapshot is, and the hash of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRef {
    /// File name, relative to the shard's directory in the checkpoint storage.
    pub file: String,
    /// Hash of the manifest's bytes, in hexadecimal.
    pub hash: String,
}

/// A topic's name and the id that Kafka gave it (KIP-516).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicIdentity {
    /// Name of the source: each may read from a cluster of its own. Empty in decisions of versions that knew of one cluster only.
    #[serde(default)]
    pub source: String,
    /// Topic.
    pub topic: String,
    /// Kafka's id of it.
    pub id: String,
}

impl TopicIdentity {
    /// Whether this is the identity of a topic of that source.
    pub fn is_of(&self, source: &str, topic: &str) -> bool {
        self.topic == topic && (self.source.is_empty() || self.source == source)
    }

    /// Whether a topic of the same name that now has this id is another one. Where an id is unknown (empty, from brokers before
    /// KIP-516) nothing can be told.
    pub fn was_replaced_by(&self, id: &str) -> bool {
        !self.id.is_empty() && !id.is_empty() && self.id != id
    }
}

/// What became of the records, cumulative: for a pipeline without branches `in = used + filtered + late + dead + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records read.
    #[serde(rename = "in")]
    pub read: u64,
    /// Rows that entered a window or, on a branch without one, reached a sink.
    pub used: u64,
    /// Rows that a `where` left out.
    pub filtered: u64,
    /// Rows that were late.
    pub late: u64,
    /// Records that went to the dead letter topic because they failed (late ones are counted as late).
    pub dead: u64,
    /// Records dropped because they failed (`on_error: drop`), or because they are tombstones (`tombstones: skip`).
    pub dropped: u64,
    /// Records produced to sinks.
    pub out: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.read += other.read;
        self.used += other.used;
        self.filtered += other.filtered;
        self.late += other.late;
        self.dead += other.dead;
        self.dropped += other.dropped;
        self.out += other.out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> Decision {
        Decision {
            version: FORMAT_VERSION,
            epoch: Epoch(3),
            attempt: String::new(),
            claim: ClaimId(String::new()),
            transactional_id: String::new(),
            positions: vec![Position {
                source: "s".into(),
                topic: "t".into(),
                partition: 0,
                next_offset: NextOffset(9),
                watermark: Some(Watermark(i64::MIN)),
                disorder: None,
            }],
            counts: Counts::default(),
            requests: vec![],
            manifest: None,
            discarded: vec![],
            topics: vec![],
        }
    }

    #[test]
    fn an_identity_without_a_source_is_every_sources() {
        let old: TopicIdentity = serde_json::from_str(r#"{"topic":"t","id":"x"}"#).unwrap();
        assert!(old.is_of("a", "t") && old.is_of("b", "t") && !old.is_of("a", "u"));
        let of_a = TopicIdentity { source: "a".into(), ..old };
        assert!(of_a.is_of("a", "t") && !of_a.is_of("b", "t"));
    }

    #[test]
    fn impossible_numbers_are_told() {
        assert_eq!(decision().check(), Ok(()));
        let mut epoch = decision();
        epoch.epoch = Epoch(u64::MAX);
        assert_eq!(epoch.check(), Err("it ends epoch 18446744073709551615".to_string()));
        let mut count = decision();
        count.counts.out = u64::MAX;
        assert!(count.check().is_err());
        for (partition, offset) in [(-1, 0), (0, -1), (0, i64::MAX)] {
            let mut position = decision();
            position.positions[0].partition = partition;
            position.positions[0].next_offset = NextOffset(offset);
            assert!(position.check().is_err(), "{partition} {offset}");
        }
    }
}
