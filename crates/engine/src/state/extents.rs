//! Which parts of which segment files are live: what a restore reads, and what keeps a file from being deleted.
//!
//! An extent holds rows of one pane as one worker had them. The live extents of a pane and worker, oldest first, are its rows: the newest
//! row of a key counts. A barrier keeps them (`Unchanged`), adds to them (`Delta`) or replaces them (`Whole`); a
//! pane that the barrier does not list is gone. A file is live as long as one of its extents is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::segment::Location;

/// A live extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Name of the segment file.
    pub file: String,
    /// Durable number of the step's state.
    pub step: u32,
    /// Start of the pane, milliseconds.
    pub pane: i64,
    /// The worker that wrote it.
    pub worker: u16,
    /// Where in the file.
    #[serde(flatten)]
    pub location: Location,
}

/// Names what extents belong to: step, pane, worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaneId {
    /// Durable number of the step's state.
    pub step: u32,
    /// Start of the pane, milliseconds.
    pub pane: i64,
    /// Number of the worker.
    pub worker: u16,
}

impl Extent {
    /// What it belongs to.
    pub fn pane_id(&self) -> PaneId {
        PaneId { step: self.step, pane: self.pane, worker: self.worker }
    }
}

/// What a barrier wrote of a pane: a frozen pane's [`Change`](super::window_state::Change) on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenChange {
    /// Nothing: its extents stay.
    Unchanged,
    /// An extent on top of the others.
    Delta(Location),
    /// An extent instead of all others; `None` if the pane has no rows in memory.
    Whole(Option<Location>),
}

/// A pane that is live at a barrier, and what was written of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenPane {
    /// Which pane.
    pub id: PaneId,
    /// What was written.
    pub change: WrittenChange,
}

/// The live extents, as the manifest keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveExtents {
    /// Oldest first.
    extents: Vec<Extent>,
    /// Rows that each file was written with, of the files that have live extents.
    written_rows: BTreeMap<String, u64>,
}

