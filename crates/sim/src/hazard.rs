//! What goes wrong: the kinds of faults, and how often each comes in one seed.
//!
//! Swarm testing (Groce et al., "Swarm testing", ISSTA 2012): every seed draws its own subset of kinds and its own rates, so that a
//! fault that would drown others is absent in many runs and frequent in some.

use crate::rng::Rng;

/// A kind of fault of the surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`SAYS` explains each")]
pub enum Hazard {
    Crash,
    PowerLoss,
    Pause,
    SecondInstance,
    Stop,
    ClockJump,
    CallHangs,
    CallFails,
    AnswerLost,
    RequestLost,
    RequestDelayed,
    ProduceDelayed,
    ProduceDuplicated,
    QueueFull,
    TransactionTimeout,
    MarkersLate,
    Compaction,
    FetchStalls,
    FetchLags,
    OpenSourceTransaction,
    AbortedSourceTransaction,
    SilentPartition,
    OldRecord,
    WatermarkJump,
    PartitionAdded,
    StorageFull,
    StorageFails,
    StorageSlow,
    TornWrite,
    SavepointAsked,
    Operator,
}

use Hazard::*;

/// Every kind, with what it means.
pub const SAYS: &[(Hazard, &str)] = &[
    (Crash, "an instance dies between two effects"),
    (PowerLoss, "an instance dies with its machine: what was not fsynced is gone or torn"),
    (Pause, "an instance stands still, perhaps for long, and resumes as a zombie"),
    (SecondInstance, "another instance starts beside the running one"),
    (Stop, "an instance is asked to stop in an orderly way"),
    (ClockJump, "time leaps by up to a minute"),
    (CallHangs, "a blocking call of the producer never returns"),
    (CallFails, "a call fails and may be repeated"),
    (AnswerLost, "a request takes effect, its answer is lost"),
    (RequestLost, "a request is lost and its answer with it"),
    (RequestDelayed, "a request takes effect long after its sender has given it up"),
    (ProduceDelayed, "a produce request arrives late, perhaps after its sender's death"),
    (ProduceDuplicated, "a produce request arrives twice"),
    (QueueFull, "the client's queue refuses a record for a while"),
    (TransactionTimeout, "the transaction coordinator runs out of patience and fences"),
    (MarkersLate, "transaction markers are written long after the transaction ended"),
    (Compaction, "the control topic is compacted"),
    (FetchStalls, "a partition cannot be fetched for a while"),
    (FetchLags, "a fetch returns a few records only"),
    (OpenSourceTransaction, "a foreign transaction holds back a source partition"),
    (AbortedSourceTransaction, "a foreign transaction in a source partition is aborted"),
    (SilentPartition, "a source partition has no records for a while"),
    (OldRecord, "a record is far older than the allowed disorder"),
    (WatermarkJump, "event time leaps by many windows"),
    (PartitionAdded, "a partition is added to the source"),
    (StorageFull, "the checkpoint storage is full for a while"),
    (StorageFails, "one write to the checkpoint storage fails"),
    (StorageSlow, "a write to the checkpoint storage takes long"),
    (TornWrite, "a machine dies in the middle of a write"),
    (SavepointAsked, "somebody asks for a savepoint"),
    (Operator, "an instance is started to go back to a savepoint, or to discard a step's state"),
];

/// The rates of one seed, in a thousand, by kind.
#[derive(Clone, Debug)]
pub struct Hazards {
    rates: [u32; SAYS.len()],
    /// Off in the calm at the end of a run.
    on: bool,
}

impl Hazards {
    /// Half of the kinds, each at a rate of its own.
    pub fn draw(rng: &mut Rng) -> Hazards {
        let rates = std::array::from_fn(|_| if rng.chance(500) { 1 << rng.below(7) } else { 0 });
        Hazards { rates, on: true }
    }

    /// No faults from here on.
    pub fn end(&mut self) {
        self.on = false;
    }

    /// Whether faults still come.
    pub fn on(&self) -> bool {
        self.on
    }

    /// The rate of a kind, in a thousand chances.
    pub fn rate(&self, hazard: Hazard) -> u32 {
        if self.on { self.rates[hazard as usize] } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::SAYS;

    #[test]
    fn every_kind_is_listed_where_its_number_says() {
        assert!(SAYS.iter().enumerate().all(|(i, (hazard, _))| *hazard as usize == i));
    }
}
