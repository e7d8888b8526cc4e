//! One seed from beginning to end: faults, then calm, then the question whether everything came out.

use onceflow_protocol::coordinator::{
    Fate, Outcome, Phase, Requests, Restart, Settings, TimeInput, WindowedStep,
};

use crate::coverage::Coverage;
use crate::engine::Plans;
use crate::hazard::{Hazard, Hazards};
use crate::instance::Instance;
use crate::kafka::{CONTROL, SOURCES, Txn};
use crate::outside::{Config, Outside};
use crate::rng::Rng;
use crate::row::{DELAY, FOLDED, Input, SHAPES, STEPS, Shape};

/// Chances that the processes get, between two in which the world may strike them.
const STRIKE_EVERY: u64 = 64;
/// Steps after which calm has not helped.
const PATIENCE: u64 = 400_000;
/// Savepoints of a seed, and requests of its operator: input that is read again and again would take for ever.
const SAVEPOINTS: u64 = 5;
const REQUESTS: u32 = 3;
/// Event time begins here, milliseconds.
const BASE: i64 = 1_000_000;

/// What a seed came to.
pub struct Report {
    /// What is wrong, if anything.
    pub violation: Option<String>,
    /// What was reached.
    pub coverage: Coverage,
    /// What happened, if asked for.
    pub trace: Vec<String>,
}

/// A source partition as its producers see it.
#[derive(Clone, Debug, Default)]
struct Feed {
    newest: i64,
    silent_until_ms: u64,
    txn: Option<Txn>,
}

struct World {
    outside: Outside,
    instances: Vec<Instance>,
    feeds: Vec<Feed>,
    left: u64,
    processes: u64,
    /// Savepoints asked for.
    savepoints: u64,
    /// The command line that processes are started with from now on.
    command: Requests,
    /// Steps in a row without anything done.
    idle: u64,
}

/// Runs one seed. With `plans` the engine computes, else a fold. A panic is a violation like any other.
pub fn run(seed: u64, plans: Option<Plans>, trace: bool) -> Report {
    let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_through(seed, plans, trace)));
    report.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Report {
            violation: Some(format!("a panic: {}", message.unwrap_or_default())),
            coverage: Coverage::default(),
            trace: vec![],
        }
    })
}

fn run_through(seed: u64, plans: Option<Plans>, trace: bool) -> Report {
    let mut rng = Rng::new(seed);
    let hazards = Hazards::draw(&mut rng);
    let config = Config {
        shape: SHAPES[rng.index(if plans.is_some() { SHAPES.len() } else { FOLDED })],
        sources: rng.between(1, 4) as usize,
        records: rng.between(10, 150),
        latest: rng.chance(300),
        idle_after_ms: rng.chance(500).then(|| rng.between(20, 300)),
        evictions: [0, 30, 100, 500][rng.index(4)],
        plans,
    };
    let feeds =
        vec![Feed { newest: BASE, ..Feed::default() }; rng.between(1, config.sources as u64) as usize];
    let left = config.records;
    let timeout_ms = settings(&config.shape, &mut rng.clone(), false).transaction_timeout_ms();
    let mut outside = Outside::new(config, rng, hazards, timeout_ms, trace);
    outside.partitions = feeds.len();
    let command = Requests { again: 0, ..Requests::default() };
    let mut world =
        World { outside, instances: vec![], feeds, left, processes: 0, savepoints: 0, command, idle: 0 };
    world.storm();
    world.calm();
    world.vandalise();
    let World { mut outside, .. } = world;
    outside.coverage.commits = outside.judge.commits;
    if outside.judge.last().is_some_and(|last| last.counts.late > 0) {
        outside.coverage.row("late records");
    }
    Report {
        violation: outside.violation,
        coverage: outside.coverage,
        trace: outside.trace.unwrap_or_default(),
    }
}

