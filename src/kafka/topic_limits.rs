//! What a sink's topic accepts, so that a record is checked *before* it is produced: a refusal by the broker
//! fails the whole transaction and would do so again for ever, while a refusal here concerns one record, which
//! follows `on_error`.
//!
//! The checks are a little stricter than the broker's: sizes count the record's framing at its largest and no
//! compression, and instants keep a margin for clocks that differ and for the way to the broker. What passes
//! here is accepted there, unless a person changes the topic meanwhile.

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
    /// How many partitions it has.
    pub partitions: i32,
}

/// A record batch's header in the format v2 (Kafka 0.11): 61 bytes.
const BATCH_OVERHEAD: u64 = 61;
/// A record's attributes and its six varints at their longest.
const RECORD_OVERHEAD: u64 = 1 + 5 + 10 + 5 + 5 + 5 + 5;
/// Clocks may differ this much, and a record may wait this long, but no more than a tenth of the limit.
const MARGIN_MS: u64 = 60_000;

impl TopicLimits {
    /// Reads the limits from a topic's configuration and its number of partitions.
    ///
    /// # Errors
    /// `Bug` where the broker's answer has no sensible `max.message.bytes`.
    pub fn from_config(topic: &str, config: &TopicConfig, partitions: i32) -> Result<Self> {
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
            partitions,
        })
    }

    /// The same for the engine, at this instant (milliseconds since 1970). Sizes leave room for a record's framing;
    /// that of its headers the engine counts.
    pub fn at(&self, now: i64) -> onceflow_engine::worker::TopicLimits {
        const FRAMING: u64 = BATCH_OVERHEAD + RECORD_OVERHEAD;
        let margin = |limit: u64| i64::try_from(within(limit)).unwrap_or(i64::MAX);
        let first = self.before_max_ms.map_or(1, |limit| now.saturating_sub(margin(limit)).max(1));
        let last = self.after_max_ms.map_or(i64::MAX, |limit| now.saturating_add(margin(limit)));
        let max_record_bytes =
            usize::try_from(self.max_message_bytes.saturating_sub(FRAMING)).unwrap_or(usize::MAX);
        let timestamps = first..=last;
        onceflow_engine::worker::TopicLimits { max_record_bytes, timestamps, partitions: self.partitions }
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

    fn limits(before_max_ms: Option<u64>, after_max_ms: Option<u64>) -> TopicLimits {
        TopicLimits {
            topic: "t".to_owned(),
            max_message_bytes: 1_000,
            before_max_ms,
            after_max_ms,
            partitions: 3,
        }
    }

    #[test]
    fn limits_keep_a_margin() {
        let hour = Some(HOUR.unsigned_abs());
        let at = limits(hour, hour).at(NOW);
        assert_eq!(at.timestamps, NOW - HOUR + 60_000..=NOW + HOUR - 60_000);
        assert_eq!((at.max_record_bytes, at.partitions), (1_000 - 61 - 36, 3));
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        assert_eq!(limits(None, None).at(i64::MIN).timestamps, 1..=i64::MAX);
        let tight = limits(Some(0), Some(u64::MAX));
        assert_eq!(tight.at(i64::MAX).timestamps, i64::MAX..=i64::MAX);
        assert_eq!(tight.at(i64::MIN).timestamps, 1..=i64::MIN.saturating_add(i64::MAX));
    }
}
