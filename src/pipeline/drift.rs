//! `max_drift`: a partition that is far ahead of the others of its source waits for them, so that a backlog that is read at full speed does
//! not fill the state with windows that cannot close yet.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Where the partitions of a run stand in time, for all of its workers. A reading that is a moment old pauses a moment late.
#[derive(Debug)]
pub struct Drift {
    partitions: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    /// `None` for a partition that nobody reads in this run.
    source: Option<usize>,
    /// The watermark, milliseconds; the least before there is one, and the largest where the partition holds nobody up.
    at: AtomicI64,
}

impl Drift {
    /// Partitions that have not been read yet, by the number of their source; `None` for one that will not be.
    pub fn new(sources: impl Iterator<Item = Option<usize>>) -> Drift {
        let place = |source| Place { source, at: AtomicI64::new(i64::MIN) };
        Drift { partitions: sources.map(place).collect() }
    }

    /// Partition `index` has got to this watermark, milliseconds, and counts: it is neither idle nor finished.
    pub fn advance(&self, index: usize, watermark: Option<i64>, counts: bool) {
        let at = if counts { watermark.unwrap_or(i64::MIN) } else { i64::MAX };
        self.partitions[index].at.store(at, Relaxed);
    }

    /// Whether partition `index` at this watermark is further ahead than `max_ms` of the slowest that counts.
    pub fn is_ahead(&self, index: usize, watermark: Option<i64>, max_ms: i64) -> bool {
        let source = self.partitions[index].source;
        let others = self.partitions.iter().filter(|place| place.source == source);
        let slowest = others.map(|place| place.at.load(Relaxed)).min().unwrap_or(i64::MAX);
        watermark.is_some_and(|watermark| watermark > slowest.saturating_add(max_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead_waits_for_the_slowest_that_counts() {
        let drift = Drift::new([0, 0, 0, 1].into_iter().map(Some));
        assert!(drift.is_ahead(0, Some(5), 100), "nothing is known of the others yet");
        assert!(!drift.is_ahead(0, None, 100));
        for (partition, watermark) in [(0, 1_000), (1, 1_101), (2, 1_100), (3, 0)] {
            drift.advance(partition, Some(watermark), true);
        }
        assert!(!drift.is_ahead(0, Some(1_000), 100));
        assert!(drift.is_ahead(1, Some(1_101), 100));
        assert!(!drift.is_ahead(2, Some(1_100), 100));
        assert!(!drift.is_ahead(3, Some(0), 100), "another source");
        drift.advance(0, Some(1_000), false);
        assert!(!drift.is_ahead(1, Some(1_101), 100));
    }
}
