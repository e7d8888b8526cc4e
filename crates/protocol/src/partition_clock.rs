//! One source partition's place in time: its position, its watermark, and whether it is idle.
//!
//! The watermark is the largest event time seen less the allowed disorder ([`Delay`]); it never goes back and is part of every
//! checkpoint. Idleness is not: it counts only from a fetch that reached the partition's end, starts anew whenever reading was
//! held back or the broker did not answer, and after a restore every partition is active. Otherwise a slow broker would turn data
//! into late data.

use crate::disorder::Disorder;
use crate::ids::NextOffset;
use crate::planted::{Planted, is_planted};
use crate::time::Watermark;

/// Position and watermark of one partition, kept by the worker that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionClock {
    next_offset: NextOffset,
    watermark: Option<Watermark>,
    delay: Delay,
    disorder: Disorder,
    idle_after_ms: Option<u64>,
    /// When a fetch reached the end and nothing came since, on the shell's monotonic clock, milliseconds.
    at_end_since_ms: Option<u64>,
}

/// How far a partition's watermark stays behind the largest event time seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delay {
    /// So many milliseconds: with 0, event times of a partition never go back.
    Fixed(i64),
    /// As far as so many of a million records come out of order, as was observed lately.
    Percentile {
        /// How many of a million records must not be late.
        cover_ppm: u32,
        /// Never less than this, milliseconds.
        min_ms: i64,
        /// Never more than this, milliseconds; and this until enough has been observed.
        max_ms: i64,
    },
}

/// A record or a position lies before what was read already: a broken invariant of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// Where the partition stood.
    pub from: NextOffset,
    /// Where it was to go.
    pub to: NextOffset,
}

impl PartitionClock {
    /// A partition at `next_offset`, active, with the watermark of its checkpoint.
    pub fn new(
        next_offset: NextOffset,
        watermark: Option<Watermark>,
        delay: Delay,
        idle_after_ms: Option<u64>,
    ) -> PartitionClock {
        let disorder = Disorder::default();
        PartitionClock { next_offset, watermark, delay, disorder, idle_after_ms, at_end_since_ms: None }
    }

    /// The same, with the disorder that was observed up to its checkpoint.
    pub fn with_disorder(self, disorder: Option<Disorder>) -> PartitionClock {
        PartitionClock { disorder: disorder.unwrap_or_default(), ..self }
    }

    /// What a checkpoint has to hold of the disorder that was observed.
    pub fn disorder(&self) -> Option<&Disorder> {
        matches!(self.delay, Delay::Percentile { .. }).then_some(&self.disorder)
    }

    /// How far the watermark stays behind at present, milliseconds.
    pub fn delay_ms(&self) -> i64 {
        match self.delay {
            Delay::Fixed(ms) => ms,
            Delay::Percentile { cover_ppm, min_ms, max_ms } => {
                self.disorder.delay_ms(cover_ppm).map_or(max_ms, |ms| ms.clamp(min_ms, max_ms))
            }
        }
    }

    /// These are the event times of the records to come, in their order: what a delay that follows the disorder is told before
    /// [`advance`](Self::advance).
    pub fn observe(&mut self, times_ms: &[i64]) {
        if matches!(self.delay, Delay::Percentile { .. }) {
            times_ms.iter().for_each(|time| self.disorder.observe(*time));
        }
    }

    /// The offset to read next.
    pub fn next_offset(&self) -> NextOffset {
        self.next_offset
    }

    /// The watermark, `None` before the first record.
    pub fn watermark(&self) -> Option<Watermark> {
        self.watermark
    }

    /// Records were processed up to `next_offset`; `max_event_time_ms` is the largest among those that could be read.
    ///
    /// # Errors
    /// [`WentBack`] if the position would go back.
    pub fn advance(
        &mut self,
        next_offset: NextOffset,
        max_event_time_ms: Option<i64>,
    ) -> Result<(), WentBack> {
        self.move_to(next_offset)?;
        self.at_end_since_ms = None;
        if let Some(max) = max_event_time_ms {
            let newest = self.disorder.newest_ms().map_or(max, |newest| newest.max(max));
            let seen = Watermark(newest.saturating_sub(self.delay_ms()));
            self.watermark = Some(self.watermark.map_or(seen, |watermark| watermark.max(seen)));
        }
        Ok(())
    }

    /// A fetch reached the partition's end, which stands at `position` (beyond any transaction markers).
    ///
    /// # Errors
    /// [`WentBack`] if the position would go back.
    pub fn reached_end(&mut self, position: NextOffset, now_ms: u64) -> Result<(), WentBack> {
        self.move_to(position)?;
        self.at_end_since_ms.get_or_insert(now_ms);
        Ok(())
    }

