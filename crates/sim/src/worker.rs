//! The worker thread of the simulation: what the daemon's does with its partitions and messages, one step at a time.

use std::collections::VecDeque;

use onceflow_engine::worker::WorkerError;
use onceflow_protocol::coordinator::{
    BarrierReport, Event, Failure, FiredReport, Firing, FrozenReport, Load, OpenWindows, PartitionReport,
};
use onceflow_protocol::planted::{Planted, is_planted};
use onceflow_protocol::{Epoch, ErrorKind, Frontiers, NextOffset, PartitionClock};

use crate::coverage::EVICTED;
use crate::hazard::Hazard;
use crate::kafka::{SOURCES, Value};
use crate::messages::{Mail, Outbox, ToKeeper, ToSink, ToWorker};
use crate::outside::Outside;
use crate::row::Row;
use crate::task::{Changed, Part, Task};

/// Silence while a partition was not asked for longer than this says nothing about it, milliseconds.
const GAP_MS: u64 = 200;
/// Rows held beyond which workers stop polling.
const HELD_LIMIT: usize = 30;

/// A partition that a worker reads.
pub struct Assigned {
    /// Index into the run's positions, and number of the source partition.
    pub index: usize,
    /// Its place in time.
    pub clock: PartitionClock,
    /// Where a bounded run stops.
    pub end: Option<NextOffset>,
    /// When it was last asked.
    pub polled_ms: u64,
    /// A fetch does not return before.
    pub stalled_until_ms: u64,
    /// The simulation's own note, beside the clock: since when it has stood at its end, asked all the time.
    pub at_end_since_ms: Option<u64>,
}

impl Assigned {
    fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.clock.next_offset() >= end)
    }
}

/// A worker.
pub struct WorkerThread {
    /// Its number.
    pub index: usize,
    /// All workers.
    pub workers: usize,
    /// What it computes with.
    pub task: Task,
    /// What it reads.
    pub partitions: Vec<Assigned>,
    /// Frontiers of the windowed steps.
    pub frontiers: Vec<Frontiers>,
    /// Messages to it.
    pub inbox: VecDeque<ToWorker>,
    standing: bool,
    changed: Vec<Option<Changed>>,
    parts: Vec<Option<Part>>,
    firing: Option<Firing>,
    fired: Vec<i64>,
}

/// What workers and sink share.
#[derive(Debug, Default)]
pub struct Shared {
    /// Since the last barrier.
    pub load: Load,
    /// Rows on their way to the sink, or held there.
    pub held: usize,
}

impl WorkerThread {
    /// A worker before its first batch.
    pub fn new(
        index: usize,
        workers: usize,
        task: Task,
        partitions: Vec<Assigned>,
        frontiers: Vec<Frontiers>,
    ) -> WorkerThread {
        WorkerThread {
            index,
            workers,
            task,
            partitions,
            fired: frontiers.iter().map(|frontiers| frontiers.fired).collect(),
            frontiers,
            inbox: VecDeque::new(),
            standing: false,
            changed: vec![None; workers],
            parts: vec![None; workers],
            firing: None,
        }
    }

    /// Does one thing; whether there was any.
    pub fn step(
        &mut self,
        outside: &mut Outside,
        shared: &mut Shared,
        out: &mut Outbox,
        generations: &mut u64,
    ) -> bool {
        let done = match self.inbox.pop_front() {
            Some(message) => self.handle(message, shared, out).map(|()| true),
            None if self.standing || shared.held >= HELD_LIMIT => Ok(false),
            None => self.poll(outside, shared, out, generations),
        };
        done.unwrap_or_else(|error| {
            out.push_back(Mail::Driver(failed(error)));
            true
        })
    }

    /// Whether all its partitions are at the end of a bounded run.
    pub fn is_finished(&self) -> bool {
        self.partitions.iter().all(Assigned::is_finished)
    }

