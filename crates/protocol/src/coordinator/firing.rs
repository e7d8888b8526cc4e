//! How far windows may fire at a barrier: pure rules over reports.
//!
//! A step's windows follow the smallest watermark of what the step reads: of the active partitions of a source, and of the purged
//! frontier of an earlier windowed step (so that chained windows agree). At a barrier with watermark W and lateness L:
//!
//! | `emit` | fired | purged | a window is emitted |
//! | --- | --- | --- | --- |
//! | `final` | max(purged, W − L) | the same | once, when nothing can change it any more |
//! | `updates` | max(fired, W) | max(purged, W − L) | when it fires, and what has changed of it again at every barrier until it is purged |
//! | running | max(purged, W − L) | the same | what has changed at every barrier, as if all of it were one window that has fired |

use crate::time::Frontiers;

use super::events::PartitionReport;

/// What the protocol knows of a windowed step. Steps are in topological order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowedStep {
    /// What its watermark depends on.
    pub inputs: Vec<TimeInput>,
    /// Allowed lateness, milliseconds.
    pub lateness_ms: i64,
    /// When its results are emitted.
    pub emit: Emit,
    /// Its frontiers are multiples of this, milliseconds: 1, or of sessions the length of a pane. Those of a pane end anywhere between two
    /// instants at which panes are settled, so that only at such an instant all results to come are later.
    pub granularity_ms: i64,
}

/// When the results of a window are emitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Emit {
    /// Once, when it closes.
    #[default]
    Final,
    /// At its end, and again whenever they have changed.
    Updates,
    /// Whenever they have changed: there is no end to wait for. A window that ends is no more than state that goes. So it is for rows that wait
    /// for the barrier, where it is decided which of them go on.
    Running,
}

/// A window that is emitted at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Number of the windowed step.
    pub step: usize,
    /// End of the window, milliseconds.
    pub end: i64,
    /// It has fired before: only what has changed since is emitted.
    pub again: bool,
}

/// What workers report of the windows of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenWindows {
    /// The smallest end of a window that has something to emit and has not fired.
    pub next_end: Option<i64>,
    /// Ends of windows that have fired and have changed since, ascending.
    pub changed: Vec<i64>,
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
    /// End of the last one that was emitted again.
    last_changed: Option<i64>,
    /// Nothing fires any more for the first time.
    is_cut: bool,
}

impl Pass {
    /// A pass of a bounded run, or of one that goes on.
    pub fn new(bounded: bool) -> Pass {
        Pass { bounded, ..Pass::default() }
    }

    /// The window to emit next, if there is one left: of each step first what has changed of windows that have fired, then those that
    /// fire. Steps that have none left are behind then, with their frontiers moved. `source`: how far the time of a source has got.
    /// `windows`: what all workers have of a step's windows.
    pub fn next(
        &mut self,
        steps: &[WindowedStep],
        frontiers: &mut [Frontiers],
        source: impl Fn(usize) -> Reach,
        windows: impl Fn(usize) -> OpenWindows,
    ) -> Option<Firing> {
        while let Some(step) = steps.get(self.step) {
            let number = self.step;
            let reaches = step.inputs.iter().map(|input| match input {
                // Unknown of those that a cut has left out.
                TimeInput::Step(step) => self.reaches.get(*step).copied().unwrap_or(Reach::Unknown),
                TimeInput::Source(number) => source(*number),
            });
            let reach = match reaches.min() {
                // Topics that are away, or none that match a pattern: nothing has ended.
                None | Some(Reach::End) if !self.bounded => Reach::Unknown,
                reach => reach.unwrap_or(Reach::Unknown),
            };
            let OpenWindows { next_end, changed } = windows(number);
            // What firing changes is no news.
            let is_left =
                |end: &i64| self.last_fired.is_none() && self.last_changed.is_none_or(|last| *end > last);
            if let Some(end) = changed.into_iter().find(is_left) {
                return Some(Firing { step: number, end, again: true });
            }
            if !self.is_cut {
                if let Some(end) = next_end.filter(|end| step.may_fire(*end, reach)) {
                    return Some(Firing { step: number, end, again: false });
                }
                let own = &mut frontiers[number];
                *own = step.frontiers(*own, reach, self.last_fired);
                self.reaches.push(match reach {
                    Reach::End => Reach::End,
                    _ => Reach::At(step.whole(own.purged)),
                });
            }
            self.leave_step();
        }
        None
    }

