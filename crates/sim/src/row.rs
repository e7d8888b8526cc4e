//! What flows: input records and output rows, in the only form that checks need.

use onceflow_protocol::coordinator::Emit;

/// A record of a source partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it is grouped by.
    pub key: u8,
    /// What is summed.
    pub value: i64,
    /// Event time, milliseconds.
    pub ts: i64,
    /// Whether it is at most the allowed delay behind the partition's newest, so that only idleness could make it late.
    pub in_bound: bool,
}

/// A record that the pipeline wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// A window's result.
    Result {
        /// The windowed step that it comes from.
        step: usize,
        /// Group.
        key: u8,
        /// End of the window, milliseconds.
        end: i64,
        /// `count(*)` of the first step; of the second the sum of those.
        count: i64,
        /// `sum(value)`.
        sum: i64,
    },
    /// A record that came too late, in the dead letter topic.
    Late {
        /// Where it was read.
        partition: usize,
        /// Its offset there.
        offset: i64,
    },
}

/// The pipeline of a seed: one windowed step, or a second one that reads the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Length of the first step's windows, milliseconds.
    pub size: i64,
    /// Distance between their beginnings, milliseconds.
    pub every: i64,
    /// Allowed lateness of the first step, milliseconds.
    pub lateness: i64,
    /// Length of the second step's tumbling windows, milliseconds; none without a second step.
    pub second: Option<i64>,
    /// The first step emits results again when they have changed.
    pub updates: bool,
}

/// Allowed disorder, milliseconds.
pub const DELAY: i64 = 20;

/// Names of the steps.
pub const STEPS: [&str; 2] = ["first", "second"];

/// The shapes that seeds draw from; few, since the engine compiles a plan for each.
pub const SHAPES: [Shape; 6] = [
    Shape { size: 100, every: 100, lateness: 0, second: None, updates: false },
    Shape { size: 100, every: 100, lateness: 50, second: None, updates: false },
    Shape { size: 150, every: 50, lateness: 0, second: None, updates: false },
    Shape { size: 100, every: 100, lateness: 30, second: Some(300), updates: false },
    Shape { size: 100, every: 100, lateness: 150, second: None, updates: true },
    Shape { size: 150, every: 50, lateness: 80, second: None, updates: true },
];

impl Shape {
    /// Ends of the first step's windows that hold `ts`, ascending.
    pub fn ends(&self, ts: i64) -> impl Iterator<Item = i64> + use<> {
        let (size, every) = (self.size, self.every);
        let first = ts.div_euclid(every) * every + every;
        (0..size / every).map(move |i| first + i * every)
    }

    /// End of the second step's window that holds a result of the window that ends at `end`.
    pub fn second_end(&self, end: i64) -> Option<i64> {
        self.second.map(|size| (end - 1).div_euclid(size) * size + size)
    }

    /// When the first step's results are emitted.
    pub fn emit(&self) -> Emit {
        if self.updates { Emit::Updates } else { Emit::Final }
    }

    /// Windowed steps.
    pub fn steps(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }
}