    /// Reading was held back (paused, at a barrier, or by back-pressure) for this long: that silence says nothing about
    /// the partition.
    pub fn held_back(&mut self, for_ms: u64) {
        if let Some(since) = &mut self.at_end_since_ms {
            *since = since.saturating_add(for_ms);
        }
    }

    /// The partition's leader does not answer: its silence says nothing, and counts anew from now on.
    pub fn unheard(&mut self, now_ms: u64) {
        if let Some(since) = &mut self.at_end_since_ms {
            *since = now_ms.max(*since);
        }
    }

    /// Whether the partition has been at its end, silent, for the time after which it stops counting.
    pub fn is_idle(&self, now_ms: u64) -> bool {
        if is_planted(Planted::IdleBeforeTheEnd) && self.at_end_since_ms.is_none() {
            return self.idle_after_ms.is_some();
        }
        match (self.idle_after_ms, self.at_end_since_ms) {
            (Some(after), Some(since)) => now_ms.saturating_sub(since) >= after,
            _ => false,
        }
    }

    fn move_to(&mut self, to: NextOffset) -> Result<(), WentBack> {
        if to < self.next_offset {
            return Err(WentBack { from: self.next_offset, to });
        }
        self.next_offset = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> PartitionClock {
        PartitionClock::new(NextOffset(10), Some(Watermark(500)), Delay::Fixed(100), Some(30))
    }

    #[test]
    fn the_watermark_follows_the_largest_time_and_never_goes_back() {
        let mut clock = clock();
        clock.advance(NextOffset(11), Some(550)).unwrap();
        assert_eq!(clock.watermark(), Some(Watermark(500)));
        clock.advance(NextOffset(12), Some(700)).unwrap();
        assert_eq!(clock.watermark(), Some(Watermark(600)));
        clock.advance(NextOffset(13), None).unwrap();
        assert_eq!(clock.watermark(), Some(Watermark(600)));
    }

    #[test]
    fn a_delay_follows_what_is_observed_within_its_bounds() {
        let delay = Delay::Percentile { cover_ppm: 990_000, min_ms: 10, max_ms: 1_000 };
        let mut clock = PartitionClock::new(NextOffset(0), None, delay, None);
        let mut now = 0;
        let mut run = |clock: &mut PartitionClock, disorder: i64, records: i64| {
            for i in 0..records {
                now += 1;
                clock.observe(&[if i % 20 == 19 { now - disorder } else { now }]);
            }
            let next = NextOffset(clock.next_offset().0 + records);
            clock.advance(next, Some(now)).unwrap();
            now - clock.watermark().unwrap().0
        };
        assert_eq!(run(&mut clock, 300, 500), 1_000, "nothing is known yet");
        assert!((300..=337).contains(&run(&mut clock, 300, 10_000)));
        let saved = clock.disorder().cloned();
        assert!((300..=337).contains(&run(&mut clock, 300, 1)));
        let mut restored = PartitionClock::new(clock.next_offset(), clock.watermark(), delay, None);
        assert_eq!(restored.delay_ms(), 1_000);
        restored = restored.with_disorder(saved);
        assert_eq!(restored.delay_ms(), clock.delay_ms());
        assert_eq!(run(&mut clock, 5_000, 100_000), 1_000);
        assert_eq!(run(&mut clock, 0, 2_000_000), 10);
    }

    #[test]
    fn idleness_begins_at_the_end_of_the_partition_only() {
        let mut clock = clock();
        assert!(!clock.is_idle(1_000_000), "no fetch has reached the end yet");
        clock.reached_end(NextOffset(12), 100).unwrap();
        assert!(!clock.is_idle(129));
        assert!(clock.is_idle(130));
        clock.held_back(100);
        assert!(!clock.is_idle(229));
        clock.reached_end(NextOffset(12), 215).unwrap();
        assert!(clock.is_idle(230), "standing at the end goes on");
        clock.unheard(240);
        assert!(!clock.is_idle(240), "nobody knows what lies behind a leader that does not answer");
        assert!(!clock.is_idle(269));
        assert!(clock.is_idle(270), "it answers again, and there is nothing");
        clock.advance(NextOffset(13), None).unwrap();
        assert!(!clock.is_idle(1_000));
    }

    #[test]
    fn positions_pass_markers_but_never_go_back() {
        let mut clock = clock();
        clock.reached_end(NextOffset(15), 0).unwrap();
        assert_eq!(clock.next_offset(), NextOffset(15));
        assert!(clock.advance(NextOffset(14), None).is_err());
    }
}
