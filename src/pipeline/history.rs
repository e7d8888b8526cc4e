//! The checkpoints of a pipeline, for people: the newest of them in memory and, over restarts of the process, in a file of JSON lines beside
//! the snapshots.
//!
//! The file is no authority for anything. It is not made durable, lines of it that cannot be read are passed over, and a paused instance may
//! add a line to what its successor writes. The keeper owns it; what happens between two of its writes is lost if the process is killed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::storage::{FileName, ShardStorage, StorageError, StorageErrorKind};

/// Checkpoints that are remembered. The file holds up to twice as many, and is then written anew.
const REMEMBERED: usize = 1000;

/// One checkpoint, completed or failed. Durations are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// The epoch that it ended, or would have.
    pub epoch: u64,
    /// Why it was begun: `interval`, `records`, `bytes`, `memory`, `request`, `continuation`, `end` or `stop`.
    pub trigger: String,
    /// How it came out.
    pub status: CheckpointStatus,
    /// When its barrier was asked for, milliseconds since 1970.
    pub started_ms: i64,
    /// From there to the end of its transaction.
    pub duration_us: u64,
    /// Until every worker stood at the barrier.
    pub alignment_us: u64,
    /// Windows fired.
    pub firing_us: u64,
    /// The synchronous part: workers stood still and copied out what had changed.
    pub sync_us: u64,
    /// The asynchronous part: output flushed and snapshot written while the workers went on.
    pub async_us: u64,
    /// The transaction's commit.
    pub commit_us: u64,
    /// Records read in the epoch.
    pub records_in: u64,
    /// Records written in the epoch.
    pub records_out: u64,
    /// Bytes that this snapshot added to the storage; none for a pipeline without state.
    pub written_bytes: Option<u64>,
    /// Bytes that a restore of it reads.
    pub full_bytes: Option<u64>,
    /// The snapshot's file.
    pub snapshot: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// How a checkpoint came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// Its transaction is committed.
    Completed,
    /// It is not, as far as was known.
    Failed,
}

/// The checkpoints of one pipeline, shared by the driver that makes them, the keeper that writes them and the API.
#[derive(Debug, Default)]
pub struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: VecDeque<CheckpointRecord>,
    /// How many of the newest records are not in the file.
    unwritten: usize,
    /// Lines of the file, once it was read.
    lines: Option<usize>,
}

impl History {
    /// A checkpoint has ended.
    pub fn add(&self, record: CheckpointRecord) {
        let mut inner = self.lock();
        inner.records.push_back(record);
        inner.unwritten += 1;
        inner.trim();
    }

    /// The newest ones, newest first.
    pub fn newest(&self, limit: usize) -> Vec<CheckpointRecord> {
        self.lock().records.iter().rev().take(limit).cloned().collect()
    }

    /// Reads what earlier processes left, once.
    ///
    /// # Errors
    /// If the file is there and cannot be read.
    pub fn read(&self, storage: &ShardStorage) -> Result<(), StorageError> {
        if self.lock().lines.is_some() {
            return Ok(());
        }
        let text = match storage.read(&FileName::history()) {
            Ok(text) => text,
            Err(error) if error.kind() == StorageErrorKind::Missing => vec![],
            Err(error) => return Err(error),
        };
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let mut inner = self.lock();
        inner.lines = Some(lines.len());
        for record in lines.iter().rev().filter_map(|line| serde_json::from_slice(line).ok()) {
            inner.records.push_front(record);
        }
        inner.trim();
        Ok(())
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// If the file cannot be written; the records are tried again.
    pub fn write(&self, storage: &ShardStorage) -> Result<(), StorageError> {
        let (text, rewrite, count) = {
            let inner = self.lock();
            let Some(lines) = inner.lines.filter(|_| inner.unwritten > 0) else { return Ok(()) };
            let rewrite = lines + inner.unwritten > 2 * REMEMBERED;
            let skipped = if rewrite { 0 } else { inner.records.len() - inner.unwritten };
            let mut text = vec![];
            for record in inner.records.iter().skip(skipped) {
                // Such a record is always JSON, and memory takes every byte.
                let _ = serde_json::to_writer(&mut text, record);
                text.push(b'\n');
            }
            (text, rewrite, inner.unwritten)
        };
        match rewrite {
            true => storage.replace(&FileName::history(), &text)?,
            false => storage.append(&FileName::history(), &text)?,
        }
        let mut inner = self.lock();
        inner.unwritten = inner.unwritten.saturating_sub(count);
        let kept = inner.records.len();
        inner.lines = inner.lines.map(|lines| if rewrite { kept } else { lines + count });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn trim(&mut self) {
        while self.records.len() > REMEMBERED {
            self.records.pop_front();
        }
        self.unwritten = self.unwritten.min(self.records.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64) -> CheckpointRecord {
        CheckpointRecord {
            epoch,
            trigger: "interval".to_owned(),
            status: CheckpointStatus::Completed,
            started_ms: 1,
            duration_us: 2500,
            alignment_us: 100,
            firing_us: 0,
            sync_us: 100,
            async_us: 1000,
            commit_us: 1300,
            records_in: 7,
            records_out: 3,
            written_bytes: Some(100),
            full_bytes: Some(1000),
            snapshot: None,
            failure: None,
        }
    }

    fn epochs(history: &History, limit: usize) -> Vec<u64> {
        history.newest(limit).iter().map(|record| record.epoch).collect()
    }

    #[test]
    fn a_later_process_knows_of_earlier_checkpoints() {
        let root = tempfile::tempdir().unwrap();
        let storage = ShardStorage::open(root.path(), "n", "p", 0).unwrap();
        let first = History::default();
        first.add(record(1));
        first.write(&storage).unwrap();
        assert!(storage.read(&FileName::history()).is_err(), "nothing is written before the file was read");
        first.read(&storage).unwrap();
        first.write(&storage).unwrap();
        first.write(&storage).unwrap();
        first.add(record(2));
        first.write(&storage).unwrap();
        storage.append(&FileName::history(), b"{\"half a li").unwrap();
        storage.append(&FileName::history(), b"\n").unwrap();

        let second = History::default();
        second.add(record(3));
        second.read(&storage).unwrap();
        second.read(&storage).unwrap();
        assert_eq!(epochs(&second, 10), [3, 2, 1]);
        assert_eq!(epochs(&second, 2), [3, 2]);
        second.write(&storage).unwrap();
        let third = History::default();
        third.read(&storage).unwrap();
        assert_eq!(third.newest(10), second.newest(10));
    }

    #[test]
    fn memory_and_file_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let storage = ShardStorage::open(root.path(), "n", "p", 0).unwrap();
        let history = History::default();
        history.read(&storage).unwrap();
        for epoch in 0..4 * REMEMBERED as u64 {
            history.add(record(epoch));
            if epoch % 10 == 0 {
                history.write(&storage).unwrap();
            }
        }
        history.write(&storage).unwrap();
        assert_eq!(history.newest(usize::MAX).len(), REMEMBERED);
        let text = storage.read(&FileName::history()).unwrap();
        assert!(text.iter().filter(|byte| **byte == b'\n').count() <= 2 * REMEMBERED);
        let again = History::default();
        again.read(&storage).unwrap();
        assert_eq!(again.newest(usize::MAX), history.newest(usize::MAX));
        // What nobody could write stays bounded too.
        for epoch in 0..3 * REMEMBERED as u64 {
            again.add(record(epoch));
        }
        again.write(&storage).unwrap();
        assert_eq!(epochs(&again, 1), [3 * REMEMBERED as u64 - 1]);
    }
}
