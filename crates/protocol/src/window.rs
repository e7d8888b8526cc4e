//! Event-time windows as arithmetic: which windows and which pane a time belongs to.
//!
//! Windows are half-open, `[start, end)`, in milliseconds, aligned to the epoch in UTC or to an offset from it. Overlapping windows share
//! **panes**: slices as long as the distance between their ends. (Li et al., "No pane, no gain", SIGMOD Record 34, 2005.) A pane is
//! named by its start. There are four kinds:
//!
//! ```text
//! tumbling    |----||----||----|     a window is its only pane
//! hopping     |----------|           as long as `size`, one every `every`: a pane belongs to `size / every` windows
//!                  |----------|
//! cumulative  |----|                 each begins where a period of `size` begins, and they end one `every` after the other:
//!             |---------|            a pane belongs to those of its period that end after it
//!             |--------------||----|
//! session     |=|--------|           where a key's sessions lie is known from its events alone. But its events in one pane are in one
//!               |=|--------|         session, as a pane is no longer than the gap; and whether that goes on is known once time has
//!                                    passed the pane by the gap. So the "window" of a pane is the pane and the gap behind it
//! ```
//!
//! The end of a session's window is when its first pane is **settled**: for each key, what is in the pane either joins what the key has in the
//! rest of the window, or is a whole session.
//!
//! Times outside [`EventTime::MIN`]`..=`[`EventTime::MAX`] never get here, and sizes (and gaps) are at most [`WindowSpec::MAX_SIZE_MS`], so
//! that nothing here can overflow.

use crate::time::EventTime;

/// Sizes of windows that are known before any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    kind: Kind,
    size_ms: i64,
    every_ms: i64,
    /// Windows start at `offset + n * period`; at least 0, less than the period.
    offset_ms: i64,
}

/// How windows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A tumbling window has `every == size`.
    Hopping,
    Cumulative,
    /// The size is that of a pane and the gap.
    Session,
}

impl WindowSpec {
    /// A session's pane is this part of its gap, or the next larger one that divides it.
    const PANES_A_GAP: i64 = 8;

    /// Longest window: about 1,000 years.
    pub const MAX_SIZE_MS: i64 = 1000 * 366 * 86_400_000;

    /// Windows of `size_ms` that start every `every_ms`. `None` unless `0 < every ≤ size ≤ MAX` and `every` divides `size`.
    pub fn hopping(size_ms: i64, every_ms: i64) -> Option<WindowSpec> {
        let valid =
            every_ms > 0 && every_ms <= size_ms && size_ms <= Self::MAX_SIZE_MS && size_ms % every_ms == 0;
        valid.then_some(WindowSpec { kind: Kind::Hopping, size_ms, every_ms, offset_ms: 0 })
    }

    /// Windows of up to `size_ms`, of which those of a period start together and end every `every_ms`. `None` as for
    /// [`hopping`](Self::hopping).
    pub fn cumulative(size_ms: i64, every_ms: i64) -> Option<WindowSpec> {
        Self::hopping(size_ms, every_ms).map(|spec| WindowSpec { kind: Kind::Cumulative, ..spec })
    }

    /// Sessions: events of a key no further apart than `gap_ms` belong together. `None` unless `0 < gap ≤ MAX`.
    pub fn session(gap_ms: i64) -> Option<WindowSpec> {
        if gap_ms <= 0 || gap_ms > Self::MAX_SIZE_MS {
            return None;
        }
        let panes = (1..=Self::PANES_A_GAP).rev().find(|panes| gap_ms % panes == 0)?;
        let every_ms = gap_ms / panes;
        Some(WindowSpec { kind: Kind::Session, size_ms: every_ms + gap_ms, every_ms, offset_ms: 0 })
    }

    /// The gap of sessions, milliseconds; `None` for windows that are known before any record.
    pub fn session_gap_ms(self) -> Option<i64> {
        (self.kind == Kind::Session).then_some(self.size_ms - self.every_ms)
    }

    /// The same windows, `offset_ms` later (earlier, where it is negative).
    pub fn shifted(self, offset_ms: i64) -> WindowSpec {
        let period = self.period_ms();
        WindowSpec { offset_ms: (self.offset_ms + offset_ms.rem_euclid(period)) % period, ..self }
    }

    /// Windows of `size_ms`, one after the other.
    pub fn tumbling(size_ms: i64) -> Option<WindowSpec> {
        Self::hopping(size_ms, size_ms)
    }

    /// Length of a window, of cumulative ones the longest, milliseconds.
    pub fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Length of a pane, and distance between window ends, milliseconds.
    pub fn every_ms(self) -> i64 {
        self.every_ms
    }

    /// Distance between window starts, milliseconds.
    pub fn period_ms(self) -> i64 {
        match self.kind {
            Kind::Hopping | Kind::Session => self.every_ms,
            Kind::Cumulative => self.size_ms,
        }
    }

    /// Whether windows grow within a period.
    pub fn is_cumulative(self) -> bool {
        self.kind == Kind::Cumulative
    }

    /// How far the first window that starts after 1970 began lies behind that, milliseconds: less than
    /// [`period_ms`](Self::period_ms).
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

    /// Start of the period that holds an instant.
    fn period_of(self, ms: i64) -> i64 {
        ms - (ms - self.offset_ms).rem_euclid(self.period_ms())
    }

