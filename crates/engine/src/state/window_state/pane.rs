//! A pane on one worker: a table, runs, and how much of it segments hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MAX_EXTENTS;
use crate::state::StateError;
use crate::state::cold::Run;
use crate::state::key::Keys;
use crate::state::rows::EncodedRows;
use crate::state::table::{GroupTable, Layout};

/// What a freeze says of a pane's rows in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The live extents stay as they are.
    Unchanged,
    /// These rows come on top: newer than all before them.
    Delta(EncodedRows),
    /// These rows are everything, possibly nothing; all older extents of this pane and worker are dead.
    Whole(EncodedRows),
}

/// A pane on one worker.
#[derive(Debug)]
pub(super) struct Pane {
    pub(super) table: GroupTable,
    pub(super) runs: Vec<Run>,
    /// Rows in the live extents, superseded ones included.
    pub(super) written: u64,
    /// Live extents: a restore reads them all.
    pub(super) extents: u32,
    /// Whether the next freeze writes the whole pane.
    pub(super) rewrite: bool,
    /// Groups that were evicted since the last freeze with changes that have not been emitted.
    pub(super) unsent: Keys,
    /// The same of earlier, of which only early results are still to come.
    pub(super) pending: Keys,
}

impl Pane {
    pub(super) fn new(layout: &Arc<Layout>) -> Result<Pane, StateError> {
        Ok(Pane {
            table: GroupTable::new(layout.clone())?,
            runs: vec![],
            written: 0,
            extents: 0,
            rewrite: false,
            unsent: Keys::default(),
            pending: Keys::default(),
        })
    }

    /// Whether a group has changed since the last freeze.
    pub(super) fn has_changed(&self) -> bool {
        !self.unsent.is_empty() || self.table.changed().next().is_some()
    }

    /// Whether the early results of a group are still to come.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.table.pending().next().is_some()
    }

    /// What has changed since the last freeze has been emitted of windows that have fired. Early results of it come another time, or have come.
    pub(super) fn keep_pending(&mut self, is_emitted: bool) {
        if is_emitted {
            self.table.catch_up();
            self.pending.clear();
        } else {
            self.table.put_off();
            self.pending.append(&self.unsent);
        }
    }

    pub(super) fn freeze(&mut self) -> Change {
        self.unsent.clear();
        let (groups, dirty) = (self.table.len() as u64, self.table.dirty_groups());
        // A restore reads what is written, so that must stay within a factor of the table itself.
        let outgrown = self.written + dirty > 2 * groups + 1024 || self.extents >= MAX_EXTENTS;
        if self.rewrite || (dirty > 0 && outgrown) {
            self.rewrite = false;
            self.extents = 1;
            self.written = groups;
            Change::Whole(self.table.take_whole())
        } else if dirty > 0 {
            self.written += dirty;
            self.extents += 1;
            Change::Delta(self.table.take_dirty())
        } else {
            Change::Unchanged
        }
    }
}

/// The pane that starts at `start`, made if it is not there.
pub(super) fn pane<'p>(
    panes: &'p mut BTreeMap<i64, Pane>,
    start: i64,
    layout: &Arc<Layout>,
) -> Result<&'p mut Pane, StateError> {
    use std::collections::btree_map::Entry;
    Ok(match panes.entry(start) {
        Entry::Occupied(pane) => pane.into_mut(),
        Entry::Vacant(missing) => missing.insert(Pane::new(layout)?),
    })
}