    fn leave_step(&mut self) {
        self.step += 1;
        self.last_fired = None;
        self.last_changed = None;
    }

    /// The window that [`next`](Self::next) named is emitted.
    pub fn fire(&mut self, firing: Firing) {
        let last = if firing.again { &mut self.last_changed } else { &mut self.last_fired };
        *last = Some(firing.end);
    }

    /// Nothing fires any more for the first time: the frontier of the step under way is the last window that has fired, those of the
    /// steps behind it stay. What has changed of them is still to be emitted.
    pub fn cut(&mut self, steps: &[WindowedStep], frontiers: &mut [Frontiers]) {
        if let (Some(step), Some(end)) = (steps.get(self.step), self.last_fired) {
            let own = &mut frontiers[self.step];
            *own = step.up_to(*own, end);
        }
        self.is_cut = true;
        self.leave_step();
    }
}

impl WindowedStep {
    /// Whether a window that ends there fires.
    fn may_fire(&self, end: i64, reach: Reach) -> bool {
        match (reach, self.emit) {
            // Totals outlive a bounded run.
            (Reach::Unknown, _) | (Reach::End, Emit::Running) => false,
            (Reach::At(watermark), Emit::Final | Emit::Running) => {
                end <= watermark.saturating_sub(self.lateness_ms)
            }
            (Reach::At(watermark), Emit::Updates) => end <= watermark,
            (Reach::End, _) => true,
        }
    }

    /// The frontiers that the step moves to: never back.
    fn frontiers(&self, current: Frontiers, reach: Reach, last_fired: Option<i64>) -> Frontiers {
        let (fired, purged) = match (reach, self.emit) {
            (Reach::Unknown, _) | (Reach::End, Emit::Running) => (current.fired, current.purged),
            (Reach::At(watermark), Emit::Final | Emit::Running) => {
                let closed = watermark.saturating_sub(self.lateness_ms);
                (closed, closed)
            }
            (Reach::At(watermark), Emit::Updates) => (watermark, watermark.saturating_sub(self.lateness_ms)),
            // At the end of a bounded run it is the last fired window's end, not infinity: later runs go on from there.
            (Reach::End, Emit::Final | Emit::Updates) => {
                return last_fired.map_or(current, |end| self.up_to(current, end));
            }
        };
        self.forward(current, fired, purged)
    }

    /// The frontiers when windows up to this end have fired, and no others.
    fn up_to(&self, current: Frontiers, end: i64) -> Frontiers {
        match self.emit {
            Emit::Final | Emit::Running => self.forward(current, end, end),
            Emit::Updates => self.forward(current, end, end.saturating_sub(self.lateness_ms)),
        }
    }

    fn forward(&self, current: Frontiers, fired: i64, purged: i64) -> Frontiers {
        let purged = self.whole(purged).max(current.purged);
        Frontiers { fired: self.whole(fired).max(current.fired).max(purged), purged }
    }

    fn whole(&self, instant: i64) -> i64 {
        instant.saturating_sub(instant.rem_euclid(self.granularity_ms.max(1)))
    }
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

    fn step(lateness_ms: i64, emit: Emit) -> WindowedStep {
        WindowedStep { inputs: vec![TimeInput::Source(0)], lateness_ms, emit, granularity_ms: 1 }
    }

