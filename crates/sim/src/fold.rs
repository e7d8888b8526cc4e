//! The plainest worker that a protocol can have: a map from group and window to count and sum.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Groups of windows that have fired that have changed since the last freeze, where those are emitted again.
    changed: BTreeSet<(i64, u8)>,
    frontiers: Vec<Frontiers>,
}

impl Fold {
    /// Worker `index` of `workers`, with nothing in it.
    pub fn new(shape: Shape, index: usize, workers: usize, frontiers: &[Frontiers]) -> Fold {
        let (state, changed) = (FoldState::new(), BTreeSet::new());
        Fold { shape, workers, index, state, changed, frontiers: frontiers.to_vec() }
    }

    /// Adds a record; whether it was late.
    pub fn add(&mut self, input: &Input) -> bool {
        let mut late = true;
        let Frontiers { fired, purged } = self.frontiers[0];
        for end in self.shape.ends(input.ts).filter(|end| *end > purged) {
            late = false;
            add(&mut self.state, (0, end, input.key), (1, input.value));
            if self.shape.updates && end <= fired {
                self.changed.insert((end, input.key));
            }
        }
        late
    }

    /// Ends of windows that have fired and have changed since the last freeze.
    pub fn changed_ends(&self) -> Vec<i64> {
        let mut ends: Vec<i64> = self.changed.iter().map(|(end, _)| *end).collect();
        ends.dedup();
        ends
    }

    /// What has changed of one of them.
    pub fn changed_keys(&self, end: i64) -> Vec<u8> {
        self.changed.range((end, 0)..=(end, u8::MAX)).map(|(_, key)| *key).collect()
    }

    /// A freeze: nothing has changed.
    pub fn forget_changes(&mut self) {
        self.changed.clear();
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

    /// What it has of a window, or of some keys of it, by the worker that owns the key.
    pub fn close(&self, step: usize, end: i64, only: Option<&BTreeSet<u8>>) -> Vec<Vec<(u8, i64, i64)>> {
        let mut parts = vec![vec![]; self.workers];
        let of_window = self.state.range((step, end, 0)..=(step, end, u8::MAX));
        for ((.., key), (count, sum)) in
            of_window.filter(|((.., key), _)| only.is_none_or(|only| only.contains(key)))
        {
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
        self.frontiers[step] = frontiers;
        self.state.retain(|(of, end, _), _| *of != step || *end > frontiers.purged);
    }
}

fn add(state: &mut FoldState, group: (usize, i64, u8), (count, sum): (i64, i64)) {
    let values = state.entry(group).or_default();
    *values = (values.0 + count, values.1 + sum);
}
