//! Event-time windows as arithmetic: which windows and which pane a time belongs to.
//!
//! Windows are half-open, `[start, end)`, in milliseconds, aligned to the epoch in UTC or to an offset from it. Overlapping (hopping) windows share
//! **panes**: slices as long as the slide, each of which belongs to `size / every` windows; a tumbling window is its only pane.
//! (Li et al., "No pane, no gain", SIGMOD Record 34, 2005.) A pane is named by its start.
//!
//! Times outside [`EventTime::MIN`]`..=`[`EventTime::MAX`] never get here, and sizes are at most [`WindowSpec::MAX_SIZE_MS`], so
//! that nothing here can overflow.

use crate::time::EventTime;

/// Sizes of hopping windows; a tumbling window has `every == size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    size_ms: i64,
    every_ms: i64,
    /// Windows start at `offset + n * every`; at least 0, less than `every`.
    offset_ms: i64,
}

impl WindowSpec {
    /// Longest window: about 1,000 years.
    pub const MAX_SIZE_MS: i64 = 1000 * 366 * 86_400_000;

    /// Windows of `size_ms` that start every `every_ms`. `None` unless `0 < every ≤ size ≤ MAX` and `every` divides `size`.
    pub fn new(size_ms: i64, every_ms: i64) -> Option<WindowSpec> {
        let valid =
            every_ms > 0 && every_ms <= size_ms && size_ms <= Self::MAX_SIZE_MS && size_ms % every_ms == 0;
        valid.then_some(WindowSpec { size_ms, every_ms, offset_ms: 0 })
    }

    /// The same windows, `offset_ms` later (earlier, where it is negative).
    pub fn shifted(self, offset_ms: i64) -> WindowSpec {
        WindowSpec {
            offset_ms: (self.offset_ms + offset_ms.rem_euclid(self.every_ms)) % self.every_ms,
            ..self
        }
    }

    /// Windows of `size_ms`, one after the other.
    pub fn tumbling(size_ms: i64) -> Option<WindowSpec> {
        Self::new(size_ms, size_ms)
    }

    /// Length of a window, milliseconds.
    pub fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Length of a pane, and distance between window starts, milliseconds.
    pub fn every_ms(self) -> i64 {
        self.every_ms
    }

    /// How far the first window that starts after 1970 began lies behind that, milliseconds: less than [`every_ms`](Self::every_ms).
    pub fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    /// Start of the pane that holds `time`; before the epoch where an offset puts it there.
    pub fn pane_of(self, time: EventTime) -> i64 {
        self.boundary(time.ms())
    }

    /// Whether a pane that holds possible event times starts at `start`.
    pub fn is_pane(self, start: i64) -> bool {
        (self.pane_of(EventTime::MIN)..=EventTime::MAX.ms()).contains(&start) && self.boundary(start) == start
    }

    /// The last boundary of panes at or before an instant.
    fn boundary(self, ms: i64) -> i64 {
        ms - (ms - self.offset_ms).rem_euclid(self.every_ms)
    }

    /// End of the first window that holds the pane, that is the pane's own end.
    pub fn first_end(self, pane: i64) -> i64 {
        pane + self.every_ms
    }

    /// End of the last window that holds the pane: with it the pane goes.
    pub fn last_end(self, pane: i64) -> i64 {
        pane + self.size_ms
    }

    /// Start of the window that ends at `end`.
    pub fn start(self, end: i64) -> i64 {
        end - self.size_ms
    }

    /// The panes of the window that ends at `end`, in order of time.
    pub fn panes(self, end: i64) -> impl Iterator<Item = i64> {
        (0..self.size_ms / self.every_ms).map(move |i| end - self.size_ms + i * self.every_ms)
    }

    /// The first window end after `frontier` of a window that holds the pane: what fires next because of it.
    /// `None` when all of the pane's windows end at or before the frontier.
    pub fn next_end(self, pane: i64, frontier: i64) -> Option<i64> {
        let (first, last) = (self.first_end(pane), self.last_end(pane));
        if frontier < first {
            return Some(first);
        }
        if frontier >= last {
            return None;
        }
        Some((self.boundary(frontier) + self.every_ms).max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(ms: i64) -> EventTime {
        EventTime::new(ms).unwrap()
    }

    #[test]
    fn refuses_what_does_not_divide() {
        assert!(WindowSpec::new(10, 3).is_none());
        assert!(WindowSpec::new(0, 0).is_none());
        assert!(WindowSpec::new(5, 10).is_none());
        assert!(WindowSpec::new(i64::MAX, 1).is_none());
    }

    /// Event times anywhere, and often at the ends of what is possible.
    fn edges() -> impl Strategy<Value = i64> {
        let (first, last) = (EventTime::MIN.ms(), EventTime::MAX.ms());
        prop_oneof![first..=last, first..first + 300_000, last - 300_000..=last]
    }

    #[test]
    fn an_offset_moves_the_day() {
        // Midnight in Shanghai is 16:00 of the day before in UTC.
        let day = WindowSpec::tumbling(86_400_000).unwrap();
        for offset in [16, -8, 40] {
            let shifted = day.shifted(offset * 3_600_000);
            assert_eq!(shifted.offset_ms(), 57_600_000);
            assert_eq!(shifted.pane_of(time(57_600_000)), 57_600_000);
            assert_eq!(shifted.pane_of(time(57_599_999)), 57_600_000 - 86_400_000);
        }
        assert_eq!(day.shifted(86_400_000), day);
        assert_eq!(day.shifted(7).shifted(-7), day);
    }

    proptest! {
        #[test]
        fn panes_and_windows_agree(
            t in edges(), every in 1i64..100_000, n in 1i64..20, behind in -3_000_000i64..3_000_000,
            offset in prop_oneof![Just(0), -200_000i64..200_000],
        ) {
            let spec = WindowSpec::new(every * n, every).unwrap().shifted(offset);
            prop_assert!((0..every).contains(&spec.offset_ms()));
            let pane = spec.pane_of(time(t));
            prop_assert!(pane <= t && t < pane + every);
            prop_assert!(spec.is_pane(pane));
            prop_assert!(every == 1 || !spec.is_pane(pane + 1));
            // By definition: the windows that hold t are those with start <= t < end, start a multiple of `every` behind the offset.
            let mut ends = vec![];
            let mut start = (t - offset).div_euclid(every) * every + offset;
            while start + every * n > t { ends.push(start + every * n); start -= every; }
            ends.reverse();
            prop_assert_eq!(ends[0], spec.first_end(pane));
            prop_assert_eq!(*ends.last().unwrap(), spec.last_end(pane));
            for end in &ends { prop_assert!(spec.panes(*end).any(|p| p == pane)); }
            let frontier = t + behind;
            prop_assert_eq!(spec.next_end(pane, frontier), ends.iter().copied().find(|end| *end > frontier));
        }
    }
}