fn settings(shape: &Shape, rng: &mut Rng, bounded: bool) -> Settings {
    let first = WindowedStep {
        inputs: vec![TimeInput::Source(0)],
        lateness_ms: shape.lateness,
        emit: shape.emit(),
        granularity_ms: shape.granularity_ms(0),
    };
    let second = shape.second.map(|_| WindowedStep {
        inputs: vec![if shape.deduplicates { TimeInput::Source(0) } else { TimeInput::Step(0) }],
        lateness_ms: 0,
        emit: shape.emit_of(1),
        granularity_ms: shape.granularity_ms(1),
    });
    Settings {
        transactional_id: "sim.p.0".into(),
        sources: vec!["events".into()],
        renamed: vec![],
        steps: [first].into_iter().chain(second).collect(),
        workers: rng.between(1, 3) as usize,
        interval_ms: rng.between(5, 100),
        min_pause_ms: if rng.chance(200) { rng.below(100) } else { 0 },
        max_records: rng.between(5, 60),
        max_bytes: rng.between(2, 40),
        timeout_ms: if rng.chance(500) { 300 } else { 3000 },
        tolerable_failures: rng.below(3) as u32,
        retained: rng.between(1, 3) as usize,
        until_end: bounded,
        restart: restart(rng),
        requests: Requests::default(),
    }
}

/// Mostly the one that never gives up.
fn restart(rng: &mut Rng) -> Restart {
    match rng.below(12) {
        0 => Restart::None,
        1 => Restart::Fixed { attempts: rng.between(1, 4) as u32, delay_ms: rng.below(50) },
        2 => Restart::FailureRate {
            failures: rng.between(1, 4) as u32,
            per_ms: 5_000,
            delay_ms: rng.below(50),
        },
        _ => Restart::Exponential { initial_ms: 5, max_ms: 200 },
    }
}

impl World {
    /// Faults, until the input is written and for a while after.
    fn storm(&mut self) {
        let least = self.outside.rng.between(2_000, 8_000);
        let mut step = 0;
        while (self.left > 0 || step < least) && self.outside.violation.is_none() && step < 60_000 {
            if step % STRIKE_EVERY == 0 {
                self.strike();
            }
            self.step();
            step += 1;
        }
    }

    /// No more faults; what holds up is mended; whatever was not written yet comes now, and a last record that closes all windows.
    fn calm(&mut self) {
        self.outside.hazards.end();
        self.outside.say(0, || "--- calm".into());
        self.outside.storage_full_until_ms = 0;
        self.instances.iter_mut().for_each(|instance| instance.paused_until_ms = 0);
        for partition in 0..self.feeds.len() {
            self.end_transaction(partition);
        }
        while self.left > 0 {
            let partition = self.outside.rng.index(self.feeds.len());
            self.write(partition);
        }
        let newest = self.feeds.iter().map(|feed| feed.newest).max().unwrap_or(BASE);
        if self.outside.violation.is_some() {
            return;
        }
        // Who starts at the latest offset must have started before the last records come.
        let mut closed = false;
        for step in 0..PATIENCE {
            self.step();
            if self.outside.violation.is_some() {
                return;
            }
            if !closed && self.outside.judge.last().is_some() {
                closed = true;
                for partition in 0..self.feeds.len() {
                    let input = Input { key: 0, value: 0, ts: newest + 5000, in_bound: true };
                    self.outside.cluster.append_input(partition, None, input);
                }
            }
            if closed && step % 16 == 0 && self.is_complete(newest) {
                return;
            }
        }
        let phases: Vec<_> =
            self.instances.iter().map(|instance| (instance.process, instance.phase())).collect();
        let ends = self.ends();
        let judge = &self.outside.judge;
        let violation =
            format!("faults ended, but it does not get on: {phases:?}, ends {ends:?}, {}", judge.state());
        self.outside.violates(violation);
    }

    fn is_complete(&self, newest: i64) -> bool {
        self.outside.judge.is_complete(&self.ends(), newest + 1000)
    }

    fn ends(&self) -> Vec<i64> {
        let end = |partition| self.outside.cluster.log(SOURCES + partition).stable_end() as i64;
        (0..self.feeds.len()).map(end).collect()
    }

