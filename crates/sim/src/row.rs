//! What flows: input records and output rows, in the only form that checks need.

use onceflow_protocol::WindowSpec;
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
    /// A record that has gone on as it came.
    Kept {
        /// Where it was read.
        partition: usize,
        /// Its offset there.
        offset: i64,
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
    /// Length of the first step's windows, milliseconds; of sessions the gap.
    pub size: i64,
    /// Distance between their beginnings, milliseconds; of sessions the length of a pane.
    pub every: i64,
    /// Allowed lateness of the first step, milliseconds.
    pub lateness: i64,
    /// Length of the second step's tumbling windows, or the `ttl` of its totals, milliseconds; none without a second step.
    pub second: Option<i64>,
    /// The second step has no windows, but totals.
    pub second_runs: bool,
    /// The first step emits results again when they have changed.
    pub updates: bool,
    /// The first step's windows are sessions; with `updates` it has none, and totals that are forgotten after `size`.
    pub sessions: bool,
    /// The first step's results come early, too, with `updates`.
    pub early: bool,
    /// The first step has no windows, but lets one record of a key go on of those within `size`.
    pub deduplicates: bool,
}

/// End of the window of a result without one.
pub const NO_WINDOW: i64 = i64::MIN;

/// Allowed disorder, milliseconds.
pub const DELAY: i64 = 20;

/// Names of the steps.
pub const STEPS: [&str; 2] = ["first", "second"];

/// The shapes that seeds draw from; few, since the engine compiles a plan for each. The plain fold can do the first [`FOLDED`].
pub const SHAPES: [Shape; 17] = [
    PLAIN,
    Shape { lateness: 50, ..PLAIN },
    Shape { size: 150, every: 50, ..PLAIN },
    Shape { lateness: 30, second: Some(300), ..PLAIN },
    Shape { lateness: 150, updates: true, ..PLAIN },
    Shape { size: 150, every: 50, lateness: 80, updates: true, ..PLAIN },
    SESSIONS,
    Shape { size: 80, every: 10, lateness: 30, ..SESSIONS },
    Shape { second: Some(100), ..SESSIONS },
    Shape { size: 40, every: 5, updates: true, ..SESSIONS },
    Shape { second: Some(320), second_runs: true, ..PLAIN },
    Shape { lateness: 150, updates: true, early: true, ..PLAIN },
    Shape { size: 150, every: 50, lateness: 80, updates: true, early: true, ..PLAIN },
    Shape { deduplicates: true, lateness: 30, ..SESSIONS },
    Shape { deduplicates: true, size: 40, every: 5, second: Some(100), ..SESSIONS },
    Shape { size: 320, every: 20, ..PLAIN },
    Shape { size: 80, every: 10, lateness: 20, updates: true, ..PLAIN },
];

/// How many of [`SHAPES`] have windows that are known before any record.
pub const FOLDED: usize = 6;

const PLAIN: Shape = Shape {
    size: 100,
    every: 100,
    lateness: 0,
    second: None,
    second_runs: false,
    updates: false,
    sessions: false,
    early: false,
    deduplicates: false,
};
const SESSIONS: Shape = Shape { size: 16, every: 2, sessions: true, ..PLAIN };

impl Shape {
    /// Ends of the first step's windows that hold `ts`, ascending; of sessions when the pane that holds it is settled; without windows when
    /// the pane is over.
    pub fn ends(&self, ts: i64) -> impl Iterator<Item = i64> + use<> {
        let (size, every) = (self.size, self.every);
        let pane_end = ts.div_euclid(every) * every + every;
        let (first, count) = match (self.deduplicates, self.sessions) {
            (true, _) => (pane_end, 1),
            (_, true) => (pane_end + size, 1),
            _ => (pane_end, size / every),
        };
        (0..count).map(move |i| first + i * every)
    }

    /// End of the second step's window that holds a result of the window that ends at `end`.
    pub fn second_end(&self, end: i64) -> Option<i64> {
        let last_instant = if self.sessions && !self.deduplicates { end } else { end - 1 };
        self.second.map(|size| last_instant.div_euclid(size) * size + size)
    }

    /// Of sessions, totals and deduplications, the gap of a step, milliseconds.
    pub fn gap(&self, step: usize) -> Option<i64> {
        match step {
            0 => self.sessions.then_some(self.size),
            _ => self.second.filter(|_| self.second_runs),
        }
    }

    /// What a step's frontiers are multiples of, milliseconds.
    pub fn granularity_ms(&self, step: usize) -> i64 {
        self.gap(step).and_then(WindowSpec::session).map_or(1, WindowSpec::every_ms)
    }

    /// When the pane is settled that holds an event of a step with a gap.
    pub fn settled(&self, step: usize, gap: i64, ts: i64) -> i64 {
        let pane = self.granularity_ms(step);
        ts.div_euclid(pane) * pane + pane + gap
    }

    /// When a step's results are emitted.
    pub fn emit_of(&self, step: usize) -> Emit {
        match step {
            0 => self.emit(),
            _ if self.second_runs => Emit::Running,
            _ => Emit::Final,
        }
    }

    /// When the first step's results are emitted.
    pub fn emit(&self) -> Emit {
        match (self.updates, self.sessions) {
            _ if self.deduplicates => Emit::Running,
            (false, _) => Emit::Final,
            (true, false) => Emit::Updates,
            (true, true) => Emit::Running,
        }
    }

    /// Windowed steps.
    pub fn steps(&self) -> usize {
        1 + usize::from(self.second.is_some())
    }
}
