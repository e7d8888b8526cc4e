//! The coordinator: the one authority on when an epoch ends, and on what happens after a failure.
//!
//! One coordinator lives as long as a pipeline in a process; a **run** is everything between two failures. It hears
//! [`Event`]s and answers with [`Effect`]s; it never blocks, and knows the time only as the `now_ms` handed to it (any monotonic
//! clock, milliseconds). The guarantee it keeps: outputs, input positions and state become visible through one Kafka
//! transaction, or not at all.
//!
//! ```text
//!                                                                  a savepoint
//!                                                                  ┌→ Importing ─┐
//!  New ─→ Preflight ─→ Listing ─→ Fencing ─→ Claiming ─→ Reading ─→ Tracing ─→ Resolving ─┐
//!          ↑     ↺ read again (or Fenced)                   │                     │        │ start offsets,
//!          │                                                │ a later claim       │        ↓ or a request
//!          │                                                ↓                     │  CommittingStart
//!          │                                             Fenced                   ↓        │
//!          │                                                ↑                 Restoring ←──┘
//!          │         nobody claimed after us                │ another's           │
//!          ├─────────────── Looking ────────────────────────┘                     ↓
//!          │                ↑    │ undecided                               StartingWorkers
//!          │                │    ↓                                                │
//!          └──────────── BackingOff ←── any failure of a run                      ↓
//!                                                              ┌──────────────→ Running ←────────┐
//!                                                     nothing  │                  │             │
//!                                                     changed  └────────────── Aligning         │
//!                                                                                 │             │
//!                                                                      ┌──────────┤             │
//!                                                                      ↓          │             │
//!                                                            ↺ each window        │             │
//!                                                                   Firing        │             │
//!                                                                      └──→ Freezing            │
//!                                                                      cold │     │             │
//!                                                                    changed↓     │             │
//!                                                             SnapshottingCold    │             │
//!                                                                           └─→ Preparing ─→ Deciding
//!
//!  BackingOff: also from Aligning and Deciding, without a failure, when a run ends because its sources have changed.
//!  Looking: also from Tracing, Importing, Resolving and Restoring, by a refusal; it stands unless another has claimed meanwhile. So
//!  does the restart strategy's giving up, by way of BackingOff.
//!  Ended: from anywhere; by a stop, a bounded run's end, a refusal, or a failure that would repeat.
//! ```
//!
//! What the command line asks of a start (a savepoint, state to discard) is decided once: in `CommittingStart`, with a request id
//! that every later decision carries on (`requests.rs`).
//!
//! Workers go on consuming from the end of `Freezing` (or `SnapshottingCold`) on; what they emit is held until the commit.
//! Rows and files pass the coordinator by: it orders what is done with them.

mod checkpoint;
mod events;
mod firing;
mod phase;
mod recovery;
mod requests;
mod settings;
mod start;

pub use events::*;
pub use firing::{Emit, Firing, OpenWindows, Pass, Reach, TimeInput, WindowedStep, source_reach};
pub use phase::{Phase, TRANSITIONS};
pub use requests::{Requests, Savepoint};
pub use settings::{Restart, Settings};

use crate::error::ErrorKind;
use crate::ids::ClaimId;
use crate::records::{Claim, Counts, Decision, Position};
use crate::time::Frontiers;

use checkpoint::Checkpoint;
use recovery::Recovery;

/// The state machine; see the module's drawing.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    phase: Phase,
    /// When the phase must be over, on the shell's clock; later it has failed, whatever it waits for.
    deadline_ms: Option<u64>,
    recovery: Recovery,
    /// The run's start, as far as it has got.
    start: start::Progress,
    /// The newest committed decision of this run, once known.
    base: Option<Decision>,
    /// Snapshots that must not be deleted, oldest first.
    kept: Vec<KeptSnapshot>,
    frontiers: Vec<Frontiers>,
    checkpoint: Checkpoint,
    /// A stop was asked for.
    stopping: bool,
    /// The run ends where every partition has reached its end: the source's, or where a drain found it.
    bounded: bool,
    /// A drain was asked for.
    draining: bool,
    /// A checkpoint was asked for.
    triggered: bool,
    /// The next checkpoint is this run's last one: a new run is to find what has been added to the sources.
    renewing: bool,
    /// Savepoints asked for since the last barrier.
    savepoints: Vec<String>,
    fenced_by: Option<String>,
}

