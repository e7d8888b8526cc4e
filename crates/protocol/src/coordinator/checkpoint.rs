//! A checkpoint, step by step: trigger, barrier, fire, freeze, prepare, decide, confirm.

use std::collections::BTreeSet;

use crate::error::ErrorKind;
use crate::ids::Epoch;
use crate::planted::{Planted, is_planted};
use crate::records::{Counts, Decision, ManifestRef, Position};
use crate::time::Frontiers;

use super::firing::{OpenWindows, Pass, Reach, source_reach};
use super::{
    BarrierReport, Coordinator, Effect, Failure, FiredReport, Firing, FrozenReport, KeptSnapshot, Load,
    Outcome, PartitionReport, Phase, SnapshotDraft, Trigger,
};

/// Pause before a snapshot that failed is written again, milliseconds.
const WRITE_AGAIN_MS: u64 = 1000;

/// The checkpoint under way, and what the last one left.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// Why it was begun.
    pub trigger: Trigger,
    triggered_ms: u64,
    ended_ms: u64,
    /// Counts that the run began with; the workers count from there.
    run_began_with: Counts,
    /// Positions that the newest decision holds, in the workers' numbering.
    committed: Vec<Position>,
    /// Frontiers that the newest decision's snapshot holds: the workers' own.
    committed_frontiers: Vec<Frontiers>,
    reports: Vec<BarrierReport>,
    windows: Windows,
    frozen: Vec<FrozenReport>,
    hold: bool,
    flushed: bool,
    durable: Option<(ManifestRef, Vec<String>)>,
    failures: u32,
    write_again_ms: Option<u64>,
    decision: Option<Decision>,
    /// This barrier was the last one asked for.
    last: bool,
    /// Savepoints that were asked for before this barrier.
    savepoints: Vec<String>,
}

/// The firing pass of one barrier.
#[derive(Debug, Default)]
struct Windows {
    began_ms: u64,
    pass: Pass,
    waiting: usize,
    output_bytes: u64,
    /// Some window was emitted.
    fired: bool,
    /// One was that had not been before.
    advanced: bool,
    /// The pass stopped at the epoch's limit and goes on in the next epoch.
    cut: bool,
}

impl Checkpoint {
    /// A run begins with these positions and counts committed.
    pub fn new(
        now_ms: u64,
        committed: Vec<Position>,
        frontiers: Vec<Frontiers>,
        counts: Counts,
    ) -> Checkpoint {
        Checkpoint {
            triggered_ms: now_ms,
            ended_ms: now_ms,
            run_began_with: counts,
            committed,
            committed_frontiers: frontiers,
            ..Checkpoint::default()
        }
    }

    fn partitions(&self) -> impl Iterator<Item = &PartitionReport> {
        self.reports.iter().flat_map(|report| &report.partitions)
    }

    fn all_finished(&self) -> bool {
        self.partitions().all(|partition| partition.finished)
    }
}

impl Coordinator {
    pub(super) fn trigger_if_due(&mut self, now_ms: u64, load: Load, effects: &mut Vec<Effect>) {
        if let Some(trigger) = self.due(now_ms, load) {
            self.barrier(now_ms, trigger, effects);
        }
    }

    /// Why a checkpoint is due, if one is. Memory, a request, a pass that was cut short and the end of a bounded run do not wait for the
    /// pause.
    fn due(&self, now_ms: u64, load: Load) -> Option<Trigger> {
        let checkpoint = &self.checkpoint;
        if self.triggered {
            return Some(Trigger::Request);
        } else if load.pressure {
            return Some(Trigger::Memory);
        } else if checkpoint.windows.cut {
            return Some(Trigger::Continuation);
        } else if self.renews() {
            return Some(Trigger::Renewal);
        } else if load.finished && self.bounded {
            return Some(Trigger::End);
        } else if now_ms < checkpoint.ended_ms.saturating_add(self.settings.min_pause_ms) {
            return None;
        }
        if now_ms >= checkpoint.triggered_ms.saturating_add(self.settings.interval_ms) {
            Some(Trigger::Interval)
        } else if load.records >= self.settings.max_records {
            Some(Trigger::Records)
        } else if load.output_bytes >= self.settings.max_bytes {
            Some(Trigger::Bytes)
        } else {
            None
        }
    }

