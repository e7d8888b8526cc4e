//! One process: a coordinator, and the run that it has under way. Dropping it is kill -9.

use std::collections::VecDeque;

use onceflow_protocol::coordinator::{Coordinator, Effect, Event, Outcome, Phase, Restart, Settings};
use onceflow_protocol::{ClaimId, ErrorKind};

use crate::hazard::Hazard;
use crate::keeper::Keeper;
use crate::messages::{Mail, Outbox, ToKeeper, ToSink, ToWorker};
use crate::outside::Outside;
use crate::sink::Sink;
use crate::worker::{Shared, WorkerThread};

/// Time between two ticks of the driver, milliseconds.
const TICK_MS: u64 = 10;

/// A process.
pub struct Instance {
    /// Its number.
    pub process: u64,
    coordinator: Coordinator,
    settings: Settings,
    events: VecDeque<(u64, Event)>,
    run: Option<Run>,
    runs: u64,
    /// The ends of a bounded run.
    ends: Option<Vec<i64>>,
    generations: u64,
    unknown: Option<String>,
    ticked_ms: u64,
    /// Claims that were there when it first looked, and those that came before one of its own.
    found: Option<Vec<ClaimId>>,
    claims: Vec<ClaimId>,
    /// Another's claim that followed ours, and could be seen, when this start began.
    overlooked: Option<ClaimId>,
    fenced: bool,
    snapshot_failed: bool,
    pass_rows: u64,
    /// It stands still until then.
    pub paused_until_ms: u64,
    /// A stop was asked for.
    pub stopping: bool,
    /// It is to close all windows before it ends.
    draining: bool,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

struct Run {
    number: u64,
    sink: Sink,
    keeper: Keeper,
    workers: Vec<WorkerThread>,
    shared: Shared,
}

impl Instance {
    /// A process that starts now. `ends` makes it a bounded run.
    pub fn new(process: u64, settings: Settings, ends: Option<Vec<i64>>) -> Instance {
        Instance {
            process,
            coordinator: Coordinator::new(settings.clone()),
            settings,
            events: VecDeque::from([(0, Event::Start)]),
            run: None,
            runs: 0,
            ends,
            generations: 0,
            unknown: None,
            ticked_ms: 0,
            found: None,
            claims: vec![],
            overlooked: None,
            fenced: false,
            snapshot_failed: false,
            pass_rows: 0,
            paused_until_ms: 0,
            stopping: false,
            draining: false,
            outcome: None,
        }
    }

    /// Whether its restart strategy ever does.
    pub fn may_give_up(&self) -> bool {
        !matches!(self.settings.restart, Restart::Exponential { .. })
    }

    /// Where its coordinator stands.
    pub fn phase(&self) -> Phase {
        self.coordinator.phase()
    }

    /// Files that it is about to delete.
    pub fn deletes(&self) -> impl Iterator<Item = &String> {
        self.run.iter().flat_map(|run| run.keeper.deletes())
    }

    /// Stands still for a while, perhaps for longer than any time limit.
    pub fn pause(&mut self, outside: &mut Outside) {
        let short = outside.rng.chance(700);
        let ms = outside.rng.below(if short { 500 } else { 60_000 });
        self.paused_until_ms = outside.now_ms + ms;
        outside.coverage.hazard(Hazard::Pause);
        outside.say(self.process, || format!("stands still for {ms} ms"));
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.events.push_back((0, Event::Stop));
    }

    /// `stop --drain`.
    pub fn drain(&mut self) {
        self.stopping = true;
        self.draining = true;
        self.events.push_back((0, Event::Drain));
    }

    /// Somebody asks for a savepoint.
    pub fn savepoint(&mut self, name: String) {
        self.events.push_back((0, Event::Savepoint(name)));
    }

    /// One of its threads does one thing; whether there was any.
    pub fn step(&mut self, outside: &mut Outside) -> bool {
        let mut out = Outbox::new();
        let threads = 3 + self.run.as_ref().map_or(0, |run| run.workers.len());
        let done = match (outside.rng.index(threads), &mut self.run) {
            (0, _) => self.drive(outside),
            (1, Some(run)) => run.sink.step(outside, &mut run.shared, &mut out),
            (2, Some(run)) => run.keeper.step(outside, &mut out, &mut self.generations, &run.workers),
            (thread, Some(run)) => {
                run.workers[thread - 3].step(outside, &mut run.shared, &mut out, &mut self.generations)
            }
            (_, None) => false,
        };
        self.post(out, outside);
        done
    }

