//! What a sink's topic accepts, so that a record is checked *before* it is produced: a refusal by the broker
//! fails the whole transaction and would do so again for ever, while a refusal here concerns one record, which
//! follows `on_error`.
//!
//! The checks are a little stricter than the broker's: sizes count the record's framing at its largest and no
//! compression, and instants keep a margin for clocks that differ and for the way to the broker. What passes
//! here is accepted there, unless a person changes the topic meanwhile.

use std::fmt;

use super::admin::TopicConfig;
use super::errors::Result;

/// A topic's limits for the records written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// The topic.
    pub topic: String,
    /// `max.message.bytes`: the largest record batch, in bytes.
    pub max_message_bytes: u64,
    /// How far records may lie before the broker's clock, in milliseconds; `None` without a limit, as under
    /// `LogAppendTime`.
    pub before_max_ms: Option<u64>,
    /// How far they may lie after it.
    pub after_max_ms: Option<u64>,
    /// Whether the topic is compacted, and so takes no record without a key.
    pub compacted: bool,
}

/// Why a topic would not accept a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The record takes this many bytes at most, and the topic's `max.message.bytes` is less.
    TooLarge {
        /// Upper bound of the record's size as a batch of its own.
        bytes: u64,
        /// The topic's limit.
        limit: u64,
    },
    /// The timestamp is too far behind the present (`message.timestamp.before.max.ms`).
    TooOld {
        /// Milliseconds behind the present.
        behind_ms: i64,
        /// The topic's limit.
        limit_ms: u64,
    },
    /// The timestamp is too far ahead of the present (`message.timestamp.after.max.ms`).
    TooNew {
        /// Milliseconds ahead of the present.
        ahead_ms: i64,
        /// The topic's limit.
        limit_ms: u64,
    },
    /// Timestamps before 1970 are invalid, and 0 would silently become the present.
    NoTimestamp(i64),
    /// A compacted topic needs a key.
    NoKey,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes, limit } => {
                write!(f, "up to {bytes} bytes, but the topic's max.message.bytes is {limit}")
            }
            Self::TooOld { behind_ms, limit_ms } => write!(
                f,
                "timestamp {behind_ms} ms behind the present, but the topic's message.timestamp.before.max.ms is {limit_ms}"
            ),
            Self::TooNew { ahead_ms, limit_ms } => write!(
                f,
                "timestamp {ahead_ms} ms ahead of the present, but the topic's message.timestamp.after.max.ms is {limit_ms}"
            ),
            Self::NoTimestamp(timestamp) => {
                write!(f, "timestamp {timestamp}: Kafka takes only instants after 1970-01-01T00:00:00Z")
            }
            Self::NoKey => f.write_str("no key, but the topic is compacted"),
        }
    }
}

/// A record batch's header in the format v2 (Kafka 0.11): 61 bytes.
const BATCH_OVERHEAD: u64 = 61;
/// A record's attributes and its six varints at their longest.
const RECORD_OVERHEAD: u64 = 1 + 5 + 10 + 5 + 5 + 5 + 5;
/// The two lengths of a header at their longest.
const HEADER_OVERHEAD: u64 = 5 + 5;
/// Clocks may differ this much, and a record may wait this long, but no more than a tenth of the limit.
const MARGIN_MS: u64 = 60_000;

impl TopicLimits {
    /// Reads the limits from a topic's configuration.
    ///
    /// # Errors
    /// `Bug` where the broker's answer has no sensible `max.message.bytes`.
    pub fn from_config(topic: &str, config: &TopicConfig) -> Result<Self> {
        let append_time = config.get("message.timestamp.type") == Some("LogAppendTime");
        let limit = |name: &str| match config.number(name) {
            // The broker's "no limit" is the largest number.
            Ok(Some(ms)) if !append_time && ms < i64::MAX => u64::try_from(ms).ok(),
            _ => None,
        };
        Ok(Self {
            topic: topic.to_owned(),
            max_message_bytes: config.required_number("max.message.bytes")?.unsigned_abs(),
            before_max_ms: limit("message.timestamp.before.max.ms"),
            after_max_ms: limit("message.timestamp.after.max.ms"),
            compacted: config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
        })
    }