    #[test]
    fn frontiers_never_go_back() {
        let current = Frontiers { fired: 100, purged: 100 };
        let at = |instant| Frontiers { fired: instant, purged: instant };
        let last = step(50, Emit::Final);
        assert_eq!(last.frontiers(current, Reach::At(130), None), current);
        assert_eq!(last.frontiers(current, Reach::At(190), None), at(140));
        assert_eq!(last.frontiers(current, Reach::Unknown, None), current);
        assert_eq!(last.frontiers(current, Reach::End, Some(160)), at(160));
        assert_eq!(last.frontiers(Frontiers::START, Reach::End, None), Frontiers::START);
        let sessions = WindowedStep { granularity_ms: 40, ..step(50, Emit::Final) };
        assert_eq!(sessions.frontiers(Frontiers::START, Reach::At(189), None), at(120));
        assert_eq!(sessions.frontiers(Frontiers::START, Reach::At(-1), None), at(-80));
        assert_eq!(sessions.frontiers(current, Reach::At(160), None), current);
        assert_eq!(sessions.frontiers(Frontiers::START, Reach::Unknown, None), Frontiers::START);
        let totals = WindowedStep { emit: Emit::Running, ..sessions };
        assert_eq!(totals.frontiers(Frontiers::START, Reach::At(189), None), at(120));
        assert_eq!(totals.frontiers(current, Reach::End, None), current);
        assert!(!totals.may_fire(1, Reach::End));
        let again = step(50, Emit::Updates);
        assert_eq!(again.frontiers(current, Reach::At(130), None), Frontiers { fired: 130, purged: 100 });
        assert_eq!(again.frontiers(current, Reach::At(190), None), Frontiers { fired: 190, purged: 140 });
        assert_eq!(again.frontiers(current, Reach::End, Some(160)), Frontiers { fired: 160, purged: 110 });
    }

    #[test]
    fn a_window_fires_once_the_watermark_has_passed_its_end_and_the_lateness_if_it_fires_once() {
        let last = step(10, Emit::Final);
        assert!(!last.may_fire(60, Reach::At(69)));
        assert!(last.may_fire(60, Reach::At(70)));
        assert!(last.may_fire(60, Reach::End));
        assert!(!last.may_fire(60, Reach::Unknown));
        let again = step(10, Emit::Updates);
        assert!(!again.may_fire(60, Reach::At(59)));
        assert!(again.may_fire(60, Reach::At(60)));
    }

    #[test]
    fn a_pass_fires_chained_steps_in_order_and_may_stop_early() {
        let steps =
            [step(0, Emit::Final), WindowedStep { inputs: vec![TimeInput::Step(0)], ..step(0, Emit::Final) }];
        // What has been fired of each step: windows of 10 below windows of 20.
        let run = |most: usize| {
            let mut fired: [Vec<i64>; 2] = [vec![], vec![]];
            let mut frontiers = [Frontiers::START; 2];
            let mut pass = Pass::default();
            for _ in 0..most {
                let windows = |step: usize| {
                    let every = [10, 20][step];
                    let next = fired[step].last().map_or(every, |end| end + every);
                    OpenWindows { next_end: Some(next).filter(|end| *end <= 40), changed: vec![] }
                };
                let Some(firing) = pass.next(&steps, &mut frontiers, |_| Reach::At(35), windows) else {
                    return (fired, frontiers);
                };
                pass.fire(firing);
                fired[firing.step].push(firing.end);
            }
            pass.cut(&steps, &mut frontiers);
            (fired, frontiers)
        };
        let at = |instant| Frontiers { fired: instant, purged: instant };
        assert_eq!(run(9), ([vec![10, 20, 30], vec![20]], [at(35), at(35)]));
        assert_eq!(run(2), ([vec![10, 20], vec![]], [at(20), Frontiers::START]));
    }

    #[test]
    fn what_has_changed_comes_before_what_fires() {
        let steps = [step(100, Emit::Updates)];
        let mut frontiers = [Frontiers { fired: 20, purged: -80 }];
        let mut pass = Pass::default();
        let mut emitted = vec![];
        loop {
            let fired = emitted.iter().filter(|(_, again)| !again).count() as i64;
            let windows = |_| OpenWindows { next_end: Some(30 + 10 * fired), changed: vec![10, 20] };
            let Some(firing) = pass.next(&steps, &mut frontiers, |_| Reach::At(45), windows) else { break };
            pass.fire(firing);
            emitted.push((firing.end, firing.again));
        }
        assert_eq!(emitted, [(10, true), (20, true), (30, false), (40, false)]);
        assert_eq!(frontiers, [Frontiers { fired: 45, purged: -55 }]);
    }
}
