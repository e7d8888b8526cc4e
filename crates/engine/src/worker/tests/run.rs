//! Drives workers as a coordinator would: one partition per worker, windows at barriers.

use std::sync::Arc;

use onceflow_protocol::Frontiers;

use crate::message::OwnedMessage;
use crate::output::{DEAD_LETTER_SINK, Output};
use crate::plan::{Plan, Stream};
use crate::state::cold::{ColdStore, MemoryColdStore};
use crate::state::window_state::{Change, Origin};
use crate::worker::{Counts, StepStart, Worker, WorkerError};

/// An output record, owned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Written {
    pub(super) dead: bool,
    pub(super) topic: usize,
    pub(super) timestamp: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

impl Written {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

pub(super) struct Run {
    plan: Arc<Plan>,
    pub(super) workers: Vec<Worker>,
    cold: Arc<dyn ColdStore>,
    generation: u64,
    pub(super) written: Vec<Written>,
}

impl Run {
    pub(super) fn new(plan: Plan, workers: usize) -> Run {
        let (plan, cold) = (Arc::new(plan), Arc::new(MemoryColdStore::new()));
        let starts: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|step| step.window.as_ref())
            .enumerate()
            .map(|(i, window)| StepStart::fresh(i as u32 + 7, window))
            .collect();
        let mut run = Run { plan, workers: vec![], cold, generation: 0, written: vec![] };
        run.make_workers(workers, &starts);
        run
    }

    fn make_workers(&mut self, workers: usize, starts: &[StepStart]) {
        self.workers = (0..workers)
            .map(|i| Worker::new(self.plan.clone(), i, workers, starts, self.cold.clone()).unwrap())
            .collect();
    }

    /// Records of partition `worker`, in one batch.
    pub(super) fn process(&mut self, worker: usize, messages: Vec<OwnedMessage>) -> Result<(), WorkerError> {
        self.process_source(0, worker, messages)
    }

    pub(super) fn process_source(
        &mut self,
        source: usize,
        worker: usize,
        messages: Vec<OwnedMessage>,
    ) -> Result<(), WorkerError> {
        let mut out = Output::default();
        self.workers[worker].process(source, "in", worker as i32, &messages, &mut out)?;
        self.keep(&out);
        Ok(())
    }

    fn keep(&mut self, out: &Output) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.written.extend(out.records().map(|record| {
            Written {
                dead: record.sink() == DEAD_LETTER_SINK,
                topic: record.topic(),
                timestamp: record.timestamp(),
                key: record.key().map(text),
                value: record.value().map(text),
                headers: record
                    .headers()
                    .map(|(name, value)| (name.to_owned(), value.map(text).unwrap_or_default()))
                    .collect(),
            }
        }));
    }

    /// A barrier at this watermark of all sources.
    pub(super) fn barrier(&mut self, watermark: i64) -> Result<(), WorkerError> {
        for window in 0..self.workers[0].windows() {
            let step = &self.plan.steps[self.workers[0].step_of(window).unwrap()];
            let lateness = step.window.as_ref().unwrap().lateness_ms;
            let input = self.watermark(&step.inputs, watermark);
            let before = self.workers[0].frontiers(window)?;
            let frontier = before.purged.max(input.saturating_sub(lateness));
            let mut fired = before.fired;
            loop {
                let next = |worker: &Worker| worker.next_end_after(window, fired).unwrap();
                let Some(end) = self.workers.iter().filter_map(next).min().filter(|end| *end <= frontier)
                else {
                    break;
                };
                let closed: Vec<_> = self
                    .workers
                    .iter_mut()
                    .map(|worker| worker.close(window, end, None))
                    .collect::<Result<_, _>>()?;
                for owner in 0..self.workers.len() {
                    let partials: Vec<_> = closed.iter().map(|partials| partials[owner].clone()).collect();
                    let mut outputs = vec![];
                    self.workers[owner].merge(window, end, &partials, None, &mut |out| {
                        outputs.push(out);
                        Ok(())
                    })?;
                    outputs.iter().for_each(|out| self.keep(out));
                }
                fired = end;
            }
            for worker in &mut self.workers {
                worker.advance(window, Frontiers { fired: frontier, purged: frontier })?;
            }
        }
        Ok(())
    }

    /// The watermark of a step's rows: the source's, or the purged frontier of the windowed steps they come from.
    fn watermark(&self, inputs: &[Stream], source: i64) -> i64 {
        let of = |input: &Stream| match *input {
            Stream::Source(_) => source,
            Stream::Late(_) | Stream::Errors(_) => panic!("a step that reads a side stream"),
            Stream::Step(step) => {
                let window =
                    (0..self.workers[0].windows()).find(|w| self.workers[0].step_of(*w) == Some(step));
                match window {
                    Some(window) => self.workers[0].frontiers(window).unwrap().purged,
                    None => self.watermark(&self.plan.steps[step].inputs, source),
                }
            }
        };
        inputs.iter().map(of).min().unwrap()
    }

    pub(super) fn evict(&mut self) {
        for worker in &mut self.workers {
            let generation = &mut self.generation;
            worker
                .evict_one(&mut || {
                    *generation += 1;
                    *generation
                })
                .unwrap();
        }
    }

    /// Freezes everything and brings it back into `workers` new workers; always as others' state, so that the next freeze is
    /// whole and nobody needs to remember extents.
    pub(super) fn restart(&mut self, workers: usize) {
        let frozen: Vec<_> = self.workers.iter_mut().map(|worker| worker.freeze().unwrap()).collect();
        let windows = self.plan.steps.iter().filter_map(|step| step.window.as_ref());
        let starts: Vec<_> = windows
            .enumerate()
            .map(|(i, window)| StepStart {
                frontiers: self.workers[0].frontiers(i).unwrap(),
                ..StepStart::fresh(frozen[0][i].state_id, window)
            })
            .collect();
        self.make_workers(workers, &starts);
        for (index, steps) in frozen.into_iter().enumerate() {
            for (window, step) in steps.into_iter().enumerate() {
                for pane in step.panes {
                    let extent = match pane.change {
                        Change::Delta(rows) | Change::Whole(rows) => Some(Ok(rows)),
                        Change::Unchanged => None,
                    };
                    let worker = &mut self.workers[index % workers];
                    worker
                        .restore(window, pane.pane, &mut extent.into_iter(), &pane.runs, Origin::Other)
                        .unwrap();
                }
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for worker in &self.workers {
            counts += worker.counts().total;
        }
        counts
    }

    pub(super) fn values(&self) -> Vec<&str> {
        self.written
            .iter()
            .filter(|record| !record.dead)
            .map(|record| record.value.as_deref().unwrap())
            .collect()
    }

    pub(super) fn dead(&self) -> Vec<&Written> {
        self.written.iter().filter(|record| record.dead).collect()
    }
}
