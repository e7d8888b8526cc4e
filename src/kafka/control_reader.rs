//! Reading one partition of the control topic: the primitives from which a start and a recovery are made.
//! Records are opaque here; what a claim or a decision is, the protocol knows.
//!
//! | step of the protocol | primitive |
//! | --- | --- |
//! | pre-flight: the newest decision and claim | committed reader, [`ControlReader::newest`] with [`Until::End`] |
//! | start: the newest decision before our own claim | committed reader, [`ControlReader::newest`] with [`Until::Record`] |
//! | start: is a later claim committed? | committed reader, [`ControlReader::scan`] on from there, [`Until::End`] |
//! | recovery: does a claim follow ours, of any fate? | uncommitted reader, [`ControlReader::scan`] from ours, [`Until::End`] |
//! | recovery: how did that claim end? | committed reader, [`ControlReader::fate`] |
//!
//! Every scan has a consumer of its own, which costs a connection and leaves nothing of an earlier position
//! behind. Every scan has a deadline, and missing it is an error (`Retry`), never "no record".
//!
//! The end of a committed scan is the last stable offset at its beginning, found by asking the leader and
//! reached by position (a record or the end-of-partition event): behind it lie records of open transactions
//! and those that a healthy writer goes on committing. Our own claim can lie behind it for a moment: that is
//! why a start waits for its record instead of an end. (A commit returns when it is decided, before its markers
//! are written: for some milliseconds not even its own process sees the end move. `init_transactions` returns
//! only when the markers of everything before are there.)

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::errors::{KafkaError, Result};
use super::properties::{Connection, Isolation};
use super::reader::{Bounds, PartitionQueue, Reader};

/// A record of the control topic. The keys of claims and decisions are never null; a null key or value (which
/// nobody of ours writes) counts as empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Where a scan ends.
#[derive(Clone, Copy)]
pub enum Until<'a> {
    /// At the end as it was when the scan began: the last stable offset, or the high watermark.
    End,
    /// Behind the first record for which this is true, however long it takes (up to the deadline).
    Record(&'a dyn Fn(&ControlRecord) -> bool),
}

/// The newest record of each key, from a stretch of the partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newest {
    /// By key.
    pub records: BTreeMap<Vec<u8>, ControlRecord>,
    /// The offset behind what was read.
    pub end: i64,
    /// Whether everything from the partition's beginning was read: what is missing here is missing there.
    pub complete: bool,
}

impl Newest {
    /// The newest record with this key.
    pub fn get(&self, key: &[u8]) -> Option<&ControlRecord> {
        self.records.get(key)
    }
}

/// What became of a record that an uncommitted reader has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its transaction is still open (or an earlier one of another producer is): ask again later.
    Undecided,
    /// Committed readers see it.
    Committed,
    /// They pass over it: its transaction was aborted, or a later record with its key let compaction take it
    /// (that later record is then itself the one to ask about).
    AbortedOrReplaced,
}

/// A reader of one partition.
pub struct ControlReader {
    connection: Connection,
    group_id: String,
    topic: String,
    partition: i32,
    isolation: Isolation,
    /// Asks for offsets; scans have consumers of their own.
    bounds: Reader,
}

/// The first stretch that is read backwards, in offsets. A decision takes two (itself and its marker).
const FIRST_STRETCH: i64 = 256;
/// How many records one poll takes, and how long it waits.
const POLL_RECORDS: usize = 1024;
const POLL: Duration = Duration::from_millis(100);

