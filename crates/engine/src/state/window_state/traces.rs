//! What there is of one key.

use super::pane::Pane;
use super::sessions::{FIRST_EVENT, LAST_EVENT, events};
use super::{Emits, WindowState};
use crate::state::StateError;
use crate::state::cold::ColdStore;
use crate::state::key::{self, Keys};
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
    /// What there is here of the first of these keys, in memory or cold, by pane.
    ///
    /// # Errors
    /// `Cold` and `Damaged` if a run cannot be read.
    pub fn traces(&self, keys: &Keys, cold: &dyn ColdStore) -> Result<Vec<Trace>, StateError> {
        let (key, hash) = (keys.get(0), keys.hash(0));
        let asked = [(key::lane(hash), key)];
        let mut traces = vec![];
        let is_dated = self.spec.session_gap_ms().is_some();
        for (start, pane) in &self.panes {
            let in_memory = pane.table.find(key, hash);
            let mut states = vec![];
            for run in &pane.runs {
                if is_dated || (in_memory.is_none() && states.is_empty()) {
                    states.extend(cold.get(*run, &asked)?.into_iter().flatten());
                }
            }
            if in_memory.is_none() && states.is_empty() {
                continue;
            }
            let events = match is_dated {
                true => Some(self.events_of(key, pane, in_memory, &states)?),
                false => None,
            };
            traces.push(Trace { pane: *start, events });
        }
        Ok(traces)
    }

    /// The first and the last event of a key in a pane, from its row in memory and those that were evicted.
    fn events_of(
        &self,
        key: &[u8],
        pane: &Pane,
        in_memory: Option<u32>,
        evicted: &[Vec<u8>],
    ) -> Result<(i64, i64), StateError> {
        let mut found = GroupTable::new(self.layout.clone())?;
        found.merge_groups(&pane.table, in_memory.as_slice())?;
        let mut rows = EncodedRows::default();
        evicted.iter().for_each(|state| rows.push(key, |out| out.extend_from_slice(state)));
        found.merge_rows(&rows)?;
        let last = if self.emits == Emits::Rows { FIRST_EVENT } else { LAST_EVENT };
        Ok((events(&found, FIRST_EVENT)?.value(0), events(&found, last)?.value(0)))
    }
}
