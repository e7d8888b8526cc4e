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

/// The windows of one barrier, in the order in which they fire: steps in their order, the windows of each in the order of their ends.
#[derive(Debug, Default)]
pub struct Pass {
    /// Whether the run is a bounded one, in which everything fires once nothing is left to read.
    bounded: bool,
    /// The step whose windows fire.
    step: usize,
    /// How far the time of the steps before it has got, for those that read them.
    reaches: Vec<Reach>,
    /// End of the last window of the step that fired in this pass.
    last_fired: Option<i64>,
}

impl Pass {
    /// A pass of a bounded run, or of one that goes on.
    pub fn new(bounded: bool) -> Pass {
        Pass { bounded, ..Pass::default() }
    }

    /// The step and the end of the window to fire next, if there is one left. Steps that have none left are behind then, with their
    /// frontiers moved. `source`: how far the time of a source has got. `next_end`: the smallest end of a window of a step that has
    /// something to emit and has not fired.
    pub fn next(
        &mut self,
        steps: &[WindowedStep],
        frontiers: &mut [Frontiers],
        source: impl Fn(usize) -> Reach,
        next_end: impl Fn(usize) -> Option<i64>,
    ) -> Option<(usize, i64)> {
        while let Some(step) = steps.get(self.step) {
            let reaches = step.inputs.iter().map(|input| match input {
                TimeInput::Step(step) => self.reaches[*step],
                TimeInput::Source(number) => source(*number),
            });
            let reach = match reaches.min() {
                // Topics that are away, or none that match a pattern: nothing has ended.
                None | Some(Reach::End) if !self.bounded => Reach::Unknown,
                reach => reach.unwrap_or(Reach::Unknown),
            };
            if let Some(end) = next_to_fire(next_end(self.step), reach, step.lateness_ms) {
                return Some((self.step, end));
            }
            let own = &mut frontiers[self.step];
            *own = frontier(*own, reach, step.lateness_ms, self.last_fired);
            self.reaches.push(if reach == Reach::End { Reach::End } else { Reach::At(own.purged) });
            self.step += 1;
            self.last_fired = None;
        }
        None
    }

    /// The window that [`next`](Self::next) named is to fire.
    pub fn fire(&mut self, end: i64) {
        self.last_fired = Some(end);
    }

    /// The pass stops before its end: the frontier of the step under way is the last window that has fired.
    pub fn cut(&self, frontiers: &mut [Frontiers]) {
        if let (Some(own), Some(end)) = (frontiers.get_mut(self.step), self.last_fired) {
            *own = frontier(*own, Reach::At(end), 0, None);
        }
    }
}

/// The frontier that a step moves to: never back.
fn frontier(current: Frontiers, reach: Reach, lateness_ms: i64, last_fired: Option<i64>) -> Frontiers {
    let to = match reach {
        Reach::Unknown => current.purged,
        Reach::At(watermark) => watermark.saturating_sub(lateness_ms),
        // At the end of a bounded run it is the last fired window's end, not infinity: later runs go on from there.
        Reach::End => last_fired.unwrap_or(current.purged),
    };
    let to = to.max(current.purged);
    Frontiers { fired: to.max(current.fired), purged: to }
}

/// The window end, if it may fire: at or before the limit that the reach sets.
fn next_to_fire(next_end: Option<i64>, reach: Reach, lateness_ms: i64) -> Option<i64> {
    next_end.filter(|end| match reach {
        Reach::Unknown => false,
        Reach::At(watermark) => *end <= watermark.saturating_sub(lateness_ms),
        Reach::End => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NextOffset;
    use crate::time::Watermark;

    fn partition(watermark: Option<i64>, idle: bool, finished: bool) -> PartitionReport {
        let watermark = watermark.map(Watermark);
        PartitionReport {
            partition: 0,
            next_offset: NextOffset(0),
            watermark,
            disorder: None,
            idle,
            finished,
        }
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
        assert_eq!(next_to_fire(Some(60), Reach::At(69), 10), None);
        assert_eq!(next_to_fire(Some(60), Reach::At(70), 10), Some(60));
        assert_eq!(next_to_fire(Some(60), Reach::End, 10), Some(60));
        assert_eq!(next_to_fire(Some(60), Reach::Unknown, 10), None);
        assert_eq!(next_to_fire(None, Reach::End, 10), None);
    }

    #[test]
    fn a_pass_fires_chained_steps_in_order_and_may_stop_early() {
        let steps = [
            WindowedStep { inputs: vec![TimeInput::Source(0)], lateness_ms: 0 },
            WindowedStep { inputs: vec![TimeInput::Step(0)], lateness_ms: 0 },
        ];
        // What has been fired of each step: windows of 10 below windows of 20.
        let run = |most: usize| {
            let mut fired: [Vec<i64>; 2] = [vec![], vec![]];
            let mut frontiers = [Frontiers::START; 2];
            let mut pass = Pass::default();
            for _ in 0..most {
                let next_end = |step: usize| {
                    let every = [10, 20][step];
                    let next = fired[step].last().map_or(every, |end| end + every);
                    Some(next).filter(|end| *end <= 40)
                };
                let Some((step, end)) = pass.next(&steps, &mut frontiers, |_| Reach::At(35), next_end) else {
                    return (fired, frontiers);
                };
                pass.fire(end);
                fired[step].push(end);
            }
            pass.cut(&mut frontiers);
            (fired, frontiers)
        };
        let at = |instant| Frontiers { fired: instant, purged: instant };
        assert_eq!(run(9), ([vec![10, 20, 30], vec![20]], [at(35), at(35)]));
        assert_eq!(run(2), ([vec![10, 20], vec![]], [at(20), Frontiers::START]));
    }
}
