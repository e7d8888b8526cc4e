//! The worker thread: carries records from its partitions through the engine to the sink, and stands still at barriers.
//!
//! It never waits for a peer while it owes one something: it polls sources only while not too much output is held, not too many rows wait for
//! the barrier and no barrier stands, and always drains its inbox first. Only while windows fire does it wait for room in the sink, which owes it
//! nothing but to produce what belongs to the open transaction. So no deadlock can close.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use onceflow_engine::output::Output;
use onceflow_engine::plan::Backend;
use onceflow_engine::state::window_state::{Changed, ChangedGroups, Partials};
use onceflow_engine::worker::{Worker, WorkerError};
use onceflow_protocol::coordinator::{
    BarrierReport, Event, FiredReport, Firing, FrozenReport, OpenWindows, PartitionReport,
};
use onceflow_protocol::{Epoch, ErrorKind, Frontiers, NextOffset, PartitionClock};

use super::context::{Context, wall_clock_ms};
use super::drift::Drift;
use super::load::Load;
use super::messages::{DriverSender, Question, ToKeeper, ToSink, ToWorker, fail};
use super::meter::{Meter, Spent};
use crate::kafka::{PartitionQueue, TopicLimits};

/// Records taken from a partition at a time.
const BATCH: usize = 4096;
/// How long an idle worker waits on one of its partitions before it looks at the others.
const IDLE: Duration = Duration::from_millis(5);
/// Silence while a partition was not asked for longer than this says nothing about it.
const GAP_MS: u64 = 200;
/// How long it waits for its inbox when it must not poll.
const STANDING: Duration = Duration::from_millis(20);

/// A partition that this worker reads.
pub struct Assigned {
    /// Index into the run's positions.
    pub index: usize,
    /// Number of the source.
    pub source: usize,
    /// Its records.
    pub queue: PartitionQueue,
    /// Its place in time.
    pub clock: PartitionClock,
    /// Where a bounded run, or a drain, stops reading.
    pub end: Option<NextOffset>,
    /// When it was last asked for records, milliseconds since the worker began.
    pub polled_ms: u64,
}

impl Assigned {
    fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.clock.next_offset() >= end)
    }
}

/// Everything that a worker thread owns.
pub struct WorkerThread {
    /// Its number.
    pub index: usize,
    /// Shared settings.
    pub context: Arc<Context>,
    /// The pure part.
    pub engine: Worker,
    /// Its partitions.
    pub partitions: Vec<Assigned>,
    /// From the driver and from the other workers.
    pub inbox: Receiver<ToWorker>,
    /// All workers' inboxes, its own too.
    pub peers: Vec<Sender<ToWorker>>,
    /// To the sink.
    pub sink: Sender<ToSink>,
    /// To the keeper.
    pub keeper: Sender<ToKeeper>,
    /// To the driver.
    pub driver: DriverSender,
    /// Shared counters.
    pub load: Arc<Load>,
    /// Where all partitions of the run stand in time.
    pub drift: Arc<Drift>,
    /// Numbers of the windowed steps' state, in the plan's order.
    pub state_ids: Vec<u32>,
    /// What the output topics accept, in the plan's order.
    pub limits: Vec<TopicLimits>,
}

enum Stop {
    /// The run is over.
    Over,
    /// Something failed.
    Failed(ErrorKind, String),
}

impl From<WorkerError> for Stop {
    fn from(error: WorkerError) -> Stop {
        Stop::Failed(error.kind, error.message)
    }
}

type Step<T = ()> = Result<T, Stop>;

/// Sources are not polled at one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    /// There is none.
    None,
    /// The epoch has not ended yet: windows fire.
    Firing,
    /// The epoch has ended, and the next has not begun.
    Held,
}

/// What a worker does between two messages.
struct Running {
    thread: WorkerThread,
    started: Instant,
    /// How far the barrier is at which it stands.
    barrier: Barrier,
    /// What is asked about keys and not answered yet.
    questions: Vec<Question>,
    /// The partition to poll next.
    turn: usize,
    /// What each worker has told of what is emitted again.
    changed: Vec<Option<Arc<Changed>>>,
    /// Parts of the window that is emitted, by worker.
    parts: Vec<Option<Partials>>,
    firing: Option<Firing>,
    /// All that has changed of it, once everybody has told.
    groups: Option<ChangedGroups>,
    /// Asked for a barrier because of memory since the last one.
    pressed: bool,
    unfinished: usize,
    /// By windowed step, how far windows have fired in the pass under way.
    fired: Vec<i64>,
    meter: Meter,
    /// Time within the present message in which windows could not be emitted.
    waited_for_sink: Duration,
}

