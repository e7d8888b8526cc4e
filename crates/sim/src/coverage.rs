//! What a run of many seeds reached: a check that never saw a fault proves nothing about it.

use std::collections::BTreeMap;

use onceflow_protocol::coordinator::{Phase, TRANSITIONS};

use crate::hazard::{Hazard, SAYS};

/// A worker of the engine moved a pane to the cold store.
pub const EVICTED: &str = "evicted panes";

/// Rows of the protocol's failure tables, and how a run can end.
pub const ROWS: &[&str] = &[
    "first start",
    "restored a snapshot",
    "restored at another parallelism",
    "fenced by our own time-out, started again",
    "fenced by another, stopped",
    "looked at an undecided claim",
    "retriable failure",
    "outcome of a commit unknown, and it was committed",
    "outcome of a commit unknown, and it was not",
    "a call did not return",
    "snapshot written again after a failure",
    "epoch given up after too many failed snapshots",
    "missing snapshot refused",
    "lost control topic refused",
    "another source topic refused",
    "a run ended for an added partition",
    "savepoint made",
    "went back to a savepoint",
    "state discarded",
    "a request that had been applied was not applied again",
    "going back without leave refused",
    "unknown savepoint refused",
    "a savepoint that is taken away refused",
    "orphans dropped",
    "kept snapshots retired",
    "stopped with a final checkpoint",
    "bounded run complete",
    "drained",
    "a restart strategy gave up",
    "a pass of windows was cut short",
    "an idle partition",
    "late records",
    EVICTED,
];

/// Counters over seeds.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    phases: BTreeMap<(Phase, Phase), u64>,
    hazards: BTreeMap<Hazard, u64>,
    rows: BTreeMap<&'static str, u64>,
    /// Commits with a decision.
    pub commits: u64,
}

impl Coverage {
    /// The coordinator went from one phase to another.
    pub fn phase(&mut self, from: Phase, to: Phase) {
        *self.phases.entry((from, to)).or_default() += 1;
    }

    /// A fault happened.
    pub fn hazard(&mut self, hazard: Hazard) {
        *self.hazards.entry(hazard).or_default() += 1;
    }

    /// A row was reached.
    pub fn row(&mut self, row: &'static str) {
        debug_assert!(ROWS.contains(&row), "{row}");
        *self.rows.entry(row).or_default() += 1;
    }

    /// Adds another's counters.
    pub fn add(&mut self, other: &Coverage) {
        self.commits += other.commits;
        for (key, count) in &other.phases {
            *self.phases.entry(*key).or_default() += count;
        }
        for (key, count) in &other.hazards {
            *self.hazards.entry(*key).or_default() += count;
        }
        for (key, count) in &other.rows {
            *self.rows.entry(key).or_default() += count;
        }
    }

    /// Every line of the report: what, and how often. Only the engine has a cold store to snapshot.
    pub fn lines(&self, engine: bool) -> Vec<(String, u64)> {
        let count = |phases: &(Phase, Phase)| self.phases.get(phases).copied().unwrap_or(0);
        let mut lines = vec![("commits".to_owned(), self.commits)];
        for (from, targets) in TRANSITIONS {
            // A phase that is entered again by itself is seen as one.
            let is_cold = |phase: Phase| phase == Phase::SnapshottingCold;
            for to in targets.iter().filter(|to| *to != from && (engine || !is_cold(*from) && !is_cold(**to)))
            {
                lines.push((format!("{from:?} → {to:?}"), count(&(*from, *to))));
            }
        }
        let to = |phase| self.phases.iter().filter(|((_, to), _)| *to == phase).map(|(_, count)| count).sum();
        lines.push(("any failure → BackingOff".to_owned(), to(Phase::BackingOff)));
        lines.push(("→ Ended".to_owned(), to(Phase::Ended)));
        for row in ROWS.iter().filter(|row| engine || **row != EVICTED) {
            lines.push((row.to_string(), self.rows.get(row).copied().unwrap_or(0)));
        }
        for (hazard, says) in SAYS {
            lines.push((format!("{hazard:?}: {says}"), self.hazards.get(hazard).copied().unwrap_or(0)));
        }
        lines
    }
}