    pub(super) fn barrier(&mut self, now_ms: u64, trigger: Trigger, effects: &mut Vec<Effect>) {
        self.checkpoint.trigger = trigger;
        self.triggered = false;
        self.checkpoint.triggered_ms = now_ms;
        self.checkpoint.reports.clear();
        self.checkpoint.windows =
            Windows { began_ms: now_ms, pass: Pass::new(self.bounded), ..Windows::default() };
        self.checkpoint.last = self.stopping;
        self.checkpoint.savepoints = std::mem::take(&mut self.savepoints);
        self.enter(Phase::Aligning, now_ms, Some(self.settings.timeout_ms));
        effects.push(Effect::Barrier);
    }

    pub(super) fn at_barrier(&mut self, now_ms: u64, report: BarrierReport, effects: &mut Vec<Effect>) {
        for partition in &report.partitions {
            let position = &mut self.start.positions[partition.partition];
            if partition.next_offset < position.next_offset {
                let message = format!(
                    "{}-{} went back from {} to {}",
                    position.topic, position.partition, position.next_offset, partition.next_offset
                );
                return self.fail(now_ms, Failure { kind: ErrorKind::Bug, message }, effects);
            }
            position.next_offset = partition.next_offset;
            position.watermark = partition.watermark;
            position.disorder.clone_from(&partition.disorder);
        }
        self.checkpoint.reports.push(report);
        if self.checkpoint.reports.len() == self.settings.workers {
            self.fire_next(now_ms, effects);
        }
    }

    /// Fires the next window of the pass, or closes the epoch.
    fn fire_next(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let reaches: Vec<Reach> = (0..self.settings.sources.len()).map(|source| self.reach(source)).collect();
        let Checkpoint { windows, reports, .. } = &mut self.checkpoint;
        let steps = &self.settings.steps;
        let of_step = |step: usize| {
            let of_workers = || reports.iter().map(|report| &report.windows[step]);
            let changed: BTreeSet<i64> = of_workers().flat_map(|of| &of.changed).copied().collect();
            let next_end = of_workers().filter_map(|of| of.next_end).min();
            OpenWindows { next_end, changed: changed.into_iter().collect() }
        };
        let in_time = now_ms.saturating_sub(windows.began_ms) < self.settings.timeout_ms / 2;
        let has_room = in_time && windows.output_bytes < self.settings.max_bytes;
        let mut next = windows.pass.next(steps, &mut self.frontiers, |source| reaches[source], of_step);
        // A snapshot holds no change that has not been emitted: those are never put off.
        let put_off = |firing: &Firing| match firing.again {
            true => !has_room && is_planted(Planted::CorrectionsPutOff),
            false => !has_room && windows.advanced,
        };
        if next.as_ref().is_some_and(put_off) {
            // A jump of the watermark must not outlast a transaction: what is left fires in the next epoch.
            windows.cut = true;
            windows.pass.cut(steps, &mut self.frontiers);
            next = windows.pass.next(steps, &mut self.frontiers, |source| reaches[source], of_step);
            next = next.filter(|_| !is_planted(Planted::CorrectionsPutOff));
        }
        let Some(firing) = next else { return self.close_epoch(now_ms, effects) };
        windows.pass.fire(firing);
        windows.waiting = self.settings.workers;
        windows.fired = true;
        windows.advanced |= !firing.again;
        self.enter(Phase::Firing, now_ms, Some(self.settings.timeout_ms));
        effects.push(Effect::Fire(firing));
    }

    /// How far the time of a source has got.
    fn reach(&self, source: usize) -> Reach {
        let name = &self.settings.sources[source];
        let of_source = |report: &&PartitionReport| &self.start.positions[report.partition].source == name;
        source_reach(self.checkpoint.partitions().filter(of_source))
    }

    pub(super) fn fired(&mut self, now_ms: u64, report: FiredReport, effects: &mut Vec<Effect>) {
        self.checkpoint.windows.output_bytes += report.output_bytes;
        if let Some(of_worker) =
            self.checkpoint.reports.iter_mut().find(|other| other.worker == report.worker)
        {
            of_worker.windows = report.windows;
        }
        self.checkpoint.windows.waiting -= 1;
        if self.checkpoint.windows.waiting == 0 {
            self.fire_next(now_ms, effects);
        }
    }