impl WorkerThread {
    /// Runs until the run is over.
    pub fn run(self) {
        let (driver, load) = (self.driver.clone(), self.load.clone());
        let parts = self.peers.iter().map(|_| None).collect();
        let changed = self.peers.iter().map(|_| None).collect();
        let unfinished = self.partitions.len();
        let meter = Meter::new(&self.context, &self.partitions);
        let mut running = Running {
            thread: self,
            started: Instant::now(),
            barrier: Barrier::None,
            questions: vec![],
            turn: 0,
            changed,
            parts,
            firing: None,
            groups: None,
            pressed: false,
            unfinished,
            fired: vec![],
            meter,
            waited_for_sink: Duration::ZERO,
        };
        if let Err(Stop::Failed(kind, message)) = running.run()
            && !load.is_cancelled()
        {
            fail(&driver, kind, message);
        }
    }
}

impl Running {
    fn run(&mut self) -> Step {
        self.note_finished();
        self.thread.refresh_limits();
        loop {
            if self.thread.load.is_cancelled() {
                return Err(Stop::Over);
            }
            let message = if self.may_poll() {
                match self.thread.inbox.try_recv() {
                    Ok(message) => Some(message),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return Err(Stop::Over),
                }
            } else {
                let began = Instant::now();
                let message = self.thread.inbox.recv_timeout(STANDING);
                self.meter.spent(self.why_not_polling(), began.elapsed());
                match message {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return Err(Stop::Over),
                }
            };
            let began = Instant::now();
            let how = match message {
                Some(message) => {
                    let how = what_for(&message);
                    self.handle(message)?;
                    how
                }
                None if self.poll_sources()? => Spent::Records,
                None => Spent::Idle,
            };
            let waited = std::mem::take(&mut self.waited_for_sink);
            self.meter.spent(Spent::BlockedBySink, waited);
            self.meter.spent(how, began.elapsed().saturating_sub(waited));
        }
    }

    fn may_poll(&self) -> bool {
        let held = self.thread.load.held_bytes.load(Relaxed);
        let may_hold = held < self.thread.context.held_limit && !self.enough_waits();
        self.barrier == Barrier::None && !self.thread.partitions.is_empty() && may_hold
    }

    /// Whether as many rows wait for the barrier as this worker may keep until then.
    fn enough_waits(&self) -> bool {
        self.thread.engine.waiting_bytes() >= self.thread.context.held_limit / self.thread.peers.len()
    }

    fn why_not_polling(&self) -> Spent {
        if self.barrier != Barrier::None || self.enough_waits() {
            Spent::BlockedByCheckpoint
        } else if self.thread.partitions.is_empty() {
            Spent::Idle
        } else {
            Spent::BlockedBySink
        }
    }

    /// Takes a batch from each partition that has one; where none has, waits a little on one of them, in turn.
    fn poll_sources(&mut self) -> Step<bool> {
        let mut any = false;
        let partitions = self.thread.partitions.len();
        for i in 0..partitions {
            if self.enough_waits() {
                break;
            }
            any |= self.poll_partition((self.turn + i) % partitions, Duration::ZERO)?;
        }
        self.turn = (self.turn + 1) % partitions;
        if !any {
            any = self.poll_partition(self.turn, IDLE)?;
        }
        Ok(any)
    }

    fn poll_partition(&mut self, i: usize, timeout: Duration) -> Step<bool> {
        let now_ms = self.now_ms();
        let thread = &mut self.thread;
        let partition = &mut thread.partitions[i];
        if partition.is_finished() || is_ahead(&thread.context, &thread.drift, partition) {
            if !timeout.is_zero() {
                std::thread::sleep(timeout);
            }
            return Ok(false);
        }
        let unasked = now_ms - partition.polled_ms;
        if unasked > GAP_MS {
            partition.clock.held_back(unasked);
        }
        partition.polled_ms = now_ms;
        if !partition.queue.is_heard() {
            partition.clock.unheard(now_ms);
        }
        let fetched = partition
            .queue
            .poll(BATCH, timeout)
            .map_err(|error| Stop::Failed(error.kind, error.to_string()))?;
        let mut batch = fetched.batch;
        let taken = batch.len();
        if let Some(end) = partition.end {
            batch.truncate_at(end.0);
        }
        let records = batch.len();
        // What lies beyond the end of a bounded run proves that the end was reached.
        let reached_end = fetched.reached_end.or(partition.end.filter(|_| records < taken).map(|end| end.0));
        if records > 0 {
            let mut output = Output::default();
            let (topic, number) = (partition.queue.topic(), partition.queue.partition());
            let processed = thread.engine.process(partition.source, topic, number, &batch, &mut output)?;
            let next = NextOffset(batch.offset(records - 1) + 1);
            for times in &processed.event_times {
                partition.clock.observe(times.values());
            }
            partition.clock.advance(next, processed.max_event_time).map_err(went_back)?;
            self.meter.records(i, records, (0..records).map(|record| batch.size(record)).sum());
            thread.load.records.fetch_add(records as u64, Relaxed);
            thread.emit(output);
        }
        if let Some(position) = reached_end {
            let position = thread.partitions[i].end.map_or(position, |end| position.min(end.0));
            thread.partitions[i].clock.reached_end(NextOffset(position), now_ms).map_err(went_back)?;
        }
        self.note_drift(i);
        if self.thread.partitions[i].is_finished() {
            self.note_finished();
        }
        if records > 0 {
            self.mind_memory()?;
        }
        Ok(records > 0)
    }

