//! The rows of a batch by pane.

use onceflow_protocol::{EventTime, WindowSpec};

use crate::state::StateError;
use crate::state::aggregate::Rows;

/// The rows of a batch by pane. Nearly every batch touches one pane to three; a backlog out of order may touch thousands.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    /// Set if all rows are in this pane; the rest is empty then.
    whole: Option<i64>,
    /// Panes, ascending, and where in `rows` theirs are.
    panes: Vec<(i64, usize)>,
    rows: Vec<Vec<u32>>,
}

impl Buckets {
    pub(super) fn fill(&mut self, spec: WindowSpec, times: &[i64]) -> Result<(), StateError> {
        self.whole = None;
        for (at, _) in self.panes.drain(..).enumerate() {
            self.rows[at].clear();
        }
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(()) };
        let pane_of = |time: i64| {
            EventTime::new(time)
                .map(|time| spec.pane_of(time))
                .ok_or_else(|| StateError::bug(format!("event time {time} is out of range")))
        };
        if pane_of(*first)? == pane_of(*last)? {
            self.whole = Some(pane_of(*first)?);
            return Ok(());
        }
        // The pane of the row before, as it nearly always is this row's too; the range is empty at first.
        let (mut present, mut bucket) = (0..0, 0);
        for (row, &time) in times.iter().enumerate() {
            if !present.contains(&time) {
                let pane = pane_of(time)?;
                present = pane..spec.pane_end(pane);
                bucket = self.bucket(pane);
            }
            self.rows[bucket].push(row as u32);
        }
        Ok(())
    }

    fn bucket(&mut self, pane: i64) -> usize {
        match self.panes.binary_search_by_key(&pane, |(pane, _)| *pane) {
            Ok(at) => self.panes[at].1,
            Err(at) => {
                let bucket = self.panes.len();
                self.panes.insert(at, (pane, bucket));
                if bucket == self.rows.len() {
                    self.rows.push(vec![]);
                }
                bucket
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, Rows<'_>)> {
        let whole = self.whole.iter().map(|&pane| (pane, Rows::All));
        whole.chain(self.panes.iter().map(|&(pane, bucket)| (pane, Rows::These(&self.rows[bucket]))))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.panes.capacity() * 16
            + self.rows.capacity() * 24
            + self.rows.iter().map(|rows| rows.capacity() * 4).sum::<usize>()
    }
}