    /// Freezes what changed. Where nothing did, there is nothing to commit. A position that advanced over markers only is a
    /// change too, else retention would pass it; so is a frontier that moved because a partition went idle, else the workers
    /// would go on accepting what the next barrier purges.
    fn close_epoch(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let moved = |(now, then): (&Position, &Position)| now.next_offset != then.next_offset;
        let positions = self.start.positions.iter().zip(&self.checkpoint.committed);
        let frontiers_moved = self.frontiers != self.checkpoint.committed_frontiers;
        if !self.checkpoint.windows.fired && !frontiers_moved && !positions.into_iter().any(moved) {
            // What is committed is all there is.
            self.make_savepoints(effects);
            // All workers stand still: a stop that came since the barrier has nothing to wait for either.
            if self.stopping || self.is_over() {
                return self.end(Outcome::Done, effects);
            }
            if self.renews() {
                return self.renew(now_ms, effects);
            }
            effects.push(Effect::Resume);
            return self.enter(Phase::Running, now_ms, None);
        }
        let hold = self.checkpoint.reports.iter().any(|report| report.cold);
        self.checkpoint.hold = hold;
        self.checkpoint.flushed = false;
        self.checkpoint.frozen.clear();
        self.enter(Phase::Freezing, now_ms, Some(self.settings.timeout_ms));
        let hold = hold && !is_planted(Planted::NoHoldForColdState);
        effects.push(Effect::Freeze { epoch: self.epoch(), frontiers: self.frontiers.clone(), hold });
    }

    /// The epoch under way.
    fn epoch(&self) -> Epoch {
        self.base.as_ref().map_or(Epoch(0), |base| base.epoch.next())
    }

    /// Whether nothing is left to do after this barrier.
    fn is_over(&self) -> bool {
        let complete = self.bounded && self.checkpoint.all_finished() && !self.checkpoint.windows.cut;
        self.checkpoint.last || complete
    }

    pub(super) fn frozen(&mut self, now_ms: u64, report: FrozenReport, effects: &mut Vec<Effect>) {
        self.checkpoint.frozen.push(report);
        if self.checkpoint.frozen.len() < self.settings.workers {
            return;
        }
        if self.checkpoint.hold {
            self.enter(Phase::SnapshottingCold, now_ms, Some(self.settings.timeout_ms));
            return effects.push(Effect::SnapshotCold(self.epoch()));
        }
        self.prepare(now_ms, effects);
    }

    pub(super) fn cold_snapshot_taken(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        effects.push(Effect::Resume);
        self.prepare(now_ms, effects);
    }

    fn prepare(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.checkpoint.durable = None;
        self.checkpoint.failures = 0;
        self.checkpoint.write_again_ms = None;
        self.enter(Phase::Preparing, now_ms, Some(self.settings.checkpoint_limit_ms()));
        if self.settings.stateful() {
            effects.push(self.write_snapshot());
        }
        self.decide_if_prepared(now_ms, effects);
    }

    fn write_snapshot(&self) -> Effect {
        let kept = self.kept.iter().rev().take(self.settings.retained.max(1) - 1).rev();
        Effect::WriteSnapshot(Box::new(SnapshotDraft {
            epoch: self.epoch(),
            attempt: self.snapshot_attempt(),
            positions: self.start.positions.clone(),
            counts: self.counts(),
            frontiers: self.frontiers.clone(),
            kept: kept.cloned().collect(),
            topics: self.start.topics.clone(),
        }))
    }

    /// Everything up to the end of the epoch under way, which every worker has reported.
    fn counts(&self) -> Counts {
        let mut counts = self.checkpoint.run_began_with;
        self.checkpoint.frozen.iter().for_each(|report| counts += report.counts);
        counts
    }

    fn snapshot_attempt(&self) -> String {
        format!("{}-{}", self.attempt(self.epoch()), self.checkpoint.failures)
    }

    pub(super) fn flushed(&mut self, now_ms: u64, epoch: Epoch, effects: &mut Vec<Effect>) {
        if epoch != self.epoch() {
            let message = format!("output of epoch {epoch} was flushed in epoch {}", self.epoch());
            return self.fail(now_ms, Failure { kind: ErrorKind::Bug, message }, effects);
        }
        self.checkpoint.flushed = true;
        if self.phase == Phase::Preparing {
            self.decide_if_prepared(now_ms, effects);
        }
    }

    pub(super) fn durable(
        &mut self,
        now_ms: u64,
        manifest: ManifestRef,
        files: Vec<String>,
        effects: &mut Vec<Effect>,
    ) {
        self.checkpoint.durable = Some((manifest, files));
        self.decide_if_prepared(now_ms, effects);
    }

