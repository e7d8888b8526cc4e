//! How long the parts of a checkpoint take, from the phases that the coordinator goes through.

use std::time::{Duration, Instant};

use onceflow_protocol::coordinator::{Coordinator, Phase};
use onceflow_protocol::{Counts, Decision};

use super::context::wall_clock_ms;
use super::history::{CheckpointRecord, CheckpointStatus};

/// Times the checkpoint under way, if there is one.
#[derive(Debug)]
pub struct CheckpointTimer {
    current: Option<Current>,
    /// When the present phase was entered.
    entered: Instant,
    phase: Phase,
}

#[derive(Debug)]
struct Current {
    began: Instant,
    record: CheckpointRecord,
}

impl CheckpointTimer {
    /// Nothing is under way.
    pub fn new() -> CheckpointTimer {
        CheckpointTimer { current: None, entered: Instant::now(), phase: Phase::New }
    }

    /// The coordinator has entered another phase.
    pub fn entered(&mut self, phase: Phase, before: Phase, coordinator: &Coordinator) {
        self.spend();
        self.phase = phase;
        match phase {
            Phase::Aligning => {
                let epoch = coordinator.committed().map_or(0, |decision| decision.epoch.next().0);
                self.current = Some(Current {
                    began: Instant::now(),
                    record: begun(epoch, coordinator.trigger().as_str()),
                });
            }
            // Nothing had changed.
            Phase::Running if before == Phase::Aligning => self.current = None,
            _ => {}
        }
    }

    /// The snapshot is written.
    pub fn durable(&mut self, snapshot: &str, written_bytes: u64, full_bytes: u64) {
        if let Some(Current { record, .. }) = &mut self.current {
            record.snapshot = Some(snapshot.to_owned());
            record.written_bytes = Some(written_bytes);
            record.full_bytes = Some(full_bytes);
        }
    }

    /// Its transaction is committed; `before` are the counts of the one before.
    pub fn committed(&mut self, decision: &Decision, before: Counts) -> Option<CheckpointRecord> {
        self.spend();
        let Current { began, mut record } = self.current.take()?;
        record.epoch = decision.epoch.0;
        record.duration_us = micros(began.elapsed());
        record.records_in = decision.counts.read.saturating_sub(before.read);
        record.records_out = decision.counts.out.saturating_sub(before.out);
        Some(record)
    }

    /// It will not be committed.
    pub fn failed(&mut self, reason: &str) -> Option<CheckpointRecord> {
        self.spend();
        let Current { began, mut record } = self.current.take()?;
        record.status = CheckpointStatus::Failed;
        record.duration_us = micros(began.elapsed());
        record.failure = Some(reason.to_owned());
        Some(record)
    }

    /// The time since the last call belongs to the present phase.
    fn spend(&mut self) {
        let now = Instant::now();
        let spent = micros(now - self.entered);
        self.entered = now;
        let Some(Current { record, .. }) = &mut self.current else { return };
        match self.phase {
            Phase::Aligning => record.alignment_us += spent,
            Phase::Firing => record.firing_us += spent,
            Phase::Freezing | Phase::SnapshottingCold => record.sync_us += spent,
            Phase::Preparing => record.async_us += spent,
            Phase::Deciding => record.commit_us += spent,
            _ => {}
        }
    }
}

fn begun(epoch: u64, trigger: &str) -> CheckpointRecord {
    CheckpointRecord {
        epoch,
        trigger: trigger.to_owned(),
        status: CheckpointStatus::Completed,
        started_ms: wall_clock_ms(),
        duration_us: 0,
        alignment_us: 0,
        firing_us: 0,
        sync_us: 0,
        async_us: 0,
        commit_us: 0,
        records_in: 0,
        records_out: 0,
        written_bytes: None,
        full_bytes: None,
        snapshot: None,
        failure: None,
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}