    /// An operator's mistakes, which a start must refuse.
    fn vandalise(&mut self) {
        if self.outside.violation.is_some() || !self.outside.rng.chance(200) {
            return;
        }
        self.instances.clear();
        self.outside.say(0, || "--- an operator's mistake".into());
        let last = self.outside.judge.last();
        let noted = self.outside.storage.confirmed.as_ref().map(|(_, requests)| requests);
        let again = format!(":{}", self.command.again);
        let applied = last.is_some_and(|last| last.requests.iter().any(|id| id.ends_with(&again)));
        if !applied || noted != last.map(|last| &last.requests) {
            // A request that was not applied, or that nobody notes to have been, would be applied now: it could get over the mistake, or
            // be decided before that is seen.
            self.command = Requests::default();
        }
        let manifest = last.and_then(|last| last.manifest.clone());
        let row = match self.outside.rng.below(6) {
            0 if self.outside.storage.confirmed.is_some() || self.outside.group_offsets => {
                self.outside.cluster.delete_control_topic();
                "lost control topic refused"
            }
            1 => {
                self.outside.topic_created += 1;
                "another source topic refused"
            }
            2 => {
                let Some(manifest) = manifest else { return };
                self.outside.storage.delete(&manifest.file);
                "missing snapshot refused"
            }
            3 => {
                let savepoint = Some("another's".to_owned());
                self.command = Requests { savepoint, ..Requests::default() };
                "unknown savepoint refused"
            }
            4 => {
                let Some(name) = self.outside.storage.savepoints.keys().next() else { return };
                let (savepoint, again) = (Some(name.clone()), REQUESTS + 1);
                self.command = Requests { savepoint, again, accept_repeats: true, ..Requests::default() };
                "a savepoint that is taken away refused"
            }
            _ => {
                let last = self.outside.judge.last();
                let repeats = self.outside.storage.savepoints.iter().find(|(_, savepoint)| {
                    last.is_some_and(|last| last.counts.out > savepoint.decision.counts.out)
                });
                let Some((name, _)) = repeats else { return };
                let savepoint = Some(name.clone());
                self.command = Requests { savepoint, again: REQUESTS + 1, ..Requests::default() };
                "going back without leave refused"
            }
        };
        self.start(false);
        for _ in 0..PATIENCE {
            self.step();
            if self.instances.first().is_some_and(|instance| instance.phase() == Phase::Importing) {
                self.outside.storage.savepoints.clear();
            }
            // One that gave up before was removed; a service manager starts another.
            match self.instances.first().and_then(|instance| instance.outcome.as_ref()) {
                None => continue,
                Some(Outcome::Refused(_)) => return self.outside.coverage.row(row),
                Some(other) => {
                    let other = format!("a start that had to be refused ended as {other:?}");
                    return self.outside.violates(other);
                }
            }
        }
        self.outside.violates("a start that had to be refused was not".into());
    }

    /// What befalls processes and the input.
    fn strike(&mut self) {
        let outside = &mut self.outside;
        for hazard in [Hazard::Crash, Hazard::PowerLoss] {
            if !self.instances.is_empty() && outside.rng.chance(outside.hazards.rate(hazard)) {
                let at = outside.rng.index(self.instances.len());
                self.instances.swap_remove(at).dies(hazard, outside);
            }
        }
        if !self.instances.is_empty() {
            let at = outside.rng.index(self.instances.len());
            if outside.rng.chance(outside.hazards.rate(Hazard::Pause)) {
                self.instances[at].pause(outside);
            }
            if !self.instances[at].stopping && outside.strikes(Hazard::Stop) {
                let drain = outside.rng.chance(300);
                let asked = if drain { "is asked to drain" } else { "is asked to stop" };
                outside.say(self.instances[at].process, || asked.into());
                if drain { self.instances[at].drain() } else { self.instances[at].stop() }
            }
        }
        if self.instances.len() < 3 && outside.strikes(Hazard::SecondInstance) {
            let bounded = self.outside.rng.chance(200);
            self.start(bounded);
        }
        if !self.instances.is_empty()
            && self.savepoints < SAVEPOINTS
            && self.outside.strikes(Hazard::SavepointAsked)
        {
            self.savepoints += 1;
            let at = self.outside.rng.index(self.instances.len());
            self.instances[at].savepoint(format!("p{}", self.savepoints));
        }
        if self.command.again < REQUESTS && self.outside.strikes(Hazard::Operator) {
            let names: Vec<String> = self.outside.storage.savepoints.keys().cloned().collect();
            let rng = &mut self.outside.rng;
            let savepoint = (!names.is_empty()).then(|| names[rng.index(names.len())].clone());
            if rng.chance(500) {
                self.instances.clear();
            }
            self.operate(savepoint);
        }
        self.operate_before_a_deletion();
        let outside = &mut self.outside;
        if outside.strikes(Hazard::ClockJump) {
            let ms = outside.rng.below(60_000);
            outside.now_ms += ms;
            outside.say(0, || format!("{ms} ms pass at once"));
        }
        if outside.hazards.rate(Hazard::Compaction) > 0 && outside.cluster.compact(&mut outside.rng) {
            outside.coverage.hazard(Hazard::Compaction);
        }
        if self.feeds.len() < outside.config.sources && outside.strikes(Hazard::PartitionAdded) {
            self.feeds.push(Feed { newest: BASE, ..Feed::default() });
            outside.partitions = self.feeds.len();
            outside.judge.added(self.feeds.len() - 1);
        }
        let partition = outside.rng.index(self.feeds.len());
        if outside.strikes(Hazard::SilentPartition) {
            self.feeds[partition].silent_until_ms = outside.now_ms + outside.rng.below(2000);
        }
        if self.feeds[partition].txn.is_none() && outside.strikes(Hazard::OpenSourceTransaction) {
            self.feeds[partition].txn = Some(outside.cluster.begin_foreign());
        } else if outside.rng.chance(300) {
            self.end_transaction(partition);
        }
    }