impl LiveExtents {
    /// The live extents, oldest first.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes of all of them, as stored.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().fold(0, |bytes, extent| bytes.saturating_add(extent.location.length))
    }

    /// The files that hold them.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.written_rows.keys().map(String::as_str)
    }

    /// The panes that have live extents, each with them, newest first: what a restore reads.
    pub fn panes(&self) -> BTreeMap<PaneId, Vec<&Extent>> {
        let mut panes = BTreeMap::<_, Vec<_>>::new();
        for extent in self.extents.iter().rev() {
            panes.entry(extent.pane_id()).or_default().push(extent);
        }
        panes
    }

    /// The live extents after a barrier that wrote `file`. `panes` are all that are live, each once.
    pub fn after(&self, file: &str, panes: &[WrittenPane]) -> LiveExtents {
        let keeps = |pane: &&WrittenPane| !matches!(pane.change, WrittenChange::Whole(_));
        let kept: BTreeSet<PaneId> = panes.iter().filter(keeps).map(|pane| pane.id).collect();
        let mut extents: Vec<Extent> =
            self.extents.iter().filter(|extent| kept.contains(&extent.pane_id())).cloned().collect();
        let mut written_rows = self.written_rows.clone();
        for pane in panes {
            let written = match pane.change {
                WrittenChange::Delta(location) | WrittenChange::Whole(Some(location)) => location,
                WrittenChange::Unchanged | WrittenChange::Whole(None) => continue,
            };
            let rows = written_rows.entry(file.to_owned()).or_default();
            *rows = rows.saturating_add(written.rows);
            let PaneId { step, pane, worker } = pane.id;
            extents.push(Extent { file: file.to_owned(), step, pane, worker, location: written });
        }
        let live: BTreeSet<&str> = extents.iter().map(|extent| extent.file.as_str()).collect();
        written_rows.retain(|file, _| live.contains(file.as_str()));
        LiveExtents { extents, written_rows }
    }

    /// The same extents where files have other names: in a copy of the snapshot.
    pub fn renamed(&self, name: impl Fn(&str) -> String) -> LiveExtents {
        let rename = |extent: &Extent| Extent { file: name(&extent.file), ..extent.clone() };
        let written_rows = self.written_rows.iter().map(|(file, rows)| (name(file), *rows));
        LiveExtents {
            extents: self.extents.iter().map(rename).collect(),
            written_rows: written_rows.collect(),
        }
    }

    /// Without the extents of the steps for which `keeps` says no, and without the files that only they kept alive.
    pub fn retain_steps(&mut self, keeps: impl Fn(u32) -> bool) {
        self.extents.retain(|extent| keeps(extent.step));
        let live: BTreeSet<&str> = self.extents.iter().map(|extent| extent.file.as_str()).collect();
        self.written_rows.retain(|file, _| live.contains(file.as_str()));
    }

    /// Panes to write afresh at the next barrier, so that files go of whose rows more than three quarters are dead.
    pub fn mostly_dead(&self) -> BTreeSet<PaneId> {
        let mut live_rows = BTreeMap::<&str, u64>::new();
        for extent in &self.extents {
            let rows = live_rows.entry(&extent.file).or_default();
            *rows = rows.saturating_add(extent.location.rows);
        }
        let is_mostly_dead = |file: &str| {
            let live = live_rows.get(file).copied().unwrap_or(0);
            self.written_rows.get(file).is_some_and(|written| live.saturating_mul(4) < *written)
        };
        self.extents.iter().filter(|extent| is_mostly_dead(&extent.file)).map(Extent::pane_id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(rows: u64) -> Location {
        Location { offset: 16, length: 10 * rows, rows, checksum: u64::MAX - rows }
    }

    fn pane(pane: i64, change: WrittenChange) -> WrittenPane {
        WrittenPane { id: PaneId { step: 1, pane, worker: 0 }, change }
    }

    fn listed(live: &LiveExtents) -> Vec<(&str, i64, u64)> {
        live.extents().iter().map(|e| (e.file.as_str(), e.pane, e.location.rows)).collect()
    }

    use WrittenChange::{Delta, Unchanged, Whole};

    #[test]
    fn changes_keep_add_replace_and_drop() {
        let live = LiveExtents::default()
            .after("a", &[pane(0, Delta(location(5))), pane(10, Delta(location(6)))])
            .after("b", &[pane(0, Delta(location(1))), pane(10, Unchanged), pane(20, Delta(location(9)))]);
        assert_eq!(listed(&live), [("a", 0, 5), ("a", 10, 6), ("b", 0, 1), ("b", 20, 9)]);
        let newest_first = &live.panes()[&PaneId { step: 1, pane: 0, worker: 0 }];
        assert_eq!(newest_first.iter().map(|extent| extent.file.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        let live = live.after("c", &[pane(0, Whole(Some(location(5)))), pane(10, Unchanged)]);
        assert_eq!(listed(&live), [("a", 10, 6), ("c", 0, 5)]);
        assert_eq!(live.files().collect::<Vec<_>>(), ["a", "c"]);
        let live = live.after("d", &[pane(10, Whole(None)), pane(0, Unchanged)]);
        assert_eq!(listed(&live), [("c", 0, 5)]);
        assert_eq!(live.files().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn files_with_little_left_are_rewritten() {
        let live = LiveExtents::default()
            .after("a", &[pane(0, Delta(location(90))), pane(10, Delta(location(10)))])
            .after("b", &[pane(0, Delta(location(1))), pane(10, Unchanged)]);
        assert!(live.mostly_dead().is_empty());
        let live = live.after("c", &[pane(10, Unchanged), pane(20, Delta(location(1)))]);
        assert_eq!(live.mostly_dead().into_iter().map(|id| id.pane).collect::<Vec<_>>(), [10]);
    }

    #[test]
    fn the_manifest_form_comes_back() {
        let live = LiveExtents::default().after("a", &[pane(0, Delta(location(5)))]);
        let json = serde_json::to_string(&live).unwrap();
        assert_eq!(
            json,
            r#"{"extents":[{"file":"a","step":1,"pane":0,"worker":0,"offset":16,"length":50,"rows":5,"checksum":18446744073709551610}],"written_rows":{"a":5}}"#
        );
        assert_eq!(serde_json::from_str::<LiveExtents>(&json).unwrap(), live);
    }
}
