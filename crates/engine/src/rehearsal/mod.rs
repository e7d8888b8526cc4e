//! A pipeline on records at hand: the workers that ship, the protocol's rules of time, checkpoints and crashes; without Kafka, threads or
//! a clock. For a pipeline's own tests, and for ours.
//!
//! What is written counts from the next checkpoint on. A crash takes back what was written since the last one, with state and
//! positions, and what was given since is read again.

mod pipeline_test;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use onceflow_protocol::coordinator::{
    Firing, OpenWindows, PartitionReport, Pass, Reach, WindowedStep, source_reach,
};
use onceflow_protocol::{Disorder, Frontiers, NextOffset, PartitionClock, Watermark, WentBack};

use crate::message::OwnedMessage;
use crate::output::{DEAD_LETTER_SINK, Output, OutputRecord};
use crate::plan::Plan;
use crate::state::cold::{MemoryColdStore, MemoryRuns, Run};
use crate::state::rows::EncodedRows;
use crate::state::window_state::{Change, ChangedGroups, FrozenPane, Origin};
use crate::worker::{Counts, StepStart, Worker, WorkerError};

pub use pipeline_test::{Failure, rehearse};

/// A record that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Number of the sink; `None` for a dead letter.
    pub sink: Option<usize>,
    /// Index into [`Plan::output_topics`].
    pub topic: usize,
    /// The partition, where the sink says one.
    pub partition: Option<i32>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key bytes, `None` for null.
    pub key: Option<Vec<u8>>,
    /// Value bytes, `None` for null.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Written {
    fn of(record: &OutputRecord<'_>) -> Written {
        let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let sink = record.sink();
        Written {
            sink: (sink != DEAD_LETTER_SINK).then_some(usize::from(sink)),
            topic: record.topic(),
            partition: record.partition(),
            timestamp: record.timestamp(),
            key: bytes(record.key()),
            value: bytes(record.value()),
            headers: record.headers().map(|(name, value)| (name.to_owned(), bytes(value))).collect(),
        }
    }

    /// The value of the last header of that name, as text; empty where it is null or not there.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().rfind(|(header, _)| header == name);
        let value = found.and_then(|(_, value)| value.as_deref()).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }
}

/// A pipeline, its state, and what it has written.
pub struct Rehearsal {
    plan: Arc<Plan>,
    steps: Vec<WindowedStep>,
    workers: Vec<Worker>,
    cold: Arc<MemoryColdStore>,
    partitions: Vec<Partition>,
    frontiers: Vec<Frontiers>,
    written: Vec<Written>,
    /// What the workers before the present ones had counted.
    counted: Counts,
    generation: u64,
    now_ms: u64,
    committed: Committed,
    /// What was given since the last checkpoint, by partition.
    since: Vec<(usize, Vec<OwnedMessage>)>,
}

struct Partition {
    source: usize,
    topic: String,
    number: i32,
    clock: PartitionClock,
}

/// What a crash goes back to.
#[derive(Default)]
struct Committed {
    /// By partition; what came later had not been read of.
    positions: Vec<(NextOffset, Option<Watermark>, Option<Disorder>)>,
    frontiers: Vec<Frontiers>,
    /// By worker and windowed step.
    panes: Vec<Vec<BTreeMap<i64, SavedPane>>>,
    cold: MemoryRuns,
    written: usize,
    counts: Counts,
}

#[derive(Clone, Default)]
struct SavedPane {
    /// Newest first.
    extents: Vec<EncodedRows>,
    runs: Vec<Run>,
}

impl Rehearsal {
    /// A pipeline that has not read anything.
    ///
    /// # Errors
    /// `Bug` if the plan is inconsistent.
    pub fn new(plan: Arc<Plan>, workers: usize) -> Result<Rehearsal, WorkerError> {
        let steps = plan.windowed_steps();
        let frontiers = vec![Frontiers::START; steps.len()];
        let mut rehearsal = Rehearsal {
            plan,
            workers: vec![],
            cold: Arc::default(),
            partitions: vec![],
            written: vec![],
            counted: Counts::default(),
            generation: 0,
            now_ms: 0,
            committed: Committed { frontiers: frontiers.clone(), ..Committed::default() },
            since: vec![],
            steps,
            frontiers,
        };
        rehearsal.workers = rehearsal.new_workers(workers)?;
        Ok(rehearsal)
    }

    fn new_workers(&self, workers: usize) -> Result<Vec<Worker>, WorkerError> {
        let windows = self.plan.steps.iter().filter_map(|step| step.window.as_ref());
        let start = |(id, (window, frontiers)): (u32, (_, &Frontiers))| StepStart {
            frontiers: *frontiers,
            ..StepStart::fresh(id, window)
        };
        let starts: Vec<StepStart> = (0..).zip(windows.zip(&self.frontiers)).map(start).collect();
        let new = |index| Worker::new(self.plan.clone(), index, workers, &starts, self.cold.clone());
        (0..workers).map(new).collect()
    }