    /// An operator changes the command line, which is repeated from now on; who runs by then may go on.
    fn operate(&mut self, savepoint: Option<String>) {
        let outside = &mut self.outside;
        let steps = STEPS.iter().take(outside.config.shape.steps());
        let discard = steps.filter(|_| outside.rng.chance(300)).map(|step| step.to_string()).collect();
        let again = self.command.again + 1;
        self.command = Requests { savepoint, discard, again, accept_repeats: true };
        let command = &self.command;
        outside.say(0, || format!("--- from now on: {command:?}"));
        self.start(false);
    }

    /// The worst moment to go back: somebody stands still who is about to delete what the savepoint is a copy of.
    fn operate_before_a_deletion(&mut self) {
        if self.command.again >= REQUESTS || self.outside.hazards.rate(Hazard::Operator) == 0 {
            return;
        }
        let savepoints = &self.outside.storage.savepoints;
        let doomed = self.instances.iter().enumerate().find_map(|(at, instance)| {
            let copied = |file: &String| {
                let copy = savepoints.iter().find(|(_, savepoint)| savepoint.files.contains_key(file));
                copy.map(|(name, _)| (at, name.clone()))
            };
            instance.deletes().find_map(copied)
        });
        if let Some((at, name)) = doomed {
            self.outside.coverage.hazard(Hazard::Operator);
            self.instances[at].pause(&mut self.outside);
            self.operate(Some(name));
        }
    }

    fn end_transaction(&mut self, partition: usize) {
        if let Some(txn) = self.feeds[partition].txn.take() {
            let aborted =
                self.outside.strikes(Hazard::AbortedSourceTransaction) || self.outside.rng.chance(300);
            if aborted {
                self.outside.coverage.hazard(Hazard::AbortedSourceTransaction);
            }
            let fate = if aborted { Fate::Aborted } else { Fate::Committed };
            self.outside.cluster.end_foreign(partition, txn, fate);
        }
    }

    fn step(&mut self) {
        let done = match self.outside.rng.below(16) {
            0 => {
                let partition = self.outside.rng.index(self.feeds.len());
                let wakes = self.feeds[partition].silent_until_ms <= self.outside.now_ms;
                if self.left > 0 && wakes {
                    self.write(partition);
                }
                false
            }
            1 => {
                let outside = &mut self.outside;
                let timeouts = outside.cluster.timeouts;
                let done = outside.cluster.work(outside.now_ms, &mut outside.rng, &outside.hazards);
                if outside.cluster.timeouts > timeouts {
                    outside.coverage.hazard(Hazard::TransactionTimeout);
                    outside.say(0, || "the coordinator aborts a transaction that took too long".into());
                }
                if !done && outside.hazards.rate(Hazard::MarkersLate) > 0 {
                    outside.coverage.hazard(Hazard::MarkersLate);
                }
                done
            }
            2 | 3 => self.outside.deliver(),
            _ => return self.step_instances(),
        };
        self.pass(done);
    }

