//! Event time, watermarks and frontiers. All in milliseconds since the epoch, UTC.

use serde::{Deserialize, Serialize};

/// When something happened, according to its record: after 1970-01-01T00:00:00Z, since a Kafka record cannot carry an earlier
/// timestamp and results carry their event time; before the year 10000, so that arithmetic on windows cannot overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(i64);

impl EventTime {
    /// 1970-01-01T00:00:00.001Z: Kafka takes a timestamp of 0 for "now".
    pub const MIN: EventTime = EventTime(1);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: EventTime = EventTime(253_402_300_799_999);

    /// `None` outside of [`MIN`](Self::MIN)`..=`[`MAX`](Self::MAX).
    pub fn new(ms: i64) -> Option<EventTime> {
        (Self::MIN.0..=Self::MAX.0).contains(&ms).then_some(EventTime(ms))
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> i64 {
        self.0
    }
}

/// A promise that no record with an event time before this instant will come (what comes all the same is late).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

/// How far the windows of a step have got, as instants that never go back: a window is fired iff its end ≤ `fired`, and purged iff
/// its end ≤ `purged`. Lateness is judged against `purged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontiers {
    /// Windows that end at or before this have been emitted.
    pub fired: i64,
    /// Windows that end at or before this are gone from the state.
    pub purged: i64,
}

impl Frontiers {
    /// Before any window.
    pub const START: Frontiers = Frontiers { fired: i64::MIN, purged: i64::MIN };
}
