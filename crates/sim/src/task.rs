//! What a worker computes with: the plain fold, or the engine.

use std::sync::Arc;

use onceflow_engine::state::window_state::{self, ChangedGroups, Partials};
use onceflow_engine::worker::WorkerError;
use onceflow_engine::worker::barrier::FrozenStep;
use onceflow_protocol::coordinator::OpenWindows;
use onceflow_protocol::{Counts, Frontiers};

use crate::engine::EngineTask;
use crate::fold::{Fold, FoldState};
use crate::row::{Input, Row};

/// One worker's state and rules.
pub enum Task {
    /// A map.
    Fold(Box<Fold>, Counts),
    /// The engine.
    Engine(Box<EngineTask>),
}

/// What one worker hands to another when a window closes.
#[derive(Clone, Debug)]
pub enum Part {
    /// Key, count, sum.
    Fold(Vec<(u8, i64, i64)>),
    /// The engine's.
    Engine(Partials),
}

/// What a worker has changed of a window that has fired.
#[derive(Clone, Debug)]
pub enum Changed {
    /// Keys.
    Fold(Vec<u8>),
    /// The engine's.
    Engine(Arc<window_state::Changed>),
}

/// What changed in an epoch.
#[derive(Clone, Debug)]
pub enum Frozen {
    /// Everything.
    Fold(FoldState),
    /// The engine's changes.
    Engine(Vec<FrozenStep>),
}

impl Task {
    /// Takes records in; returns the largest event time.
    pub fn process(
        &mut self,
        partition: usize,
        inputs: &[(i64, Input)],
        rows: &mut Vec<Row>,
    ) -> Result<Option<i64>, WorkerError> {
        match self {
            Task::Engine(task) => task.process(partition, inputs, rows),
            Task::Fold(fold, counts) => {
                for (offset, input) in inputs {
                    counts.read += 1;
                    if fold.add(input) {
                        counts.late += 1;
                        rows.push(Row::Late { partition, offset: *offset });
                    } else {
                        counts.used += 1;
                    }
                }
                Ok(inputs.iter().map(|(_, input)| input.ts).max())
            }
        }
    }

    /// The first window end of a step after `fired`.
    pub fn next_end(&self, step: usize, fired: i64) -> Result<Option<i64>, WorkerError> {
        match self {
            Task::Fold(fold, _) => Ok(fold.next_end(step, fired)),
            Task::Engine(task) => task.worker.next_end_after(step, fired),
        }
    }

    /// What it has of a step's windows.
    pub fn windows(&self, step: usize, fired: i64) -> Result<OpenWindows, WorkerError> {
        let changed = match self {
            Task::Fold(fold, _) if step == 0 => fold.changed_ends(),
            Task::Fold(..) => vec![],
            Task::Engine(task) => task.worker.changed_ends(step)?,
        };
        Ok(OpenWindows { next_end: self.next_end(step, fired)?, changed })
    }

    /// What it has changed of a window that has fired.
    pub fn changed(&self, step: usize, end: i64) -> Result<Changed, WorkerError> {
        Ok(match self {
            Task::Fold(fold, _) => Changed::Fold(fold.changed_keys(end)),
            Task::Engine(task) => Changed::Engine(task.worker.changed(step, end)?),
        })
    }

    /// What it has of a window, or of what any worker has changed of it, by owner.
    pub fn close(
        &mut self,
        step: usize,
        end: i64,
        only: Option<&[Changed]>,
    ) -> Result<Vec<Part>, WorkerError> {
        Ok(match self {
            Task::Fold(fold, _) => {
                let only = only.map(|changed| changed.iter().flat_map(fold_keys).collect());
                fold.close(step, end, only.as_ref()).into_iter().map(Part::Fold).collect()
            }
            Task::Engine(task) => {
                let only = only.map(engine_groups);
                task.worker.close(step, end, only.as_ref())?.into_iter().map(Part::Engine).collect()
            }
        })
    }

    /// Emits its share of a window.
    pub fn merge(
        &mut self,
        step: usize,
        end: i64,
        parts: Vec<Part>,
        only: Option<&[Changed]>,
        rows: &mut Vec<Row>,
    ) -> Result<(), WorkerError> {
        match self {
            Task::Fold(fold, counts) => {
                let before = rows.len();
                let own = |part| if let Part::Fold(part) = part { part } else { vec![] };
                let parts: Vec<_> = parts.into_iter().map(own).collect();
                fold.merge(step, end, &parts, rows);
                counts.out += (rows.len() - before) as u64;
                Ok(())
            }
            Task::Engine(task) => {
                let own = |part| if let Part::Engine(part) = part { part } else { Partials::default() };
                let parts: Vec<_> = parts.into_iter().map(own).collect();
                let mut outputs = vec![];
                task.worker.merge(step, end, &parts, only.map(engine_groups).as_ref(), &mut |output| {
                    outputs.push(output);
                    Ok(())
                })?;
                outputs.iter().for_each(|output| task.rows(output, rows));
                Ok(())
            }
        }
    }

    /// Moves a step's frontiers.
    pub fn advance(&mut self, step: usize, frontiers: Frontiers) -> Result<(), WorkerError> {
        match self {
            Task::Fold(fold, _) => {
                fold.advance(step, frontiers);
                Ok(())
            }
            Task::Engine(task) => task.worker.advance(step, frontiers),
        }
    }

    /// Copies out what a snapshot needs.
    pub fn freeze(&mut self) -> Result<Frozen, WorkerError> {
        Ok(match self {
            Task::Fold(fold, _) => {
                fold.forget_changes();
                Frozen::Fold(fold.state.clone())
            }
            Task::Engine(task) => Frozen::Engine(task.worker.freeze()?),
        })
    }

    /// Whether some state is in the cold store.
    pub fn has_cold(&self) -> bool {
        matches!(self, Task::Engine(task) if task.worker.has_cold())
    }

    /// Counts since the run began.
    pub fn counts(&self) -> Counts {
        match self {
            Task::Fold(_, counts) => *counts,
            Task::Engine(task) => {
                let total = &task.worker.counts().total;
                Counts {
                    read: total.records_in,
                    used: total.used,
                    filtered: total.filtered,
                    late: total.late,
                    dead: total.dead,
                    dropped: total.dropped,
                    out: total.out,
                }
            }
        }
    }
}

fn fold_keys(changed: &Changed) -> impl Iterator<Item = u8> {
    let keys = if let Changed::Fold(keys) = changed { keys.as_slice() } else { &[] };
    keys.iter().copied()
}

fn engine_groups(changed: &[Changed]) -> ChangedGroups {
    ChangedGroups::new(changed.iter().filter_map(|changed| match changed {
        Changed::Engine(told) => Some(told.as_ref()),
        Changed::Fold(_) => None,
    }))
}