    /// Tells all workers where a partition stands.
    fn note_drift(&self, i: usize) {
        let WorkerThread { context, drift, partitions, .. } = &self.thread;
        let partition = &partitions[i];
        if context.plan.sources[partition.source].max_drift.is_some() {
            let counts = !partition.is_finished() && !partition.clock.is_idle(partition.polled_ms);
            let watermark = partition.clock.watermark().map(|watermark| watermark.0);
            drift.advance(partition.index, watermark, counts);
        }
    }

    fn note_finished(&mut self) {
        (0..self.thread.partitions.len()).for_each(|i| self.note_drift(i));
        let unfinished = self.thread.partitions.iter().filter(|partition| !partition.is_finished()).count();
        self.thread.load.unfinished.fetch_sub(self.unfinished - unfinished, Relaxed);
        self.unfinished = unfinished;
    }

    fn handle(&mut self, message: ToWorker) -> Step {
        match message {
            ToWorker::Barrier => self.barrier(),
            ToWorker::Fire(firing) => self.fire(firing),
            ToWorker::Changed { from, changed } => {
                self.changed[from] = Some(changed);
                self.close_if_all_told()
            }
            ToWorker::Partials { from, partials } => {
                self.parts[from] = Some(partials);
                self.merge_if_complete()
            }
            ToWorker::Freeze { epoch, frontiers, hold } => self.freeze(epoch, &frontiers, hold),
            ToWorker::Rewrite { state_id, pane } => {
                let step = self.thread.state_ids.iter().position(|id| *id == state_id);
                Ok(step.map_or(Ok(()), |step| self.thread.engine.rewrite(step, pane))?)
            }
            ToWorker::StopReading => {
                for partition in &mut self.thread.partitions {
                    let here = partition.clock.next_offset();
                    partition.end = Some(partition.end.map_or(here, |end| end.min(here)));
                }
                self.note_finished();
                Ok(())
            }
            ToWorker::Resume => {
                self.barrier = Barrier::None;
                self.answer_questions();
                self.relieve_memory()
            }
            ToWorker::Find(question) => {
                self.questions.push(question);
                self.answer_questions();
                Ok(())
            }
        }
    }

    fn barrier(&mut self) -> Step {
        self.barrier = Barrier::Firing;
        let windows = 0..self.thread.engine.windows();
        self.fired = windows
            .map(|step| self.thread.engine.frontiers(step).map(|at| at.fired))
            .collect::<Result<_, _>>()?;
        let partitions = self.thread.partitions.iter().map(|partition| PartitionReport {
            partition: partition.index,
            next_offset: partition.clock.next_offset(),
            watermark: partition.clock.watermark(),
            disorder: partition.clock.disorder().cloned(),
            idle: partition.clock.is_idle(partition.polled_ms),
            finished: partition.is_finished(),
        });
        let report = BarrierReport {
            worker: self.thread.index,
            partitions: partitions.collect(),
            windows: self.windows()?,
            cold: self.thread.engine.has_cold(),
        };
        self.thread.driver.event(Event::AtBarrier(report));
        Ok(())
    }

    /// This worker's windows, by windowed step.
    fn windows(&self) -> Step<Vec<OpenWindows>> {
        let engine = &self.thread.engine;
        let windows = self.fired.iter().enumerate().map(|(step, fired)| {
            let next_end = engine.next_end_after(step, *fired)?;
            Ok(OpenWindows { next_end, changed: engine.changed_ends(step)? })
        });
        Ok(windows.collect::<Result<_, WorkerError>>()?)
    }

