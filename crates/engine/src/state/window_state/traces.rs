//! What there is of one key.

use super::pane::Pane;
use super::sessions::{FIRST_EVENT, LAST_EVENT, events};
use super::{ChangedGroups, Emits, WindowState};
use crate::state::StateError;
use crate::state::cold::ColdStore;
use crate::state::key;
use crate::state::rows::EncodedRows;
use crate::state::table::GroupTable;

/// What one worker has of a key in one pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Start of the pane, milliseconds.
    pub pane: i64,
    /// Of sessions and totals, the key's first and last event there; of a deduplication, twice the row that went on. Milliseconds.
    pub events: Option<(i64, i64)>,
}

impl WindowState {
    /// What there is here of these keys, of which there should be one, in memory or cold, by pane.
    ///
    /// # Errors
    /// `Cold` and `Damaged` if a run cannot be read.
    pub fn traces(&self, keys: &ChangedGroups, cold: &dyn ColdStore) -> Result<Vec<Trace>, StateError> {
        let lanes = 0..key::LANES;
        let is_dated = self.spec.session_gap_ms().is_some();
        let mut traces = vec![];
        for (start, pane) in &self.panes {
            let groups = keys.of_table(&pane.table, &lanes);
            let mut evicted: Vec<EncodedRows> = vec![];
            for run in &pane.runs {
                if is_dated || (groups.is_empty() && evicted.is_empty()) {
                    evicted.extend(Some(keys.of_run(*run, &lanes, cold)?).filter(|rows| !rows.is_empty()));
                }
            }
            if groups.is_empty() && evicted.is_empty() {
                continue;
            }
            let events = match is_dated {
                true => Some(self.events_of(pane, &groups, &evicted)?),
                false => None,
            };
            traces.push(Trace { pane: *start, events });
        }
        Ok(traces)
    }

    /// The first and the last event of a key in a pane, from its row in memory and those that were evicted.
    fn events_of(
        &self,
        pane: &Pane,
        groups: &[u32],
        evicted: &[EncodedRows],
    ) -> Result<(i64, i64), StateError> {
        let mut found = GroupTable::new(self.layout.clone())?;
        found.merge_groups(&pane.table, groups)?;
        evicted.iter().try_for_each(|rows| found.merge_rows(rows))?;
        let last = if self.emits == Emits::Rows { FIRST_EVENT } else { LAST_EVENT };
        Ok((events(&found, FIRST_EVENT)?.value(0), events(&found, last)?.value(0)))
    }
}