impl Coordinator {
    /// A coordinator that waits for [`Event::Start`].
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator {
            recovery: Recovery::new(settings.restart),
            frontiers: vec![Frontiers::START; settings.steps.len()],
            bounded: settings.until_end,
            settings,
            phase: Phase::New,
            deadline_ms: None,
            start: start::Progress::default(),
            base: None,
            kept: vec![],
            checkpoint: Checkpoint::default(),
            stopping: false,
            draining: false,
            triggered: false,
            renewing: false,
            savepoints: vec![],
            fenced_by: None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Who took the shard, once [`Phase::Fenced`].
    pub fn fenced_by(&self) -> Option<&str> {
        self.fenced_by.as_deref()
    }

    /// The newest decision known to be committed.
    pub fn committed(&self) -> Option<&Decision> {
        self.base.as_ref()
    }

    /// Positions of the run, in the workers' numbering.
    pub fn positions(&self) -> &[Position] {
        &self.start.positions
    }

    /// Frontiers of the windowed steps, as of the newest barrier.
    pub fn frontiers(&self) -> &[Frontiers] {
        &self.frontiers
    }

    /// Why the newest checkpoint was begun.
    pub fn trigger(&self) -> Trigger {
        self.checkpoint.trigger
    }

    /// Takes an event in and says what to do. After [`Effect::End`] nothing more comes.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Effect> {
        let mut effects = vec![];
        if self.phase == Phase::Ended {
            return effects;
        }
        match event {
            Event::Start if self.phase == Phase::New => self.begin(now_ms, &mut effects),
            Event::Tick(load) => self.tick(now_ms, load, &mut effects),
            Event::Stop => self.stop(now_ms, &mut effects),
            Event::Drain => self.drain(&mut effects),
            Event::Abandon => self.end(Outcome::Abandoned, &mut effects),
            Event::Trigger => self.triggered = true,
            // A start looks anyway, and so does the next run after a failure.
            Event::SourcesChanged => self.renewing |= self.phase.has_workers(),
            Event::Savepoint(name) => {
                self.triggered = true;
                self.savepoints.push(name);
            }
            Event::Failed(failure) => self.fail(now_ms, failure, &mut effects),
            Event::Refused(reason) => self.refuse(now_ms, reason, &mut effects),
            event => {
                if let Err(event) = self.answer(now_ms, event, &mut effects) {
                    let message =
                        format!("an answer that nobody asked for in phase {:?}: {event:?}", self.phase);
                    self.fail(now_ms, Failure { kind: ErrorKind::Bug, message }, &mut effects);
                }
            }
        }
        effects
    }

