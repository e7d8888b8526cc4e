//! Which stage a worker's time goes to. The clock is the shell's: without one, no time passes.

use super::graph::Stage;

/// Time belongs to one stage at a time.
#[derive(Debug)]
pub(super) struct Stopwatch {
    now_ns: fn() -> u64,
    stage: Option<Stage>,
    since_ns: u64,
}

impl Default for Stopwatch {
    fn default() -> Stopwatch {
        Stopwatch::new(|| 0)
    }
}

impl Stopwatch {
    pub(super) fn new(now_ns: fn() -> u64) -> Stopwatch {
        Stopwatch { now_ns, stage: None, since_ns: 0 }
    }

    /// From now on time belongs to `stage`. Returns the stage that it belonged to, and how long, nanoseconds.
    pub(super) fn switch(&mut self, stage: Option<Stage>) -> (Option<Stage>, u64) {
        let now = (self.now_ns)();
        let spent = now.saturating_sub(self.since_ns);
        self.since_ns = now;
        (std::mem::replace(&mut self.stage, stage), spent)
    }
}