    fn post(&mut self, out: Outbox, outside: &mut Outside) {
        let Some(run) = &mut self.run else { return };
        for mail in out {
            match mail {
                Mail::Driver(event) => {
                    if let Event::AtBarrier(report) = &event {
                        let idle: Vec<_> =
                            run.workers[report.worker].idle(outside.config.idle_after_ms).collect();
                        for (partition, rightly) in idle {
                            if !rightly {
                                outside.violates(format!("partition {partition} counts as idle without a fetch that stood at its end for long enough"));
                            }
                            outside.coverage.row("an idle partition");
                            outside.judge.idle(partition);
                        }
                    }
                    if let Event::Fired(report) = &event {
                        self.pass_rows += report.output_bytes;
                    }
                    self.events.push_back((run.number, event));
                }
                Mail::Sink(message) => run.sink.inbox.push_back(message),
                Mail::Keeper(message) => run.keeper.inbox.push_back(message),
                Mail::Worker(worker, message) => run.workers[worker].inbox.push_back(message),
                Mail::Workers(workers) => run.workers = workers,
            }
        }
    }

    fn drive(&mut self, outside: &mut Outside) -> bool {
        if let Some((run, event)) = self.events.pop_front() {
            // What threads of a former run still say is not for this one.
            if run == 0 || run == self.runs {
                self.handle(event, outside);
            }
            return true;
        }
        if outside.now_ms < self.ticked_ms + TICK_MS {
            return false;
        }
        self.ticked_ms = outside.now_ms;
        let mut load = self.run.as_ref().map(|run| run.shared.load).unwrap_or_default();
        if let Some(run) = &self.run {
            load.pressure = outside.rng.chance(5);
            load.finished = !run.workers.is_empty() && run.workers.iter().all(WorkerThread::is_finished);
        }
        let before = self.phase();
        self.handle(Event::Tick(load), outside);
        before != self.phase()
    }

    fn handle(&mut self, event: Event, outside: &mut Outside) {
        let before = self.phase();
        // Zombies are made where the next effect is about to be asked for.
        if !matches!(event, Event::Tick(_)) && outside.rng.chance(outside.hazards.rate(Hazard::Pause) / 4) {
            self.pause(outside);
        }
        match &event {
            Event::ClaimsListed(claims) => self.found = Some(claims.clone()),
            // Compaction may take our own aborted claim away: what came before it must be remembered.
            Event::ClaimsSeen { before, .. } => {
                self.found.get_or_insert_default().extend(before.iter().cloned())
            }
            Event::Initialised(claim) => self.claims.push(claim.claim.clone()),
            Event::Failed(failure) => {
                self.fenced = failure.kind == ErrorKind::Fenced;
                self.unknown = self.run.as_ref().and_then(|run| run.sink.unknown.clone());
                outside
                    .say(self.process, || format!("in {before:?}: {:?}: {}", failure.kind, failure.message));
            }
            Event::SnapshotFailed(_) => self.snapshot_failed = true,
            _ => {}
        }
        let went_well = matches!(event, Event::AtBarrier(_) | Event::Committed(_));
        let effects = self.coordinator.handle(outside.now_ms, event);
        for effect in effects {
            self.perform(effect, before, outside);
        }
        let phase = self.phase();
        if went_well && phase == Phase::BackingOff {
            outside.coverage.row("a run ended for an added partition");
        }
        if phase != before {
            self.entered(before, phase, outside);
        }
    }

    fn entered(&mut self, before: Phase, phase: Phase, outside: &mut Outside) {
        outside.coverage.phase(before, phase);
        outside.say(self.process, || format!("{before:?} → {phase:?}"));
        if phase == Phase::Preflight && before != Phase::New {
            self.overlooked = outside.cluster.newest_claim().filter(|newest| {
                let place = |wanted: &ClaimId| {
                    outside.cluster.all_claims().position(|(claim, _)| claim.claim == *wanted)
                };
                let ours = self.claims.iter().filter_map(place).max();
                self.found.as_ref().is_some_and(|found| !found.contains(newest))
                    && !self.claims.contains(newest)
                    && place(newest) > ours
            });
        }
        if let (Phase::Fencing, Some(overlooked)) = (phase, &self.overlooked) {
            outside.violates(format!(
                "#{} starts again and fences, although {overlooked} was there to be seen",
                self.process
            ));
        }
        if phase == Phase::Fenced {
            outside.coverage.row("fenced by another, stopped");
        }
        if self.fenced && phase == Phase::Preflight {
            self.fenced = false;
            outside.coverage.row("fenced by our own time-out, started again");
        }
        if self.snapshot_failed && phase == Phase::BackingOff {
            outside.coverage.row("epoch given up after too many failed snapshots");
        }
        self.snapshot_failed &= phase == Phase::Preparing;
    }