    fn poll(
        &mut self,
        outside: &mut Outside,
        shared: &mut Shared,
        out: &mut Outbox,
        generations: &mut u64,
    ) -> Result<bool, WorkerError> {
        if self.partitions.is_empty() {
            return Ok(false);
        }
        let at = outside.rng.index(self.partitions.len());
        let partition = &mut self.partitions[at];
        let now_ms = outside.now_ms;
        if partition.is_finished() {
            return Ok(false);
        }
        let unasked = now_ms - partition.polled_ms;
        if unasked > GAP_MS {
            partition.clock.held_back(unasked);
            partition.at_end_since_ms = partition.at_end_since_ms.map(|since| since + unasked);
        }
        partition.polled_ms = now_ms;
        if now_ms < partition.stalled_until_ms {
            return Ok(false);
        }
        if outside.strikes(Hazard::FetchStalls) {
            partition.stalled_until_ms = now_ms + outside.rng.below(500);
            return Ok(false);
        }
        let most = if outside.strikes(Hazard::FetchLags) { 1 } else { outside.rng.between(1, 12) as usize };
        let log = SOURCES + partition.index;
        let from = partition.clock.next_offset().0 as usize;
        let inputs: Vec<_> = outside
            .cluster
            .committed(log, from)
            .filter_map(|(offset, value)| match value {
                Value::Input(input) => Some((offset as i64, *input)),
                _ => None,
            })
            .take_while(|(offset, _)| partition.end.is_none_or(|end| *offset < end.0))
            .take(most)
            .collect();
        let went_back = |error| WorkerError { kind: ErrorKind::Bug, message: format!("{error:?}") };
        let Some((last, _)) = inputs.last() else {
            let end = outside.cluster.log(log).stable_end() as i64;
            let end = partition.end.map_or(end, |stop| end.min(stop.0));
            partition.at_end_since_ms.get_or_insert(now_ms);
            let moved = end > partition.clock.next_offset().0;
            partition.clock.reached_end(NextOffset(end), now_ms).map_err(went_back)?;
            return Ok(moved);
        };
        let next = NextOffset(last + 1);
        let (index, count) = (partition.index, inputs.len());
        partition.at_end_since_ms = None;
        let mut rows = vec![];
        let newest = self.task.process(index, &inputs, &mut rows)?;
        self.partitions[at].clock.advance(next, newest).map_err(went_back)?;
        shared.load.records += count as u64;
        outside.say(0, || format!("worker {} takes {count} records of {index} up to {next}", self.index));
        if is_planted(Planted::FiredBetweenBarriers) && self.workers == 1 {
            self.fire_at_once(&mut rows)?;
        }
        self.emit(rows, shared, out);
        if let Task::Engine(task) = &mut self.task
            && outside.rng.chance(outside.config.evictions)
        {
            if outside.rng.chance(500) {
                task.worker.let_go();
            }
            let freed = task.worker.evict_one(&mut || {
                *generations += 1;
                *generations
            })?;
            if freed > 0 {
                outside.coverage.row(EVICTED);
                outside.say(0, || format!("worker {} evicts", self.index));
            }
        }
        Ok(true)
    }

    /// The planted fault: emits what the watermark has passed without waiting for the barrier.
    fn fire_at_once(&mut self, rows: &mut Vec<Row>) -> Result<(), WorkerError> {
        let newest = self.partitions.iter().map(|partition| partition.clock.watermark()).min().flatten();
        while let Some(end) =
            self.task.next_end(0, self.fired[0])?.filter(|end| newest.is_some_and(|newest| *end <= newest.0))
        {
            let parts = self.task.close(0, end, None)?;
            self.task.merge(0, end, parts, None, rows)?;
            self.fired[0] = end;
        }
        Ok(())
    }

    fn emit(&self, rows: Vec<Row>, shared: &mut Shared, out: &mut Outbox) {
        if !rows.is_empty() {
            shared.held += rows.len();
            shared.load.output_bytes += rows.len() as u64;
            out.push_back(Mail::Sink(ToSink::Output(self.index, rows)));
        }
    }

    fn handle(
        &mut self,
        message: ToWorker,
        shared: &mut Shared,
        out: &mut Outbox,
    ) -> Result<(), WorkerError> {
        match message {
            ToWorker::Barrier => self.barrier(out),
            ToWorker::Fire(firing) => {
                self.firing = Some(firing);
                if firing.again {
                    let changed = self.task.changed(firing.step, firing.end)?;
                    for peer in (0..self.workers).filter(|peer| *peer != self.index) {
                        out.push_back(Mail::Worker(peer, ToWorker::Changed(self.index, changed.clone())));
                    }
                    self.changed[self.index] = Some(changed);
                }
                self.close_if_all_told(shared, out)
            }
            ToWorker::Changed(from, changed) => {
                self.changed[from] = Some(changed);
                self.close_if_all_told(shared, out)
            }
            ToWorker::Part(from, part) => {
                self.parts[from] = Some(part);
                self.merge_if_complete(shared, out)
            }
            ToWorker::Freeze(epoch, frontiers, hold) => self.freeze(epoch, frontiers, hold, out),
            ToWorker::Rewrite(step, pane) => match &mut self.task {
                Task::Engine(task) => task.worker.rewrite(step as usize, pane),
                Task::Fold(..) => Ok(()),
            },
            ToWorker::StopReading => {
                for partition in &mut self.partitions {
                    let here = partition.clock.next_offset();
                    partition.end = Some(partition.end.map_or(here, |end| end.min(here)));
                }
                Ok(())
            }
            ToWorker::Resume => {
                self.standing = false;
                Ok(())
            }
        }
    }

