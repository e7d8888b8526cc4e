//! A simulated Kafka: partitions with transactions, markers and last stable offsets, and one transaction coordinator with epochs,
//! fencing and time limits. What a request does is decided when it arrives, not when it is sent.

use std::rc::Rc;

use onceflow_protocol::coordinator::Fate;
use onceflow_protocol::{Claim, ClaimId, Decision};

use crate::hazard::{Hazard, Hazards};
use crate::rng::Rng;
use crate::row::{Input, Row};

/// Number of a transaction.
pub type Txn = usize;

/// Number of the control topic's partition.
pub const CONTROL: usize = 0;
/// Numbers of the output topic's partitions.
pub const OUTPUTS: std::ops::Range<usize> = 1..3;
/// Number of the first source partition.
pub const SOURCES: usize = 3;

/// What a record holds.
#[derive(Clone, Debug)]
pub enum Value {
    /// In the control topic.
    Claim(Rc<Claim>),
    /// In the control topic.
    Decision(Rc<Decision>),
    /// In the output topic.
    Row(Row),
    /// In a source.
    Input(Input),
}

/// Something at an offset.
#[derive(Clone, Debug)]
pub struct Entry {
    txn: Option<Txn>,
    /// `None` for a marker, and for what compaction removed.
    value: Option<Value>,
}

/// A partition. Offsets are indices.
#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Entry>,
    /// Transactions without a marker here, and their first offsets.
    open: Vec<(Txn, usize)>,
}

impl Log {
    /// The offset after the last entry.
    pub fn end(&self) -> usize {
        self.entries.len()
    }

    /// The last stable offset: what a committed reader may read up to.
    pub fn stable_end(&self) -> usize {
        self.open.iter().map(|(_, first)| *first).min().unwrap_or(self.entries.len())
    }

    fn append(&mut self, txn: Option<Txn>, value: Value) {
        if let Some(txn) = txn
            && !self.open.iter().any(|(open, _)| *open == txn)
        {
            self.open.push((txn, self.entries.len()));
        }
        self.entries.push(Entry { txn, value: Some(value) });
    }

    fn mark(&mut self, txn: Txn) {
        self.open.retain(|(open, _)| *open != txn);
        self.entries.push(Entry { txn: None, value: None });
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The producer's epoch is over.
    Fenced,
    /// The coordinator is still ending a transaction, or the request came before an earlier one: send it again.
    Busy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing { txn: Txn, since_ms: u64 },
    Ending { txn: Txn, unmarked: Vec<usize> },
}

/// A produce request on its way.
#[derive(Clone, Debug)]
pub struct Produce {
    /// Names the request; a duplicate has the same.
    pub id: u64,
    /// The producer's epoch.
    pub epoch: u32,
    /// Where to.
    pub log: usize,
    /// Which request of this producer epoch to this partition, counted from 0.
    pub sequence: u64,
    /// What.
    pub values: Rc<Vec<Value>>,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub enum Request {
    /// Records.
    Produce(Produce),
    /// EndTxn with commit, of this producer epoch.
    Commit(u32),
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    logs: Vec<Log>,
    fates: Vec<Fate>,
    epoch: u32,
    state: State,
    timeout_ms: u64,
    /// Partitions of the open transaction, and where its records are.
    writes: Vec<(usize, usize)>,
    /// The next sequence number of the present producer epoch, by partition.
    sequences: Vec<u64>,
    /// Requests on their way, each with the earliest time of its arrival.
    pub network: Vec<(u64, Request)>,
    /// Answers to produce requests.
    pub answers: Vec<(u64, Result<(), Refusal>)>,
    /// Transactions that time out from here on are counted.
    pub timeouts: u64,
}

impl Cluster {
    /// Empty partitions. A transaction may stay open for `timeout_ms`.
    pub fn new(sources: usize, timeout_ms: u64) -> Cluster {
        let logs: Vec<Log> = (0..SOURCES + sources).map(|_| Log::default()).collect();
        Cluster {
            sequences: vec![0; logs.len()],
            logs,
            fates: vec![],
            epoch: 0,
            state: State::Empty,
            timeout_ms,
            writes: vec![],
            network: vec![],
            answers: vec![],
            timeouts: 0,
        }
    }

    /// A partition.
    pub fn log(&self, log: usize) -> &Log {
        &self.logs[log]
    }

    fn begin(&mut self) -> Txn {
        self.fates.push(Fate::Open);
        self.fates.len() - 1
    }

    /// `InitProducerId`: fences every older epoch; ends what was open first, and is to be repeated until that is done.
    pub fn init(&mut self) -> Result<u32, Refusal> {
        match self.state {
            State::Ongoing { .. } => {
                self.end_open(Fate::Aborted);
                self.new_epoch();
                Err(Refusal::Busy)
            }
            State::Ending { .. } => Err(Refusal::Busy),
            State::Empty => {
                self.new_epoch();
                Ok(self.epoch)
            }
        }
    }

    fn new_epoch(&mut self) {
        self.epoch += 1;
        self.sequences.fill(0);
    }

    /// Takes a produce request in; the first record after a transaction's end begins the next one.
    pub fn produce(&mut self, now_ms: u64, request: &Produce) -> Result<(), Refusal> {
        if request.epoch != self.epoch {
            return Err(Refusal::Fenced);
        }
        if request.sequence < self.sequences[request.log] {
            return Ok(());
        }
        if request.sequence > self.sequences[request.log] {
            return Err(Refusal::Busy);
        }
        let txn = match self.state {
            State::Ending { .. } => return Err(Refusal::Busy),
            State::Ongoing { txn, .. } => txn,
            State::Empty => {
                let txn = self.begin();
                self.state = State::Ongoing { txn, since_ms: now_ms };
                txn
            }
        };
        self.sequences[request.log] += 1;
        for value in request.values.iter() {
            self.writes.push((request.log, self.logs[request.log].end()));
            self.logs[request.log].append(Some(txn), value.clone());
        }
        Ok(())
    }