    fn perform(&mut self, effect: Effect, before: Phase, outside: &mut Outside) {
        if let Effect::TearDown = effect {
            self.run = None;
            return;
        }
        if let Effect::End(outcome) = effect {
            outside.say(self.process, || format!("ends: {outcome:?}"));
            match (&outcome, &self.ends) {
                (Outcome::Done, _) if self.draining => outside.coverage.row("drained"),
                (Outcome::Done, Some(_)) if !self.stopping => outside.coverage.row("bounded run complete"),
                (Outcome::Done, _) => outside.coverage.row("stopped with a final checkpoint"),
                _ => {}
            }
            self.outcome = Some(outcome);
            return;
        }
        if self.run.is_none() {
            self.begin_run();
        }
        let Some(run) = &mut self.run else { return };
        let workers = |run: &mut Run, message: ToWorker| {
            run.workers.iter_mut().for_each(|worker| worker.inbox.push_back(message.clone()));
        };
        match effect {
            Effect::InitTransactions => run.sink.inbox.push_back(ToSink::Init),
            Effect::CommitClaim(claim) => run.sink.inbox.push_back(ToSink::Claim(claim)),
            Effect::CommitStart(decision) => {
                outside.coverage.row("first start");
                run.sink.inbox.push_back(ToSink::Start(decision));
            }
            Effect::Decide(decision) => run.sink.inbox.push_back(ToSink::Decide(decision)),
            Effect::Release => run.sink.inbox.push_back(ToSink::Release),
            Effect::Barrier => {
                run.shared.load = Default::default();
                self.pass_rows = 0;
                workers(run, ToWorker::Barrier);
            }
            Effect::Fire(firing) => {
                if self.ends.is_some() || self.draining {
                    outside.judge.bounded();
                }
                workers(run, ToWorker::Fire(firing));
            }
            Effect::Freeze { epoch, frontiers, hold } => {
                let left = |worker: &WorkerThread| {
                    matches!(worker.task.next_end(0, frontiers[0].fired), Ok(Some(_)))
                };
                if self.pass_rows >= self.settings.max_bytes && run.workers.iter().any(left) {
                    outside.coverage.row("a pass of windows was cut short");
                }
                workers(run, ToWorker::Freeze(epoch, frontiers, hold));
            }
            Effect::StopReading => workers(run, ToWorker::StopReading),
            Effect::Resume => workers(run, ToWorker::Resume),
            effect => {
                match &effect {
                    Effect::ImportSavepoint { .. } => outside.coverage.row("went back to a savepoint"),
                    Effect::Restore(decision)
                        if before == Phase::CommittingStart && !decision.discarded.is_empty() =>
                    {
                        outside.coverage.row("state discarded");
                    }
                    Effect::Restore(decision)
                        if before == Phase::Resolving
                            && self.settings.requests.asks()
                            && !decision.requests.is_empty() =>
                    {
                        outside.coverage.row("a request that had been applied was not applied again");
                    }
                    Effect::WriteSnapshot(draft) if !draft.attempt.ends_with("-0") => {
                        outside.coverage.row("snapshot written again after a failure");
                    }
                    Effect::DeleteFiles(_) if before == Phase::StartingWorkers => {
                        outside.coverage.row("orphans dropped")
                    }
                    Effect::DeleteFiles(_) => outside.coverage.row("kept snapshots retired"),
                    _ => {}
                }
                run.keeper.inbox.push_back(ToKeeper::Effect(effect));
            }
        }
    }

    fn begin_run(&mut self) {
        self.runs += 1;
        let workers = self.settings.workers;
        self.run = Some(Run {
            number: self.runs,
            sink: Sink::new(self.process, workers, self.settings.timeout_ms - 50),
            keeper: Keeper::new(self.process, self.runs, workers, self.ends.clone(), self.unknown.take()),
            workers: vec![],
            shared: Shared::default(),
        });
    }

    /// Dies, now.
    pub fn dies(self, hazard: Hazard, outside: &mut Outside) {
        outside.coverage.hazard(hazard);
        outside.say(self.process, || format!("dies in {:?}: {hazard:?}", self.phase()));
        if hazard == Hazard::PowerLoss {
            let rate = outside.hazards.rate(Hazard::TornWrite);
            let (rng, mut torn) = (&mut outside.rng, 0);
            outside.storage.lose_power(self.process, || {
                let tears = rng.chance(10 * rate);
                torn += u64::from(tears);
                tears
            });
            (0..torn).for_each(|_| outside.coverage.hazard(Hazard::TornWrite));
        }
    }
}
