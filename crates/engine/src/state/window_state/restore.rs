//! Panes on their way back.

use onceflow_protocol::planted::{Planted, is_planted};

use super::WindowState;
use super::pane::pane;
use crate::state::StateError;
use crate::state::cold::Run;
use crate::state::key;
use crate::state::rows::EncodedRows;
use crate::state::table::GroupTable;

/// Where the extents of a [`PaneRestore`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From this worker, at the same parallelism: they stay live.
    Own,
    /// From any worker at another parallelism: the next freeze replaces them by the whole pane.
    Other,
}

/// Rows of one pane and one former worker on their way back.
#[derive(Debug)]
pub struct PaneRestore {
    pane: i64,
    table: GroupTable,
    rows: u64,
    extents: u32,
}

impl PaneRestore {
    /// Adds an extent's rows. Extents must come newest first: the first row of a key counts.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not rows of this step.
    pub fn add(&mut self, rows: &EncodedRows) -> Result<(), StateError> {
        self.rows += rows.count;
        self.extents += 1;
        self.table.restore_rows(rows)
    }
}

impl WindowState {
    /// Starts to bring back the rows that one former worker had of a pane.
    ///
    /// # Errors
    /// `Damaged` if no pane of the step begins there.
    pub fn begin_restore(&self, pane: i64) -> Result<PaneRestore, StateError> {
        self.check_pane(pane)?;
        Ok(PaneRestore { pane, table: GroupTable::new(self.layout.clone())?, rows: 0, extents: 0 })
    }

    /// Takes over what a restore has gathered; the rows of several former workers add up.
    ///
    /// # Errors
    /// `TooLarge` as [`GroupTable::upsert`].
    pub fn finish_restore(&mut self, restored: PaneRestore, origin: Origin) -> Result<(), StateError> {
        let pane = pane(&mut self.panes, restored.pane, &self.layout)?;
        pane.written += restored.rows;
        pane.extents += restored.extents;
        let others = origin == Origin::Other && !is_planted(Planted::OldExtentsKept);
        pane.rewrite |= others;
        if pane.table.is_empty() {
            pane.table = restored.table;
        } else {
            pane.rewrite |= !is_planted(Planted::OldExtentsKept);
            pane.table.merge_table(&restored.table, 0..key::LANES)?;
        }
        if pane.rewrite {
            // The next freeze writes all of it; and nothing of it is news to those who read what was emitted.
            pane.table.forget_changes();
        }
        if self.early.is_some() {
            // Nobody knows what early results had come of them.
            pane.table.put_off_all();
        }
        Ok(())
    }

    /// Takes over runs of a pane that are in the cold store already; whose they were does not matter.
    ///
    /// # Errors
    /// `Bug` if a run is another step's or pane's, `Damaged` if no pane of the step begins there.
    pub fn restore_cold(&mut self, pane: i64, runs: &[Run]) -> Result<(), StateError> {
        self.check_pane(pane)?;
        if let Some(other) = runs.iter().find(|run| run.step != self.id || run.pane != pane) {
            return Err(StateError::bug(format!(
                "{other:?} restored as a run of step {} pane {pane}",
                self.id
            )));
        }
        super::pane(&mut self.panes, pane, &self.layout)?.runs.extend_from_slice(runs);
        Ok(())
    }

    /// A pane that a manifest names must be one that a record can be in: window arithmetic relies on it.
    fn check_pane(&self, pane: i64) -> Result<(), StateError> {
        if self.spec.is_pane(pane) {
            Ok(())
        } else {
            Err(StateError::damaged(format!("no pane begins at {pane}")))
        }
    }
}