    /// The transaction stays open while a snapshot is tried again; the rows copied out are still in memory.
    pub(super) fn snapshot_failed(&mut self, now_ms: u64, reason: String, effects: &mut Vec<Effect>) {
        self.checkpoint.failures += 1;
        if self.checkpoint.failures > self.settings.tolerable_failures {
            let message = format!("the snapshot could not be made durable: {reason}");
            return self.fail(now_ms, Failure { kind: ErrorKind::EpochFailed, message }, effects);
        }
        self.checkpoint.write_again_ms = Some(now_ms + WRITE_AGAIN_MS);
    }

    pub(super) fn write_again_if_due(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.checkpoint.write_again_ms.is_some_and(|at| now_ms >= at) {
            self.checkpoint.write_again_ms = None;
            effects.push(self.write_snapshot());
        }
    }

    fn decide_if_prepared(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let durable = !self.settings.stateful() || self.checkpoint.durable.is_some();
        if !self.checkpoint.flushed || !durable {
            return;
        }
        let manifest = self.checkpoint.durable.as_ref().map(|(manifest, _)| manifest.clone());
        let mut decision = self.decision(self.epoch(), self.snapshot_attempt(), manifest);
        decision.counts = self.counts();
        self.checkpoint.decision = Some(decision.clone());
        self.enter(Phase::Deciding, now_ms, Some(self.settings.timeout_ms));
        effects.push(Effect::Decide(Box::new(decision)));
    }

    pub(super) fn decision_committed(&mut self, now_ms: u64, epoch: Epoch, effects: &mut Vec<Effect>) {
        let Some(decision) = self.checkpoint.decision.take().filter(|decision| decision.epoch == epoch)
        else {
            let message = format!("epoch {epoch} was committed, but it was not what was decided");
            return self.fail(now_ms, Failure { kind: ErrorKind::Bug, message }, effects);
        };
        let over = self.is_over();
        let renews = self.renews();
        if !over && !renews {
            // At the end no further transaction is begun: it would hold readers back until it times out.
            effects.push(Effect::Release);
        }
        effects.push(Effect::Confirm(Box::new(decision.clone())));
        self.base = Some(decision.clone());
        self.make_savepoints(effects);
        if let Some((manifest, files)) = self.checkpoint.durable.take() {
            self.kept.push(KeptSnapshot { epoch, manifest, files });
            // The newest decision may not be visible yet, as markers follow a commit; the one before is, since this transaction could
            // only begin after it. So a start that reads now may need either.
            let retired = retire(&mut self.kept, self.settings.retained.max(2));
            if !retired.is_empty() {
                effects.push(Effect::DeleteFiles(retired));
            }
        }
        self.checkpoint.committed = decision.positions.clone();
        self.checkpoint.committed_frontiers = self.frontiers.clone();
        self.checkpoint.ended_ms = now_ms;
        self.recovery.committed();
        if over {
            return self.end(Outcome::Done, effects);
        }
        if renews {
            return self.renew(now_ms, effects);
        }
        self.enter(Phase::Running, now_ms, None);
        if self.stopping {
            self.barrier(now_ms, Trigger::Stop, effects);
        }
    }

    /// A savepoint is a copy of what is committed. It is asked for before anything of that is retired.
    fn make_savepoints(&mut self, effects: &mut Vec<Effect>) {
        let Some(base) = &self.base else { return };
        for name in self.checkpoint.savepoints.drain(..) {
            effects.push(Effect::MakeSavepoint { name, decision: Box::new(base.clone()) });
        }
    }
}

/// Takes the oldest snapshots off the list and returns the files that only they named. Never "everything not listed": a file
/// may belong to a successor.
fn retire(kept: &mut Vec<KeptSnapshot>, retained: usize) -> Vec<String> {
    let excess = kept.len().saturating_sub(retained);
    let retired: Vec<KeptSnapshot> = kept.drain(..excess).collect();
    let named: BTreeSet<&String> = kept.iter().flat_map(|snapshot| &snapshot.files).collect();
    let mut files: Vec<String> = retired.into_iter().flat_map(|snapshot| snapshot.files).collect();
    files.sort();
    files.dedup();
    files.retain(|file| !named.contains(file) || is_planted(Planted::LiveSegmentDropped));
    files
}