    fn step_instances(&mut self) {
        let now_ms = self.outside.now_ms;
        // Someone must be there who is neither fenced nor about to end: a service manager sees to that.
        let helps = |instance: &Instance| instance.phase() != Phase::Fenced && !instance.stopping;
        if self.instances.is_empty() || (!self.outside.hazards.on() && !self.instances.iter().any(helps)) {
            let calm = !self.outside.hazards.on();
            if calm && !self.instances.is_empty() {
                self.judge_fenced();
            }
            let bounded = !calm && self.outside.rng.chance(150);
            self.start(bounded);
        }
        let at = self.outside.rng.index(self.instances.len());
        let done = self.instances[at].paused_until_ms <= now_ms && self.instances[at].step(&mut self.outside);
        if let Some(outcome) = &self.instances[at].outcome {
            let process = self.instances[at].process;
            match outcome {
                Outcome::Done | Outcome::StoppedWithoutCheckpoint | Outcome::Abandoned => {
                    self.instances.swap_remove(at);
                }
                // A service manager starts another.
                Outcome::Failed(failure)
                    if failure.kind.restartable() && self.instances[at].may_give_up() =>
                {
                    self.outside.coverage.row("a restart strategy gave up");
                    self.instances.swap_remove(at);
                }
                Outcome::Refused(_)
                    if !self.outside.hazards.on()
                        && self.processes == process
                        && self.instances.len() == 1 => {}
                Outcome::Failed(_) | Outcome::Refused(_) => {
                    let violation = format!("#{process} ended: {outcome:?}");
                    self.outside.violates(violation);
                }
            }
        }
        self.pass(done);
    }

    /// Whoever made the newest claim and is still alive has no reason to think itself fenced.
    fn judge_fenced(&mut self) {
        let newest = self.outside.cluster.all_claims().filter(|(_, fate)| *fate == Fate::Committed).last();
        let newest = newest.map(|(claim, _)| claim.instance.clone());
        let owner = self.instances.iter().find(|instance| Some(format!("#{}", instance.process)) == newest);
        if let Some(owner) = owner.filter(|owner| owner.phase() == Phase::Fenced) {
            let violation = format!("#{} made the newest claim, but takes itself for fenced", owner.process);
            self.outside.violates(violation);
        }
    }

    /// Time goes on, and faster while nothing happens.
    fn pass(&mut self, done: bool) {
        self.idle = if done { 0 } else { self.idle + 1 };
        if self.outside.rng.chance(250) {
            self.outside.now_ms += 1;
        }
        if self.idle > 40 {
            self.outside.now_ms += (self.idle / 8).min(500);
        }
    }

    fn start(&mut self, bounded: bool) {
        self.processes += 1;
        let ends = bounded.then(|| self.ends());
        let outside = &mut self.outside;
        let mut settings = settings(&outside.config.shape, &mut outside.rng, bounded);
        settings.requests = self.command.clone();
        outside.say(self.processes, || {
            format!("starts with {} workers{}", settings.workers, if bounded { ", bounded" } else { "" })
        });
        if outside.cluster.log(CONTROL).end() > 0 && !self.instances.is_empty() {
            outside.coverage.hazard(Hazard::SecondInstance);
        }
        self.instances.push(Instance::new(self.processes, settings, ends));
    }

    /// One more record.
    fn write(&mut self, partition: usize) {
        self.left -= 1;
        let outside = &mut self.outside;
        let feed = &mut self.feeds[partition];
        feed.newest += outside.rng.below(30) as i64;
        if outside.strikes(Hazard::WatermarkJump) {
            feed.newest += outside.rng.below(1500) as i64;
        }
        let ts = if outside.strikes(Hazard::OldRecord) {
            feed.newest - outside.rng.between(50, 1000) as i64
        } else {
            feed.newest - outside.rng.below(DELAY as u64) as i64
        };
        let in_bound = ts >= feed.newest - DELAY;
        let key = outside.rng.below(5) as u8;
        let input = Input { key, value: outside.rng.below(100) as i64, ts, in_bound };
        let txn = feed.txn.filter(|_| outside.rng.chance(700));
        outside.cluster.append_input(partition, txn, input);
    }
}