    /// `EndTxn`. On success: the values that are committed now, if a transaction was open.
    pub fn commit(&mut self, epoch: u32) -> Result<Vec<Value>, Refusal> {
        if epoch != self.epoch {
            return Err(Refusal::Fenced);
        }
        match self.state {
            State::Empty => Ok(vec![]),
            State::Ending { .. } => Err(Refusal::Busy),
            State::Ongoing { .. } => Ok(self.end_open(Fate::Committed)),
        }
    }

    fn end_open(&mut self, fate: Fate) -> Vec<Value> {
        let State::Ongoing { txn, .. } = self.state else { return vec![] };
        self.fates[txn] = fate;
        let writes = std::mem::take(&mut self.writes);
        let mut unmarked: Vec<usize> = writes.iter().map(|(log, _)| *log).collect();
        unmarked.sort_unstable();
        unmarked.dedup();
        self.state = State::Ending { txn, unmarked };
        writes.iter().filter_map(|(log, at)| self.logs[*log].entries[*at].value.clone()).collect()
    }

    /// What the brokers do by themselves: markers, time limits, compaction. Whether anything happened.
    pub fn work(&mut self, now_ms: u64, rng: &mut Rng, hazards: &Hazards) -> bool {
        match &mut self.state {
            State::Ending { txn, unmarked } => {
                let late = hazards.rate(Hazard::MarkersLate);
                if late > 0 && !rng.chance(1000 / (1 + late)) {
                    return false;
                }
                let txn = *txn;
                let at = unmarked.swap_remove(rng.index(unmarked.len()));
                let done = unmarked.is_empty();
                self.logs[at].mark(txn);
                if done {
                    self.state = State::Empty;
                }
                true
            }
            State::Ongoing { since_ms, .. } => {
                let patience = if rng.chance(hazards.rate(Hazard::TransactionTimeout) / 4) {
                    0
                } else {
                    self.timeout_ms
                };
                if now_ms < *since_ms + patience {
                    return false;
                }
                self.timeouts += 1;
                self.end_open(Fate::Aborted);
                self.new_epoch();
                true
            }
            State::Empty => false,
        }
    }

    /// Removes one record of the control topic that a later one of its key, or an abort, made superfluous. Whether there was one.
    pub fn compact(&mut self, rng: &mut Rng) -> bool {
        let log = &self.logs[CONTROL];
        let stable = log.stable_end();
        if stable == 0 {
            return false;
        }
        let at = rng.index(stable);
        let is_claim = |entry: &Entry| match entry.value {
            Some(Value::Claim(_)) => Some(true),
            Some(_) => Some(false),
            None => None,
        };
        let Some(kind) = is_claim(&log.entries[at]) else { return false };
        let dead = !self.counts(&log.entries[at])
            || log.entries[at + 1..stable]
                .iter()
                .any(|later| is_claim(later) == Some(kind) && self.counts(later));
        if dead {
            self.logs[CONTROL].entries[at].value = None;
        }
        dead
    }

    fn counts(&self, entry: &Entry) -> bool {
        entry.txn.is_none_or(|txn| self.fates[txn] == Fate::Committed)
    }

    /// The records from `from` on that a committed reader sees, with their offsets.
    pub fn committed(&self, log: usize, from: usize) -> impl Iterator<Item = (usize, &Value)> {
        let stable = self.logs[log].stable_end();
        let entries = self.logs[log].entries[from.min(stable)..stable].iter().enumerate();
        entries
            .filter(|(_, entry)| self.counts(entry))
            .filter_map(move |(i, entry)| Some((from + i, entry.value.as_ref()?)))
    }

    /// The claims of the control topic, aborted and undecided ones too.
    pub fn all_claims(&self) -> impl Iterator<Item = (&Rc<Claim>, Fate)> {
        self.logs[CONTROL].entries.iter().filter_map(|entry| match &entry.value {
            Some(Value::Claim(claim)) => {
                Some((claim, entry.txn.map_or(Fate::Committed, |txn| self.fates[txn])))
            }
            _ => None,
        })
    }

    /// The newest claim that a committed reader sees.
    pub fn newest_claim(&self) -> Option<ClaimId> {
        let claims = self.committed(CONTROL, 0).filter_map(|(_, value)| match value {
            Value::Claim(claim) => Some(claim.claim.clone()),
            _ => None,
        });
        claims.last()
    }

    /// Writes to a source as somebody else's producer: outside transactions, or in one.
    pub fn append_input(&mut self, partition: usize, txn: Option<Txn>, input: Input) {
        self.logs[SOURCES + partition].append(txn, Value::Input(input));
    }

    /// Begins somebody else's transaction.
    pub fn begin_foreign(&mut self) -> Txn {
        self.begin()
    }

    /// Ends somebody else's transaction in a source partition.
    pub fn end_foreign(&mut self, partition: usize, txn: Txn, fate: Fate) {
        self.fates[txn] = fate;
        self.logs[SOURCES + partition].mark(txn);
    }

    /// Writes outside the transaction: what the planted fault does.
    pub fn append_outside(&mut self, log: usize, value: Value) {
        self.logs[log].append(None, value);
    }

    /// Loses the whole control topic, as an operator's mistake would.
    pub fn delete_control_topic(&mut self) {
        self.logs[CONTROL] = Log::default();
    }
}