impl ControlReader {
    /// Opens a reader. This connects to nothing yet. The group is not joined.
    ///
    /// # Errors
    /// `Config` for what librdkafka refuses.
    pub fn open(
        connection: &Connection,
        group_id: &str,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<Self> {
        Ok(Self {
            connection: connection.clone(),
            group_id: group_id.to_owned(),
            topic: topic.to_owned(),
            partition,
            isolation,
            bounds: Reader::idle(connection, group_id, isolation)?,
        })
    }

    /// The partition's first offset, and its end as this reader's isolation sees it.
    ///
    /// # Errors
    /// `Retry` without a leader before the deadline, `Config` for a partition that does not exist.
    pub fn bounds(&self, deadline: Instant) -> Result<Bounds> {
        self.bounds.beginning_and_stable_end(&self.topic, self.partition, left(deadline))
    }

    /// Reads backwards in doubling stretches, until the newest records by key are `enough` or the beginning is
    /// reached. Each stretch is read forwards, and the last one up to `until`.
    ///
    /// # Errors
    /// `Retry` when the deadline passes, in particular before the record that `until` waits for has come.
    pub fn newest(
        &self,
        until: Until<'_>,
        enough: &dyn Fn(&Newest) -> bool,
        deadline: Instant,
    ) -> Result<Newest> {
        let Bounds { low, end } = self.bounds(deadline)?;
        let mut newest = Newest::default();
        let mut stretch = FIRST_STRETCH;
        let mut from = low.max(end.saturating_sub(stretch));
        newest.end = self.scan_to(from, Stop::of(until, end), deadline, &mut |record| {
            newest.records.insert(record.key.clone(), record);
        })?;
        loop {
            newest.complete = from <= low;
            if newest.complete || enough(&newest) {
                return Ok(newest);
            }
            stretch = stretch.saturating_mul(2);
            let before = from;
            from = low.max(before.saturating_sub(stretch));
            let mut older = BTreeMap::new();
            self.scan_to(from, Stop::At(before), deadline, &mut |record| {
                older.insert(record.key.clone(), record);
            })?;
            older.append(&mut newest.records);
            newest.records = older;
        }
    }

    /// Reads forwards from an offset and shows every record to `visit`; returns the offset behind what was read.
    /// A start before the beginning of the partition begins there.
    ///
    /// # Errors
    /// `Retry` when the deadline passes first.
    pub fn scan(
        &self,
        from: i64,
        until: Until<'_>,
        deadline: Instant,
        visit: &mut dyn FnMut(ControlRecord),
    ) -> Result<i64> {
        let Bounds { low, end } = self.bounds(deadline)?;
        self.scan_to(from.max(low), Stop::of(until, end), deadline, visit)
    }

    /// What became of the record at an offset, as committed readers see it now.
    ///
    /// # Errors
    /// `Bug` from an uncommitted reader, `Retry` when the deadline passes.
    pub fn fate(&self, offset: i64, deadline: Instant) -> Result<Fate> {
        if self.isolation != Isolation::Committed {
            return Err(KafkaError::bug(self.reading(offset), "only a committed reader can tell fates"));
        }
        let Bounds { low, end } = self.bounds(deadline)?;
        if end <= offset {
            return Ok(Fate::Undecided);
        }
        let mut seen = false;
        self.scan_to(offset.max(low), Stop::At(offset + 1), deadline, &mut |record| {
            seen |= record.offset == offset;
        })?;
        Ok(if seen { Fate::Committed } else { Fate::AbortedOrReplaced })
    }

    /// Reads from an offset inside the bounds. Records at or behind [`Stop::At`] are not shown.
    fn scan_to(
        &self,
        from: i64,
        stop: Stop<'_>,
        deadline: Instant,
        visit: &mut dyn FnMut(ControlRecord),
    ) -> Result<i64> {
        if matches!(stop, Stop::At(end) if from >= end) {
            return Ok(from);
        }
        let mut reader = Reader::idle(&self.connection, &self.group_id, self.isolation)?;
        let queues = reader.assign(&[(self.topic.as_str(), self.partition, from)])?;
        let Some(mut queue) = queues.into_iter().next() else {
            return Err(KafkaError::bug(self.reading(from), "no queue for an assigned partition"));
        };
        loop {
            reader.poll_main()?;
            if let Some(end) = take(&mut queue, stop, left(deadline).min(POLL), visit)? {
                return Ok(end);
            }
            if Instant::now() >= deadline {
                return Err(KafkaError::timed_out(
                    self.reading(from),
                    format!("{} by the deadline, at offset {}", stop.missing(), queue.next_offset()),
                ));
            }
        }
    }

    fn reading(&self, from: i64) -> String {
        format!("read control partition {} [{}] from offset {from}", self.topic, self.partition)
    }
}

/// Where a scan stops.
#[derive(Clone, Copy)]
enum Stop<'a> {
    /// Before this offset.
    At(i64),
    /// Behind a record.
    Behind(&'a dyn Fn(&ControlRecord) -> bool),
}

impl<'a> Stop<'a> {
    fn of(until: Until<'a>, end: i64) -> Self {
        match until {
            Until::End => Self::At(end),
            Until::Record(wanted) => Self::Behind(wanted),
        }
    }

    fn missing(self) -> String {
        match self {
            Self::At(end) => format!("offset {end} was not reached"),
            Self::Behind(_) => "the awaited record did not come".to_owned(),
        }
    }
}

/// One poll of a scan; the offset behind what was read once the scan is done.
fn take(
    queue: &mut PartitionQueue,
    stop: Stop<'_>,
    wait: Duration,
    visit: &mut dyn FnMut(ControlRecord),
) -> Result<Option<i64>> {
    let fetched = queue.poll(POLL_RECORDS, wait)?;
    for i in 0..fetched.batch.len() {
        let record = ControlRecord {
            offset: fetched.batch.offset(i),
            key: fetched.batch.key(i).unwrap_or_default().to_vec(),
            value: fetched.batch.value(i).unwrap_or_default().to_vec(),
        };
        let behind = record.offset + 1;
        match stop {
            Stop::At(end) if record.offset >= end => return Ok(Some(end)),
            Stop::Behind(wanted) if wanted(&record) => {
                visit(record);
                return Ok(Some(behind));
            }
            _ => visit(record),
        }
    }
    Ok(match stop {
        Stop::At(end) if queue.next_offset() >= end => Some(end),
        _ => None,
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