    /// The same for the engine, at this instant (milliseconds since 1970). Sizes leave room for a record's framing and for as
    /// many headers as a dead letter has.
    pub fn at(&self, now: i64) -> onceflow_engine::worker::TopicLimits {
        const FRAMING: u64 = BATCH_OVERHEAD + RECORD_OVERHEAD + 32 * HEADER_OVERHEAD;
        let margin = |limit: u64| i64::try_from(within(limit)).unwrap_or(i64::MAX);
        let first = self.before_max_ms.map_or(1, |limit| now.saturating_sub(margin(limit)).max(1));
        let last = self.after_max_ms.map_or(i64::MAX, |limit| now.saturating_add(margin(limit)));
        let max_record_bytes =
            usize::try_from(self.max_message_bytes.saturating_sub(FRAMING)).unwrap_or(usize::MAX);
        onceflow_engine::worker::TopicLimits { max_record_bytes, timestamps: first..=last }
    }

    /// The limits of a topic about which nothing is known, for lack of permission: Kafka's default size.
    pub fn unlimited(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            max_message_bytes: 1_048_588,
            before_max_ms: None,
            after_max_ms: None,
            compacted: false,
        }
    }

    /// Whether the topic accepts a record. `header_bytes` are the lengths of all header names and values,
    /// `headers` their number; instants are milliseconds since 1970.
    ///
    /// # Errors
    /// The reason to refuse the record.
    pub fn check(
        &self,
        key: Option<&[u8]>,
        value_bytes: usize,
        headers: usize,
        header_bytes: usize,
        timestamp: i64,
        now: i64,
    ) -> std::result::Result<(), Refusal> {
        if key.is_none() && self.compacted {
            return Err(Refusal::NoKey);
        }
        let payload = key.map_or(0, <[u8]>::len) as u64 + value_bytes as u64 + header_bytes as u64;
        let bytes = BATCH_OVERHEAD + RECORD_OVERHEAD + headers as u64 * HEADER_OVERHEAD + payload;
        if bytes > self.max_message_bytes {
            return Err(Refusal::TooLarge { bytes, limit: self.max_message_bytes });
        }
        if timestamp <= 0 {
            return Err(Refusal::NoTimestamp(timestamp));
        }
        let ahead_ms = timestamp.saturating_sub(now);
        if let Some(limit_ms) = self.after_max_ms
            && ahead_ms > 0
            && ahead_ms.unsigned_abs() > within(limit_ms)
        {
            return Err(Refusal::TooNew { ahead_ms, limit_ms });
        }
        let behind_ms = now.saturating_sub(timestamp);
        if let Some(limit_ms) = self.before_max_ms
            && behind_ms > 0
            && behind_ms.unsigned_abs() > within(limit_ms)
        {
            return Err(Refusal::TooOld { behind_ms, limit_ms });
        }
        Ok(())
    }
}

/// A limit less its margin.
fn within(limit_ms: u64) -> u64 {
    limit_ms - MARGIN_MS.min(limit_ms / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn limits() -> TopicLimits {
        TopicLimits {
            max_message_bytes: 1_000,
            before_max_ms: Some(HOUR.unsigned_abs()),
            after_max_ms: Some(HOUR.unsigned_abs()),
            compacted: true,
            ..TopicLimits::unlimited("t")
        }
    }

    #[test]
    fn what_the_broker_would_refuse_is_refused_here() {
        let check = |key: Option<&[u8]>, bytes, timestamp| limits().check(key, bytes, 0, 0, timestamp, NOW);
        assert_eq!(check(Some(b"k"), 100, NOW), Ok(()));
        assert_eq!(check(None, 100, NOW), Err(Refusal::NoKey));
        assert!(matches!(check(Some(b"k"), 999, NOW), Err(Refusal::TooLarge { limit: 1_000, .. })));
        assert_eq!(check(Some(b"k"), 1, 0), Err(Refusal::NoTimestamp(0)));
        assert_eq!(check(Some(b"k"), 1, -1), Err(Refusal::NoTimestamp(-1)));
        assert!(matches!(check(Some(b"k"), 1, NOW + HOUR), Err(Refusal::TooNew { .. })));
        assert!(matches!(check(Some(b"k"), 1, NOW - HOUR), Err(Refusal::TooOld { .. })));
        assert_eq!(check(Some(b"k"), 1, NOW + HOUR - 60_000), Ok(()));
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        let unlimited = TopicLimits::unlimited("t");
        assert_eq!(unlimited.check(None, 1, 0, 0, i64::MAX, i64::MIN), Ok(()));
        let tight = TopicLimits { after_max_ms: Some(u64::MAX), before_max_ms: Some(0), ..unlimited };
        assert_eq!(tight.check(None, 1, 0, 0, i64::MAX, i64::MIN), Ok(()));
        assert!(tight.check(None, 1, 0, 0, 1, i64::MAX).is_err());
    }
}
