//! Which results are emitted again, and which before the end of their window.

use std::collections::BTreeSet;

use onceflow_protocol::Frontiers;

use super::pane::Pane;
use super::{EVERYTHING, WindowState};
use crate::plan::Emits;
use crate::state::key::Keys;

/// When windows are emitted that have begun, as far as the fired frontier goes, and have not fired.
#[derive(Debug)]
pub(super) struct Early {
    /// Once whenever that frontier has come into another stretch of this length, milliseconds.
    pub(super) every_ms: i64,
    /// The stretch in which they were emitted last.
    pub(super) last: Option<i64>,
    /// The frontier for which the pass that ends has emitted them, if it has.
    pub(super) emitted: Option<i64>,
}

impl WindowState {
    /// The ends of windows that have fired and are not purged, and of which a group has changed since the last freeze; ascending. Where early
    /// results are due, also of windows that are under way.
    pub fn changed_ends(&self, frontiers: Frontiers) -> Vec<i64> {
        if self.emits == Emits::Totals {
            let has_changed = self.panes.values().any(Pane::has_changed);
            return has_changed.then_some(EVERYTHING).into_iter().collect();
        }
        let is_due = self.early_due(frontiers.fired);
        let mut ends = BTreeSet::new();
        for (&start, pane) in &self.panes {
            if self.spec.first_end(start) > frontiers.fired && !is_due {
                // This pane and those behind it are in no window that has fired.
                break;
            }
            let (has_changed, is_pending) = (pane.has_changed(), is_due && pane.has_pending());
            let mut end = self.spec.next_end(start, frontiers.purged).filter(|_| has_changed || is_pending);
            // Of windows that are to begin there may be any number, while a backlog is read.
            let is_under_way = |end: &i64| is_due && self.spec.start(*end) <= frontiers.fired;
            while let Some(changed) = end.filter(|end| *end <= frontiers.fired || is_under_way(end)) {
                if has_changed || changed > frontiers.fired {
                    ends.insert(changed);
                }
                end = self.spec.next_end(start, changed);
            }
        }
        ends.into_iter().collect()
    }

    /// Whether windows that are under way are emitted at the barrier at hand; the frontier is that of the one before.
    fn early_due(&self, fired: i64) -> bool {
        self.early.as_ref().is_some_and(|early| early.last != Some(fired.div_euclid(early.every_ms)))
    }

    /// The pass is over in which this was the fired frontier.
    pub fn pass_over(&mut self, fired: i64) {
        if let Some(early) = &mut self.early {
            let now = Some(fired.div_euclid(early.every_ms));
            early.emitted = Some(fired).filter(|_| early.last != now);
            early.last = now;
        }
    }

    /// The groups that have changed here in the window that ends at `end`, since the last freeze, or since its last early results if it has not
    /// `fired`; a key may occur several times.
    pub fn changed_keys(&self, end: i64, fired: i64) -> Keys {
        let mut keys = Keys::default();
        let is_early = self.early.is_some() && end > fired;
        for (_, pane) in self.panes_of(end) {
            let pending = pane.table.pending().filter(|_| is_early);
            for group in pane.table.changed().chain(pending) {
                keys.push_hashed(pane.table.key(group), pane.table.hash(group));
            }
            keys.append(&pane.unsent);
            if is_early {
                keys.append(&pane.pending);
            }
        }
        keys
    }
}