    fn barrier(&mut self, out: &mut Outbox) -> Result<(), WorkerError> {
        self.standing = true;
        if !is_planted(Planted::FiredBetweenBarriers) {
            self.fired = self.frontiers.iter().map(|frontiers| frontiers.fired).collect();
        }
        let partitions = self.partitions.iter().map(|partition| PartitionReport {
            partition: partition.index,
            next_offset: partition.clock.next_offset(),
            watermark: partition.clock.watermark(),
            disorder: None,
            idle: partition.clock.is_idle(partition.polled_ms),
            finished: partition.is_finished(),
        });
        let report = BarrierReport {
            worker: self.index,
            partitions: partitions.collect(),
            windows: self.windows()?,
            cold: self.task.has_cold(),
        };
        out.push_back(Mail::Driver(Event::AtBarrier(report)));
        Ok(())
    }

    /// Partitions that the clock calls idle, and whether the simulation's own note agrees.
    pub fn idle(&self, idle_after_ms: Option<u64>) -> impl Iterator<Item = (usize, bool)> {
        self.partitions.iter().filter(|partition| partition.clock.is_idle(partition.polled_ms)).map(
            move |partition| {
                let rightly = match (partition.at_end_since_ms, idle_after_ms) {
                    (Some(since), Some(after)) => partition.polled_ms.saturating_sub(since) >= after,
                    _ => false,
                };
                (partition.index, rightly)
            },
        )
    }

    /// Hands over its part of a window, once it knows what all have changed of one that is emitted again.
    fn close_if_all_told(&mut self, shared: &mut Shared, out: &mut Outbox) -> Result<(), WorkerError> {
        let Some(Firing { step, end, again }) = self.firing.filter(|_| self.parts[self.index].is_none())
        else {
            return Ok(());
        };
        let changed: Vec<Changed> = self.changed.iter().flatten().cloned().collect();
        if again && changed.len() < self.workers {
            return Ok(());
        }
        for (owner, part) in self.task.close(step, end, again.then_some(&changed))?.into_iter().enumerate() {
            if owner == self.index {
                self.parts[owner] = Some(part);
            } else {
                out.push_back(Mail::Worker(owner, ToWorker::Part(self.index, part)));
            }
        }
        self.merge_if_complete(shared, out)
    }

    fn windows(&self) -> Result<Vec<OpenWindows>, WorkerError> {
        self.fired.iter().enumerate().map(|(step, fired)| self.task.windows(step, *fired)).collect()
    }

    fn merge_if_complete(&mut self, shared: &mut Shared, out: &mut Outbox) -> Result<(), WorkerError> {
        let Some(firing) = self.firing.filter(|_| self.parts.iter().all(Option::is_some)) else {
            return Ok(());
        };
        let Firing { step, end, again } = firing;
        self.firing = None;
        let parts = self.parts.iter_mut().filter_map(Option::take).collect();
        let changed: Vec<Changed> = self.changed.iter_mut().filter_map(Option::take).collect();
        let mut rows = vec![];
        self.task.merge(step, end, parts, again.then_some(&changed), &mut rows)?;
        let output_bytes = rows.len() as u64;
        self.emit(rows, shared, out);
        if !again {
            self.fired[step] = end;
        }
        let report = FiredReport { worker: self.index, windows: self.windows()?, output_bytes };
        out.push_back(Mail::Driver(Event::Fired(report)));
        Ok(())
    }

    fn freeze(
        &mut self,
        epoch: Epoch,
        frontiers: Vec<Frontiers>,
        hold: bool,
        out: &mut Outbox,
    ) -> Result<(), WorkerError> {
        for (step, frontiers) in frontiers.iter().enumerate() {
            self.task.advance(step, *frontiers)?;
        }
        self.frontiers = frontiers;
        out.push_back(Mail::Keeper(ToKeeper::Frozen(self.index, self.task.freeze()?)));
        out.push_back(Mail::Sink(ToSink::Barrier(self.index, epoch)));
        out.push_back(Mail::Driver(Event::Frozen(FrozenReport {
            worker: self.index,
            counts: self.task.counts(),
        })));
        self.standing = hold;
        Ok(())
    }
}

/// An error of the engine, as the driver hears it.
pub fn failed(error: WorkerError) -> Event {
    Event::Failed(Failure { kind: error.kind, message: error.message })
}