    /// Hands this worker's part of a window to its owners. Where the window has fired before, all workers first tell each other which of
    /// its groups have changed: an owner needs everybody's part of those.
    fn fire(&mut self, firing: Firing) -> Step {
        self.firing = Some(firing);
        if !firing.again {
            let parts = self.thread.engine.close(firing.step, firing.end, None)?;
            return self.hand_over(parts);
        }
        let changed = self.thread.engine.changed(firing.step, firing.end)?;
        for (peer, sender) in self.thread.peers.iter().enumerate() {
            if peer != self.thread.index {
                let message = ToWorker::Changed { from: self.thread.index, changed: changed.clone() };
                sender.send(message).map_err(|_| Stop::Over)?;
            }
        }
        self.changed[self.thread.index] = Some(changed);
        self.close_if_all_told()
    }

    fn close_if_all_told(&mut self) -> Step {
        let own = self.thread.index;
        // A peer may be ahead: what it tells waits for this worker's own order to fire.
        let Some(firing) = self.firing.filter(|_| self.changed.iter().all(Option::is_some)) else {
            return Ok(());
        };
        if self.parts[own].is_some() {
            return Ok(());
        }
        let changed = self.changed.iter().flatten().map(Arc::as_ref);
        let changed = ChangedGroups::new(changed);
        let parts = self.thread.engine.close(firing.step, firing.end, Some(&changed))?;
        self.groups = Some(changed);
        self.hand_over(parts)
    }

    fn hand_over(&mut self, parts: Vec<Partials>) -> Step {
        for (owner, partials) in parts.into_iter().enumerate() {
            if owner == self.thread.index {
                self.parts[owner] = Some(partials);
            } else {
                // A peer that is gone took the run with it.
                let message = ToWorker::Partials { from: self.thread.index, partials };
                self.thread.peers[owner].send(message).map_err(|_| Stop::Over)?;
            }
        }
        self.merge_if_complete()
    }

    fn merge_if_complete(&mut self) -> Step {
        let Some(firing) = self.firing.filter(|_| self.parts.iter().all(Option::is_some)) else {
            return Ok(());
        };
        let Firing { step, end, again } = firing;
        self.firing = None;
        let parts: Vec<Partials> = self.parts.iter_mut().filter_map(Option::take).collect();
        self.changed.fill_with(|| None);
        let groups = self.groups.take();
        let WorkerThread { engine, sink, load, context, index, .. } = &mut self.thread;
        let (mut output_bytes, mut waited) = (0, Duration::ZERO);
        let waiting = engine.waiting_bytes();
        engine.merge(step, end, &parts, groups.as_ref(), &mut |output| {
            output_bytes += output.size_bytes() as u64;
            let began = Instant::now();
            while load.held_bytes.load(Relaxed) >= context.held_limit && !load.is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            waited += began.elapsed();
            send_output(sink, load, *index, output);
            Ok(())
        })?;
        // What waits for a deduplication behind takes as much room as what is written.
        output_bytes += self.thread.engine.waiting_bytes().saturating_sub(waiting) as u64;
        self.waited_for_sink += waited;
        if !again {
            self.fired[step] = end;
        }
        let report = FiredReport { worker: self.thread.index, windows: self.windows()?, output_bytes };
        self.thread.driver.event(Event::Fired(report));
        Ok(())
    }

    fn freeze(&mut self, epoch: Epoch, frontiers: &[Frontiers], hold: bool) -> Step {
        let thread = &mut self.thread;
        let worker = thread.index;
        for (step, frontiers) in frontiers.iter().enumerate() {
            thread.engine.advance(step, *frontiers)?;
        }
        if !thread.context.windowed.is_empty() {
            let frozen = thread.engine.freeze()?;
            thread.keeper.send(ToKeeper::Frozen { worker, frozen }).map_err(|_| Stop::Over)?;
        }
        thread.sink.send(ToSink::Barrier { worker, epoch }).map_err(|_| Stop::Over)?;
        self.meter.report(thread);
        let counts = protocol_counts(&thread.engine.counts().total);
        thread.driver.event(Event::Frozen(FrozenReport { worker, counts }));
        thread.refresh_limits();
        self.pressed = false;
        self.barrier = if hold { Barrier::Held } else { Barrier::None };
        self.answer_questions();
        if hold { Ok(()) } else { self.relieve_memory() }
    }