    /// What has been written so far, committed or not, in order.
    pub fn written(&self) -> &[Written] {
        &self.written
    }

    /// What has become of the records, since the beginning.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counted;
        self.workers.iter().for_each(|worker| counts += worker.counts().total);
        counts
    }

    /// The place of a partition of a source, from which nothing need have been read yet: until then no window closes.
    pub fn partition(&mut self, source: usize, topic: &str, number: i32) -> usize {
        let same = |known: &Partition| (known.source, &*known.topic, known.number) == (source, topic, number);
        self.partitions.iter().position(same).unwrap_or_else(|| {
            let clock = self.clock(source, NextOffset(0), None);
            self.partitions.push(Partition { source, topic: topic.to_owned(), number, clock });
            self.partitions.len() - 1
        })
    }

    /// A partition's place in time as a start finds it.
    fn clock(&self, source: usize, next_offset: NextOffset, watermark: Option<Watermark>) -> PartitionClock {
        let source = &self.plan.sources[source];
        let idle_after = source.idle_after.map(|after| after.as_millis() as u64);
        PartitionClock::new(next_offset, watermark, source.delay, idle_after)
    }

    /// The partition has these records next; their offsets follow those before.
    ///
    /// # Errors
    /// Those of [`Worker::process`].
    pub fn give(&mut self, partition: usize, messages: Vec<OwnedMessage>) -> Result<(), WorkerError> {
        let Partition { source, topic, number, clock } = &mut self.partitions[partition];
        let first = clock.next_offset().0;
        let mut messages = messages;
        for (offset, message) in (first..).zip(&mut messages) {
            message.offset = offset;
        }
        let worker = number.unsigned_abs() as usize % self.workers.len();
        let mut output = Output::default();
        let processed = self.workers[worker].process(*source, topic, *number, &messages, &mut output)?;
        let next = NextOffset(first + messages.len() as i64);
        processed.event_times.iter().for_each(|times| clock.observe(times.values()));
        clock.advance(next, processed.max_event_time).map_err(went_back)?;
        clock.reached_end(next, self.now_ms).map_err(went_back)?;
        self.keep(&output);
        self.since.push((partition, messages));
        Ok(())
    }

    /// So much time passes, in which nothing comes.
    pub fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// A checkpoint: windows fire as far as the watermarks have got.
    ///
    /// # Errors
    /// Those of the worker's calls at a barrier.
    pub fn checkpoint(&mut self) -> Result<(), WorkerError> {
        let reaches: Vec<Reach> = (0..self.plan.sources.len()).map(|source| self.reach(source)).collect();
        self.barrier(&reaches)
    }

    /// A checkpoint at which the time of all sources has got to this instant, milliseconds, whatever was read.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_at(&mut self, watermark: i64) -> Result<(), WorkerError> {
        self.barrier(&vec![Reach::At(watermark); self.plan.sources.len()])
    }

    /// The checkpoint at the end of a bounded run: all windows fire.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn end(&mut self) -> Result<(), WorkerError> {
        self.barrier(&vec![Reach::End; self.plan.sources.len()])
    }

    /// Moves the largest table of each worker to the cold store.
    ///
    /// # Errors
    /// As [`Worker::evict_one`].
    pub fn evict(&mut self) -> Result<(), WorkerError> {
        let generation = &mut self.generation;
        for worker in &mut self.workers {
            worker.evict_one(&mut || {
                *generation += 1;
                *generation
            })?;
        }
        Ok(())
    }

    /// Everything in memory is lost; so many new workers go on from the last checkpoint.
    ///
    /// # Errors
    /// Those of a restore, and of reading again.
    pub fn crash(&mut self, workers: usize) -> Result<(), WorkerError> {
        let committed = std::mem::take(&mut self.committed);
        self.frontiers.clone_from(&committed.frontiers);
        self.written.truncate(committed.written);
        self.counted = committed.counts;
        self.cold = Arc::new(MemoryColdStore::restored(committed.cold.clone()));
        let origin = if workers == self.workers.len() { Origin::Own } else { Origin::Other };
        self.workers = self.new_workers(workers)?;
        for (index, steps) in committed.panes.iter().enumerate() {
            let worker = &mut self.workers[index % workers];
            for (step, panes) in steps.iter().enumerate() {
                for (start, SavedPane { extents, runs }) in panes {
                    worker.restore(step, *start, &mut extents.iter().cloned().map(Ok), runs, origin)?;
                }
            }
        }
        for at in 0..self.partitions.len() {
            let position = committed.positions.get(at).cloned();
            let (next, watermark, disorder) = position.unwrap_or((NextOffset(0), None, None));
            let clock = self.clock(self.partitions[at].source, next, watermark);
            self.partitions[at].clock = clock.with_disorder(disorder);
        }
        self.committed = committed;
        for (partition, messages) in std::mem::take(&mut self.since) {
            self.give(partition, messages)?;
        }
        Ok(())
    }

    fn reach(&self, source: usize) -> Reach {
        let partitions =
            self.partitions.iter().enumerate().filter(|(_, partition)| partition.source == source);
        let report = |(number, partition): (usize, &Partition)| PartitionReport {
            partition: number,
            next_offset: partition.clock.next_offset(),
            watermark: partition.clock.watermark(),
            disorder: None,
            idle: partition.clock.is_idle(self.now_ms),
            finished: false,
        };
        let reports: Vec<PartitionReport> = partitions.map(report).collect();
        source_reach(reports.iter())
    }

    fn barrier(&mut self, reaches: &[Reach]) -> Result<(), WorkerError> {
        let mut pass = Pass::new(reaches.contains(&Reach::End));
        let mut fired: Vec<i64> = self.frontiers.iter().map(|frontiers| frontiers.fired).collect();
        loop {
            let windows = fired.iter().enumerate().map(|(step, fired)| self.windows(step, *fired));
            let windows: Vec<OpenWindows> = windows.collect::<Result<_, _>>()?;
            let source = |source: usize| reaches[source];
            let next = pass.next(&self.steps, &mut self.frontiers, source, |step| windows[step].clone());
            let Some(firing) = next else { break };
            pass.fire(firing);
            self.fire(firing)?;
            if !firing.again {
                fired[firing.step] = firing.end;
            }
        }
        for worker in &mut self.workers {
            for (step, frontiers) in self.frontiers.iter().enumerate() {
                worker.advance(step, *frontiers)?;
            }
        }
        self.commit()
    }

    /// What all workers have of a step's windows.
    fn windows(&self, step: usize, fired: i64) -> Result<OpenWindows, WorkerError> {
        let (mut next_end, mut changed) = (None, BTreeSet::new());
        for worker in &self.workers {
            let own = worker.next_end_after(step, fired)?;
            next_end = [next_end, own].into_iter().flatten().min();
            changed.extend(worker.changed_ends(step)?);
        }
        Ok(OpenWindows { next_end, changed: changed.into_iter().collect() })
    }

    fn fire(&mut self, Firing { step, end, again }: Firing) -> Result<(), WorkerError> {
        let mut changed = None;
        if again {
            let told = self.workers.iter().map(|worker| worker.changed(step, end));
            let told: Vec<_> = told.collect::<Result<_, _>>()?;
            changed = Some(ChangedGroups::new(told.iter().map(Arc::as_ref)));
        }
        let changed = changed.as_ref();
        let closed = self.workers.iter_mut().map(|worker| worker.close(step, end, changed));
        let closed: Vec<_> = closed.collect::<Result<_, _>>()?;
        for owner in 0..self.workers.len() {
            let partials: Vec<_> = closed.iter().map(|partials| partials[owner].clone()).collect();
            let mut outputs = vec![];
            self.workers[owner].merge(step, end, &partials, changed, &mut |output| {
                outputs.push(output);
                Ok(())
            })?;
            outputs.iter().for_each(|output| self.keep(output));
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), WorkerError> {
        let mut before = std::mem::take(&mut self.committed.panes);
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let mut steps = vec![];
            for (number, step) in worker.freeze()?.into_iter().enumerate() {
                let of_worker = before.get_mut(index).and_then(|steps| steps.get_mut(number));
                let mut older = of_worker.map(std::mem::take).unwrap_or_default();
                let pane = |frozen: FrozenPane| {
                    let mut extents = older.remove(&frozen.pane).unwrap_or_default().extents;
                    match frozen.change {
                        Change::Unchanged => {}
                        Change::Delta(rows) => extents.insert(0, rows),
                        Change::Whole(rows) => extents = vec![rows],
                    }
                    (frozen.pane, SavedPane { extents, runs: frozen.runs })
                };
                steps.push(step.panes.into_iter().map(pane).collect());
            }
            self.committed.panes.push(steps);
        }
        let position = |Partition { clock, .. }: &Partition| {
            (clock.next_offset(), clock.watermark(), clock.disorder().cloned())
        };
        self.committed.positions = self.partitions.iter().map(position).collect();
        self.committed.frontiers.clone_from(&self.frontiers);
        self.committed.cold = self.cold.snapshot();
        self.committed.written = self.written.len();
        self.committed.counts = self.counts();
        self.since.clear();
        Ok(())
    }

    fn keep(&mut self, output: &Output) {
        self.written.extend(output.records().map(|record| Written::of(&record)));
    }
}

fn went_back(error: WentBack) -> WorkerError {
    WorkerError::bug(format!("a partition went back from offset {} to {}", error.from, error.to))
}