    /// End of a pane, exclusive.
    pub fn pane_end(self, pane: i64) -> i64 {
        pane + self.every_ms
    }

    /// End of the first window that holds the pane: the pane's own end, or when its sessions are settled.
    pub fn first_end(self, pane: i64) -> i64 {
        match self.kind {
            Kind::Hopping | Kind::Cumulative => self.pane_end(pane),
            Kind::Session => pane + self.size_ms,
        }
    }

    /// End of the last window that holds the pane: with it the pane goes.
    pub fn last_end(self, pane: i64) -> i64 {
        self.period_of(pane) + self.size_ms
    }

    /// Start of the window that ends at `end`.
    pub fn start(self, end: i64) -> i64 {
        match self.kind {
            Kind::Hopping | Kind::Session => end - self.size_ms,
            Kind::Cumulative => self.period_of(end - 1),
        }
    }

    /// The panes of the window that ends at `end`, in order of time.
    pub fn panes(self, end: i64) -> impl Iterator<Item = i64> {
        let start = self.start(end);
        (0..(end - start) / self.every_ms).map(move |i| start + i * self.every_ms)
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
        for new in [WindowSpec::hopping, WindowSpec::cumulative] {
            assert!(new(10, 3).is_none());
            assert!(new(0, 0).is_none());
            assert!(new(5, 10).is_none());
            assert!(new(i64::MAX, 1).is_none());
        }
    }

    /// Event times anywhere, and often at the ends of what is possible.
    fn edges() -> impl Strategy<Value = i64> {
        let (first, last) = (EventTime::MIN.ms(), EventTime::MAX.ms());
        prop_oneof![first..=last, first..first + 300_000, last - 300_000..=last]
    }

    #[test]
    fn a_session_is_known_once_time_has_passed_it_by_the_gap() {
        let spec = WindowSpec::session(30_000).unwrap();
        assert_eq!((spec.every_ms(), spec.size_ms(), spec.session_gap_ms()), (3_750, 33_750, Some(30_000)));
        // A prime gap has one pane; a small one has panes of a millisecond.
        assert_eq!(WindowSpec::session(10_007).unwrap().every_ms(), 10_007);
        assert_eq!(WindowSpec::session(7).unwrap().every_ms(), 1);
        assert!(WindowSpec::session(0).is_none());
        assert!(WindowSpec::session(WindowSpec::MAX_SIZE_MS + 1).is_none());
        assert_eq!(WindowSpec::tumbling(30_000).unwrap().session_gap_ms(), None);
    }

    proptest! {
        #[test]
        fn a_sessions_pane_is_in_one_window(t in edges(), gap in 1i64..100_000, behind in -300_000i64..300_000) {
            let spec = WindowSpec::session(gap).unwrap();
            let pane = spec.pane_of(time(t));
            prop_assert!(spec.every_ms() <= gap && gap % spec.every_ms() == 0);
            prop_assert!(pane <= t && t < spec.pane_end(pane) && spec.is_pane(pane));
            let end = spec.last_end(pane);
            // Whatever can join the pane's last event lies in the window, and the window is over once none of it can come any more.
            prop_assert_eq!(end, spec.pane_end(pane) + gap);
            prop_assert_eq!((spec.first_end(pane), spec.start(end)), (end, pane));
            let panes: Vec<i64> = spec.panes(end).collect();
            prop_assert_eq!(panes[0], pane);
            prop_assert_eq!(spec.pane_end(*panes.last().unwrap()), end);
            prop_assert_eq!(spec.next_end(pane, t + behind), Some(end).filter(|end| *end > t + behind));
        }
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
            offset in prop_oneof![Just(0), -200_000i64..200_000], cumulative: bool,
        ) {
            let size = every * n;
            let spec = match cumulative {
                true => WindowSpec::cumulative(size, every),
                false => WindowSpec::hopping(size, every),
            };
            let spec = spec.unwrap().shifted(offset);
            prop_assert!((0..spec.period_ms()).contains(&spec.offset_ms()));
            let pane = spec.pane_of(time(t));
            prop_assert!(pane <= t && t < pane + every);
            prop_assert!(spec.is_pane(pane));
            prop_assert!(every == 1 || !spec.is_pane(pane + 1));
            // By definition: the windows that hold t are those with start <= t < end. Hopping ones start at multiples of `every` behind the
            // offset; cumulative ones all start at the last multiple of the size.
            let mut windows = vec![];
            if cumulative {
                let start = (t - offset).div_euclid(size) * size + offset;
                windows.extend((1..=n).map(|i| (start, start + i * every)).filter(|(_, end)| *end > t));
            } else {
                let mut start = (t - offset).div_euclid(every) * every + offset;
                while start + size > t { windows.push((start, start + size)); start -= every; }
                windows.reverse();
            }
            for (start, end) in &windows { prop_assert_eq!(spec.start(*end), *start); }
            let ends: Vec<i64> = windows.iter().map(|(_, end)| *end).collect();
            prop_assert_eq!(ends[0], spec.first_end(pane));
            prop_assert_eq!(*ends.last().unwrap(), spec.last_end(pane));
            for end in &ends { prop_assert!(spec.panes(*end).any(|p| p == pane)); }
            let frontier = t + behind;
            prop_assert_eq!(spec.next_end(pane, frontier), ends.iter().copied().find(|end| *end > frontier));
        }
    }
}