    /// Answers what was asked about keys, but for the time in which windows fire: rows are on their way between workers then. Every worker is asked
    /// between the same two messages of the driver, and so they answer alike.
    fn answer_questions(&mut self) {
        if self.barrier == Barrier::Firing {
            return;
        }
        for Question { keys, reply } in self.questions.drain(..) {
            if reply.is_closed() {
                continue;
            }
            let found = keys
                .iter()
                .enumerate()
                .map(|(step, key)| key.as_ref().map(|key| self.thread.engine.find(step, key)).transpose());
            // Whether there is an answer, and anybody waits for it still, is nothing to the run.
            let _ = reply.send(found.collect::<Result<_, _>>().map_err(|error| error.message));
        }
    }

    /// Beyond its share of memory a worker asks for a barrier, which may close windows; well beyond it, it does not wait for that. It asks for one
    /// as well when too many rows wait for it.
    fn mind_memory(&mut self) -> Step {
        if !self.pressed && self.enough_waits() {
            self.pressed = true;
            self.thread.load.pressure.store(true, Relaxed);
        }
        let used = self.thread.engine.memory_bytes();
        let share = self.thread.context.table_share;
        if used <= share {
            return Ok(());
        }
        if !self.pressed {
            self.pressed = true;
            self.thread.load.pressure.store(true, Relaxed);
        }
        if used > share + share / 4 { self.relieve_memory() } else { Ok(()) }
    }

    /// Lets go of what can be computed again, and then evicts the largest panes until the tables fit again.
    fn relieve_memory(&mut self) -> Step {
        let context = self.thread.context.clone();
        let engine = &mut self.thread.engine;
        let limit = match context.plan.state.backend {
            Backend::Memory => context.memory_share,
            Backend::RocksDb => context.table_share,
        };
        if engine.memory_bytes() > limit {
            engine.let_go();
        }
        if engine.memory_bytes() <= limit {
            return Ok(());
        }
        if context.plan.state.backend == Backend::Memory {
            return Err(Stop::Failed(
                ErrorKind::Config,
                format!(
                    "state has outgrown `state.memory` ({} bytes): raise it, or use `state.backend: rocksdb`",
                    context.plan.state.memory_bytes
                ),
            ));
        }
        while engine.memory_bytes() > context.table_share / 4 * 3 {
            if engine.evict_one(&mut || context.next_generation())? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl WorkerThread {
    /// What the topics accept moves on with the present; what lies beyond it follows `on_error`.
    fn refresh_limits(&mut self) {
        let now_ms = wall_clock_ms();
        for (topic, limits) in self.limits.iter().enumerate() {
            self.engine.set_limits(topic, limits.at(now_ms));
        }
    }

    fn emit(&self, output: Output) {
        if !output.is_empty() {
            send_output(&self.sink, &self.load, self.index, output);
        }
    }
}

/// What a worker's time goes to that does what a message asks.
fn what_for(message: &ToWorker) -> Spent {
    match message {
        ToWorker::Fire(_) | ToWorker::Changed { .. } | ToWorker::Partials { .. } | ToWorker::Find(_) => {
            Spent::Windows
        }
        ToWorker::Barrier
        | ToWorker::Freeze { .. }
        | ToWorker::Rewrite { .. }
        | ToWorker::StopReading
        | ToWorker::Resume => Spent::Checkpoint,
    }
}

fn send_output(sink: &Sender<ToSink>, load: &Load, worker: usize, output: Output) {
    let bytes = output.size_bytes();
    load.held_bytes.fetch_add(bytes, Relaxed);
    load.output_bytes.fetch_add(bytes as u64, Relaxed);
    // A sink that is gone took the run with it; the loop notices.
    let _ = sink.send(ToSink::Output { worker, output });
}

/// Whether a partition is so far ahead of others of its source that it waits for them.
fn is_ahead(context: &Context, drift: &Drift, partition: &Assigned) -> bool {
    let max = context.plan.sources[partition.source].max_drift;
    let watermark = partition.clock.watermark().map(|watermark| watermark.0);
    max.is_some_and(|max| drift.is_ahead(partition.index, watermark, max.as_millis() as i64))
}

fn went_back(error: onceflow_protocol::WentBack) -> Stop {
    Stop::Failed(ErrorKind::Bug, format!("a partition went back from offset {} to {}", error.from, error.to))
}

fn protocol_counts(counts: &onceflow_engine::worker::Counts) -> onceflow_protocol::Counts {
    onceflow_protocol::Counts {
        read: counts.records_in,
        used: counts.used,
        filtered: counts.filtered,
        late: counts.late,
        dead: counts.dead,
        dropped: counts.dropped,
        out: counts.out,
    }
}