    /// Answers to effects, each in the phase that asked for it.
    fn answer(&mut self, now_ms: u64, event: Event, effects: &mut Vec<Effect>) -> Result<(), Event> {
        match (self.phase, event) {
            (Phase::Preflight, Event::ControlTopicReady) => self.control_topic_ready(effects),
            (Phase::Preflight, Event::ClaimsListed(claims)) => {
                self.recovery.looked(claims);
                effects.push(Effect::ReadNewest);
            }
            (Phase::Preflight, Event::Newest { claim, decision }) => {
                self.newest(now_ms, claim, decision, effects)
            }
            (Phase::Preflight, Event::SavepointRead(result)) => self.savepoint_read(now_ms, result, effects),
            (Phase::Preflight, Event::Checked(result)) => self.checked(now_ms, result, effects),
            (Phase::Listing, Event::Listed(files)) => self.listed(now_ms, files, effects),
            (Phase::Fencing, Event::Initialised(claim)) => self.initialised(now_ms, claim, effects),
            (Phase::Claiming, Event::ClaimCommitted) => self.claimed(now_ms, effects),
            (Phase::Reading, Event::ControlRead(records)) => self.control_read(now_ms, records, effects),
            (Phase::Tracing, Event::Traces(traces)) => self.traced(now_ms, traces, effects),
            (Phase::Importing, Event::Imported(manifest)) => self.imported(now_ms, manifest, effects),
            (Phase::Resolving, Event::StartResolved { let_go, positions, topics }) => {
                self.start_resolved(now_ms, &let_go, positions, topics, effects)
            }
            (Phase::CommittingStart, Event::StartCommitted) => self.restore(now_ms, effects),
            (Phase::Restoring, Event::Restored(restored)) => self.restored(now_ms, *restored, effects),
            (Phase::StartingWorkers, Event::WorkersStarted) => self.workers_started(now_ms, effects),
            (Phase::Aligning, Event::AtBarrier(report)) => self.at_barrier(now_ms, report, effects),
            (Phase::Firing, Event::Fired(report)) => self.fired(now_ms, report, effects),
            (Phase::Freezing, Event::Frozen(report)) => self.frozen(now_ms, report, effects),
            (Phase::SnapshottingCold, Event::ColdSnapshotTaken) => self.cold_snapshot_taken(now_ms, effects),
            // The sink may be done before the last worker has frozen.
            (Phase::Freezing | Phase::SnapshottingCold | Phase::Preparing, Event::Flushed(epoch)) => {
                self.flushed(now_ms, epoch, effects)
            }
            (Phase::Preparing, Event::Durable { manifest, files }) => {
                self.durable(now_ms, manifest, files, effects)
            }
            (Phase::Preparing, Event::SnapshotFailed(reason)) => {
                self.snapshot_failed(now_ms, reason, effects)
            }
            (Phase::Deciding, Event::Committed(epoch)) => self.decision_committed(now_ms, epoch, effects),
            (Phase::Looking, Event::ClaimsSeen { before, after }) => {
                self.claims_seen(now_ms, before, &after, effects)
            }
            (_, event) => return Err(event),
        }
        Ok(())
    }

    fn tick(&mut self, now_ms: u64, load: Load, effects: &mut Vec<Effect>) {
        if self.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            if self.phase == Phase::BackingOff {
                return self.backed_off(now_ms, effects);
            }
            let message =
                format!("{:?} took longer than its time limit; what it waits for is left behind", self.phase);
            return self.fail(now_ms, Failure { kind: ErrorKind::EpochFailed, message }, effects);
        }
        match self.phase {
            Phase::Running => self.trigger_if_due(now_ms, load, effects),
            Phase::Preparing => self.write_again_if_due(now_ms, effects),
            _ => {}
        }
    }

    fn stop(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.stopping = true;
        match self.phase {
            Phase::Running => self.barrier(now_ms, Trigger::Stop, effects),
            phase if phase.has_workers() => {}
            // Nothing was consumed since the last decision that could still be committed.
            _ => self.end(Outcome::Done, effects),
        }
    }

    /// Ends as a bounded run does whose ends are where the workers stand now. A run that fails meanwhile is followed by one that ends
    /// where it begins.
    fn drain(&mut self, effects: &mut Vec<Effect>) {
        self.draining = true;
        self.bounded = true;
        if self.phase.has_workers() {
            effects.push(Effect::StopReading);
        } else if matches!(self.phase, Phase::New | Phase::Fenced) {
            self.end(Outcome::Done, effects);
        }
    }

    /// Enters a phase, which must be over within `limit_ms`.
    fn enter(&mut self, phase: Phase, now_ms: u64, limit_ms: Option<u64>) {
        // A transition that the drawing does not have is a bug of ours, and going on could publish a lie.
        assert!(self.phase.may_become(phase), "illegal transition {:?} → {phase:?}", self.phase);
        self.phase = phase;
        self.deadline_ms = limit_ms.map(|limit| now_ms + limit);
    }

    fn end(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.enter(Phase::Ended, 0, None);
        effects.push(Effect::TearDown);
        effects.push(Effect::End(outcome));
    }

    fn claim_id(&self) -> Option<&ClaimId> {
        self.start.claim.as_ref().map(|claim: &Claim| &claim.claim)
    }

    fn base_counts(&self) -> Counts {
        self.base.as_ref().map(|decision| decision.counts).unwrap_or_default()
    }
}
