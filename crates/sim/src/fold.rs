//! The plainest worker that a protocol can have: a map from group and window to count and sum.

use std::collections::BTreeMap;

use onceflow_protocol::Frontiers;

use crate::row::{Input, Row, Shape};

/// Count and sum by step, window end and key: in this order what fires next is in front.
pub type FoldState = BTreeMap<(usize, i64, u8), (i64, i64)>;

/// A worker's state and rules.
#[derive(Clone, Debug)]
pub struct Fold {
    shape: Shape,
    workers: usize,
    index: usize,
    /// What it has of each window.
    pub state: FoldState,
    purged: Vec<i64>,
}

impl Fold {
    /// Worker `index` of `workers`, with nothing in it.
    pub fn new(shape: Shape, index: usize, workers: usize, frontiers: &[Frontiers]) -> Fold {
        let purged = frontiers.iter().map(|frontiers| frontiers.purged).collect();
        Fold { shape, workers, index, state: FoldState::new(), purged }
    }

    /// Adds a record; whether it was late.
    pub fn add(&mut self, input: &Input) -> bool {
        let mut late = true;
        for end in self.shape.ends(input.ts).filter(|end| *end > self.purged[0]) {
            late = false;
            add(&mut self.state, (0, end, input.key), (1, input.value));
        }
        late
    }

    /// Adds another worker's state.
    pub fn absorb(&mut self, other: &FoldState) {
        for (group, values) in other {
            add(&mut self.state, *group, *values);
        }
    }

    /// The first window end of `step` after `fired` that holds something here.
    pub fn next_end(&self, step: usize, fired: i64) -> Option<i64> {
        let from = (step, fired.saturating_add(1), 0);
        let next = self.state.range(from..).next();
        next.filter(|((of, ..), _)| *of == step).map(|((_, end, _), _)| *end)
    }

    /// What it has of a window, by the worker that owns the key.
    pub fn close(&self, step: usize, end: i64) -> Vec<Vec<(u8, i64, i64)>> {
        let mut parts = vec![vec![]; self.workers];
        for ((.., key), (count, sum)) in self.state.range((step, end, 0)..=(step, end, u8::MAX)) {
            parts[usize::from(*key) % self.workers].push((*key, *count, *sum));
        }
        parts
    }

    /// Puts together the window of the keys that it owns, and emits it; the second step gets its results.
    pub fn merge(&mut self, step: usize, end: i64, parts: &[Vec<(u8, i64, i64)>], out: &mut Vec<Row>) {
        let mut groups = BTreeMap::<u8, (i64, i64)>::new();
        for (key, count, sum) in parts.iter().flatten() {
            let group = groups.entry(*key).or_default();
            *group = (group.0 + count, group.1 + sum);
        }
        for (key, (count, sum)) in groups {
            debug_assert_eq!(usize::from(key) % self.workers, self.index);
            out.push(Row::Result { step, key, end, count, sum });
            if let Some(second) = self.shape.second_end(end).filter(|_| step == 0) {
                add(&mut self.state, (1, second, key), (count, sum));
            }
        }
    }

    /// Moves a step's frontiers and drops what is purged.
    pub fn advance(&mut self, step: usize, frontiers: Frontiers) {
        self.purged[step] = frontiers.purged;
        self.state.retain(|(of, end, _), _| *of != step || *end > frontiers.purged);
    }
}

fn add(state: &mut FoldState, group: (usize, i64, u8), (count, sum): (i64, i64)) {
    let values = state.entry(group).or_default();
    *values = (values.0 + count, values.1 + sum);
}
