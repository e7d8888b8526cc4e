//! How far windows may fire at a barrier: pure rules over reports.
//!
//! A step's windows follow the smallest watermark of what the step reads: of the active partitions of a source, and of the purged
//! frontier of an earlier windowed step (so that chained windows agree). At a barrier with watermark W and lateness L,
//! `emit: final` sets fired = purged = max(purged, W − L).

use crate::time::Frontiers;

use super::events::PartitionReport;

/// What the protocol knows of a windowed step. Steps are in topological order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowedStep {
    /// What its watermark depends on.
    pub inputs: Vec<TimeInput>,
    /// Allowed lateness, milliseconds.
    pub lateness_ms: i64,
}

/// Something with a watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeInput {
    /// A source, by number.
    Source(usize),
    /// An earlier windowed step, by number.
    Step(usize),
}

/// How far the time of a stream has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nothing is known: windows wait.
    Unknown,
    /// A watermark, milliseconds.
    At(i64),
    /// No more rows will come (a bounded run): everything fires.
    End,
}

/// The combined watermark of a source: the minimum over its partitions that count. Idle partitions don't; nor do those at the
/// end of a bounded run. If all are idle, it is what it was when the last record of each was read, before any fell idle: the minimum
/// over those that ever had one. A barrier need not have come in between, and the windows before a silence must fire.
pub fn source_reach<'a>(partitions: impl Iterator<Item = &'a PartitionReport>) -> Reach {
    let (mut active, mut idle): (Option<Reach>, Option<Reach>) = (None, None);
    let mut all_finished = true;
    for partition in partitions {
        all_finished &= partition.finished;
        let own = partition.watermark.map_or(Reach::Unknown, |watermark| Reach::At(watermark.0));
        if !partition.finished && !partition.idle {
            active = Some(active.map_or(own, |reach| reach.min(own)));
        } else if !partition.finished && own != Reach::Unknown {
            idle = Some(idle.map_or(own, |reach| reach.min(own)));
        }
    }
    match active.or(idle) {
        Some(reach) => reach,
        None if all_finished => Reach::End,
        None => Reach::Unknown,
    }
}

/// The frontier that a step moves to: never back.
pub fn frontier(current: Frontiers, reach: Reach, lateness_ms: i64, last_emitted: Option<i64>) -> Frontiers {
    let to = match reach {
        Reach::Unknown => current.purged,
        Reach::At(watermark) => watermark.saturating_sub(lateness_ms),
        // At the end of a bounded run it is the last emitted window's end, not infinity: later runs go on from there.
        Reach::End => last_emitted.unwrap_or(current.purged),
    };
    let to = to.max(current.purged);
    Frontiers { fired: to.max(current.fired), purged: to }
}

/// The window end to fire next, if any may: the smallest of the workers', at or before the limit that the reach sets.
pub fn next_to_fire(
    next_ends: impl Iterator<Item = Option<i64>>,
    reach: Reach,
    lateness_ms: i64,
) -> Option<i64> {
    let end = next_ends.flatten().min()?;
    match reach {
        Reach::Unknown => None,
        Reach::At(watermark) => (end <= watermark.saturating_sub(lateness_ms)).then_some(end),
        Reach::End => Some(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NextOffset;
    use crate::time::Watermark;

    fn partition(watermark: Option<i64>, idle: bool, finished: bool) -> PartitionReport {
        let watermark = watermark.map(Watermark);
        PartitionReport { partition: 0, next_offset: NextOffset(0), watermark, idle, finished }
    }

    #[test]
    fn a_source_is_as_far_as_its_slowest_active_partition() {
        let at = |w| partition(Some(w), false, false);
        assert_eq!(source_reach([at(5), at(3)].iter()), Reach::At(3));
        assert_eq!(source_reach([at(5), partition(Some(3), true, false)].iter()), Reach::At(5));
        assert_eq!(source_reach([at(5), partition(None, false, false)].iter()), Reach::Unknown);
        assert_eq!(source_reach([at(5), partition(Some(3), false, true)].iter()), Reach::At(5));
    }

    #[test]
    fn all_idle_is_where_each_fell_silent_all_finished_ends() {
        assert_eq!(source_reach([partition(Some(3), true, false)].iter()), Reach::At(3));
        let silent = [partition(Some(5), true, false), partition(Some(3), true, false)];
        assert_eq!(source_reach(silent.iter()), Reach::At(3));
        assert_eq!(
            source_reach([partition(Some(5), true, false), partition(None, true, false)].iter()),
            Reach::At(5)
        );
        assert_eq!(source_reach([partition(None, true, false)].iter()), Reach::Unknown);
        assert_eq!(source_reach([partition(Some(3), true, true)].iter()), Reach::End);
        assert_eq!(
            source_reach([partition(Some(3), true, false), partition(None, false, true)].iter()),
            Reach::At(3)
        );
    }

    #[test]
    fn frontiers_never_go_back() {
        let current = Frontiers { fired: 100, purged: 100 };
        assert_eq!(frontier(current, Reach::At(130), 50, None), current);
        assert_eq!(frontier(current, Reach::At(190), 50, None), Frontiers { fired: 140, purged: 140 });
        assert_eq!(frontier(current, Reach::Unknown, 0, None), current);
        assert_eq!(frontier(current, Reach::End, 0, Some(160)), Frontiers { fired: 160, purged: 160 });
        assert_eq!(frontier(Frontiers::START, Reach::End, 0, None), Frontiers::START);
    }

    #[test]
    fn a_window_fires_once_the_watermark_has_passed_its_end_and_the_lateness() {
        let ends = || [Some(60), None, Some(120)].into_iter();
        assert_eq!(next_to_fire(ends(), Reach::At(69), 10), None);
        assert_eq!(next_to_fire(ends(), Reach::At(70), 10), Some(60));
        assert_eq!(next_to_fire(ends(), Reach::End, 10), Some(60));
        assert_eq!(next_to_fire(ends(), Reach::Unknown, 10), None);
    }
}
