//! The driver: the coordinator's thread. It takes events in, hands effects to the threads of the run, and never blocks.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use onceflow_protocol::ErrorKind;
use onceflow_protocol::coordinator::{Coordinator, Effect, Event, Outcome, Phase};

use super::context::Context;
use super::keeper::Keeper;
use super::kill_point::KillPoint;
use super::load::Load;
use super::messages::{DriverSender, SavepointReply, ToDriver, ToKeeper, ToSink, ToWorker, fail};
use super::requests::{Answer, Request, Waiters};
use super::sink::Sink;
use super::status::Status;
use super::story;

/// The coordinator hears at least this often that time passes.
const TICK: Duration = Duration::from_millis(5);
/// How long the end of a run may take to note the last commit and to close its clients.
const FAREWELL: Duration = Duration::from_secs(10);

/// The threads of one run, and how to reach them.
struct Run {
    number: u64,
    load: Arc<Load>,
    sink: Sender<ToSink>,
    keeper: Sender<ToKeeper>,
    workers: Vec<Sender<ToWorker>>,
    threads: Vec<JoinHandle<()>>,
}

/// Runs a pipeline to its end. Blocks; the caller gives it a thread.
pub struct Driver {
    context: Arc<Context>,
    coordinator: Coordinator,
    status: Status,
    requests: Receiver<Request>,
    inbox: Receiver<(u64, ToDriver)>,
    outbox: Sender<(u64, ToDriver)>,
    run: Option<Run>,
    runs: u64,
    began: Instant,
    ticked: Instant,
    outcome: Option<Outcome>,
    story: story::Story,
    waiters: Waiters,
    /// Who waits for savepoints, by their names.
    waiting: Vec<(String, SavepointReply)>,
}

impl Driver {
    /// A driver for a pipeline that has not begun.
    pub fn new(context: Arc<Context>, status: Status, requests: Receiver<Request>) -> Driver {
        let (outbox, inbox) = unbounded();
        let now = Instant::now();
        Driver {
            coordinator: Coordinator::new(context.settings.clone()),
            story: story::Story::new(&context),
            context,
            status,
            requests,
            inbox,
            outbox,
            run: None,
            runs: 0,
            began: now,
            ticked: now,
            outcome: None,
            waiters: Waiters::default(),
            waiting: vec![],
        }
    }

    /// Runs until the coordinator has come to its end. In [`Phase::Fenced`] that is a request to stop.
    pub fn run(mut self) -> Outcome {
        self.handle(Event::Start);
        loop {
            self.context.pulse.fetch_add(1, Relaxed);
            if let Some(outcome) = self.outcome.take() {
                self.story.ended(&outcome);
                self.status.ended(&outcome);
                return outcome;
            }
            if let Ok(request) = self.requests.try_recv() {
                self.asked(request);
                continue;
            }
            match self.inbox.recv_timeout(TICK) {
                Ok((run, message)) if self.run.as_ref().is_some_and(|current| current.number == run) => {
                    match message {
                        ToDriver::Event(event) => self.handle(event),
                        ToDriver::Workers(workers) => self.set_workers(workers),
                    }
                }
                // Left behind by an earlier run.
                Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                let load = self.run.as_ref().map(|run| run.load.read()).unwrap_or_default();
                self.story.ticks(self.run.as_ref().map(|run| &*run.load));
                self.handle(Event::Tick(load));
            }
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            Request::Stop => self.handle(Event::Stop),
            Request::Drain => self.handle(Event::Drain),
            Request::Abandon => self.handle(Event::Abandon),
            Request::Checkpoint(waiter) if self.coordinator.phase().has_workers() => {
                self.waiters.asks(waiter);
                self.handle(Event::Trigger);
            }
            Request::Checkpoint(waiter) => {
                // Who has gone away needs no answer.
                let _ = waiter.send(Answer::NotRunning);
            }
            Request::Savepoint { reply, .. } if self.coordinator.phase() == Phase::Fenced => {
                let _ = reply.send(Err("another instance has taken over".to_owned()));
            }
            Request::Savepoint { name, reply } => {
                self.waiting.push((name.clone(), reply));
                self.handle(Event::Savepoint(name));
            }
            Request::Find(question) => {
                if let Some(run) = &self.run {
                    run.to_workers(|| ToWorker::Find(question.clone()));
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::ClaimCommitted => KillPoint::AfterClaim.pass(),
            Event::StartCommitted => KillPoint::AfterEpochZero.pass(),
            Event::Imported(_) => KillPoint::AfterImport.pass(),
            Event::Durable { .. } => KillPoint::AfterSnapshot.pass(),
            _ => {}
        }
        self.story.hears(&event, &self.coordinator);
        let before = self.coordinator.phase();
        let now_ms = self.began.elapsed().as_millis() as u64;
        let effects = self.coordinator.handle(now_ms, event);
        for effect in effects {
            self.story.asks(&effect, self.run.as_ref().map(|run| &*run.load));
            match effect {
                Effect::Barrier => self.waiters.begins(),
                Effect::Confirm(_) if self.waiters.wait() => self.tell_waiters(),
                _ => {}
            }
            self.perform(effect);
        }
        let phase = self.coordinator.phase();
        if phase != before {
            self.story.entered(phase, before, &self.coordinator);
            self.status.entered(phase, self.coordinator.fenced_by());
            match (before, phase) {
                (Phase::Aligning, Phase::Running) => {
                    let epoch = self.coordinator.committed().map_or(0, |decision| decision.epoch.0);
                    self.waiters.answers(&Answer::Unchanged(epoch));
                }
                (_, phase) if !phase.has_workers() && !self.waiters.is_empty() => {
                    let reason = self.why_over();
                    self.waiters.give_up(&reason);
                }
                _ => {}
            }
        }
    }

    fn why_over(&self) -> String {
        match &self.outcome {
            Some(Outcome::Failed(failure)) => failure.message.clone(),
            Some(Outcome::Refused(reason)) => reason.clone(),
            Some(_) => "the pipeline has ended".to_owned(),
            None => {
                let failure = self.context.view.read().last_failure;
                failure.map_or_else(|| "the pipeline starts again".to_owned(), |failure| failure.reason)
            }
        }
    }

    /// The checkpoint under way is committed, and the newest of the history.
    fn tell_waiters(&mut self) {
        if let Some(record) = self.context.history.newest(1).pop() {
            self.waiters.answers(&Answer::Completed(Box::new(record)));
        }
    }

    fn perform(&mut self, effect: Effect) {
        if let Effect::TearDown = effect {
            return self.tear_down();
        }
        if let Effect::End(outcome) = effect {
            self.outcome = Some(outcome);
            return;
        }
        if self.run.is_none() {
            self.run = self.start_run();
        }
        let Some(run) = &self.run else { return };
        match effect {
            Effect::InitTransactions => run.to_sink(ToSink::InitTransactions),
            Effect::CommitClaim(claim) => run.to_sink(ToSink::CommitClaim(claim)),
            Effect::CommitStart(decision) => run.to_sink(ToSink::CommitStart(decision)),
            Effect::Decide(decision) => run.to_sink(ToSink::Decide(decision)),
            Effect::Release => run.to_sink(ToSink::Release),
            Effect::Barrier => {
                run.load.barrier();
                run.to_workers(|| ToWorker::Barrier);
            }
            Effect::Fire(firing) => run.to_workers(|| ToWorker::Fire(firing)),
            Effect::Freeze { epoch, frontiers, hold } => {
                run.to_workers(|| ToWorker::Freeze { epoch, frontiers: frontiers.clone(), hold });
            }
            Effect::StopReading => run.to_workers(|| ToWorker::StopReading),
            Effect::Resume => run.to_workers(|| ToWorker::Resume),
            Effect::MakeSavepoint { name, decision } => {
                let at = self.waiting.iter().position(|(waiting, _)| *waiting == name);
                let reply = at.map(|at| self.waiting.swap_remove(at).1);
                let _ = run.keeper.send(ToKeeper::Savepoint { name, decision, reply });
            }
            effect => {
                if let Effect::WriteSnapshot(_) = effect {
                    KillPoint::BeforeSnapshot.pass();
                }
                let _ = run.keeper.send(ToKeeper::Effect(effect));
            }
        }
    }

    /// The threads of a new run; workers come with their state, later.
    fn start_run(&mut self) -> Option<Run> {
        self.runs += 1;
        let driver = DriverSender::new(self.runs, self.outbox.clone());
        let load = Arc::new(Load::new(self.context.plan.sinks.len()));
        let (sink, sink_inbox) = unbounded();
        let (keeper, keeper_inbox) = unbounded();
        let workers = self.context.settings.workers;
        let sink_thread = Sink::new(self.context.clone(), driver.clone(), load.clone(), sink_inbox, workers);
        let keeper_thread = Keeper::new(
            self.context.clone(),
            driver.clone(),
            load.clone(),
            keeper_inbox,
            keeper.clone(),
            sink.clone(),
        );
        let threads = [
            spawn("sink", &driver, move || sink_thread.run()),
            spawn("keeper", &driver, move || keeper_thread.run()),
        ];
        let mut run = Run { number: self.runs, load, sink, keeper, workers: vec![], threads: vec![] };
        for thread in threads {
            match thread {
                Ok(thread) => run.threads.push(thread),
                Err(error) => {
                    fail(&driver, ErrorKind::Retry, format!("no thread could be started: {error}"));
                }
            }
        }
        Some(run)
    }

    fn set_workers(&mut self, workers: Vec<Sender<ToWorker>>) {
        if let Some(run) = &mut self.run {
            run.workers = workers;
        }
    }

    /// Lets go of everything of the run. Its threads end by themselves; one that is stuck in a call is left behind, harmless
    /// once its producer is fenced. Only at the very end is there a wait, for the notes about the last commit.
    fn tear_down(&mut self) {
        self.waiting.clear();
        let Some(mut run) = self.run.take() else { return };
        let threads = std::mem::take(&mut run.threads);
        drop(run);
        if self.coordinator.phase() == Phase::Ended {
            let deadline = Instant::now() + FAREWELL;
            while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
                self.context.pulse.fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Run {
    fn to_sink(&self, message: ToSink) {
        // A thread that is gone has told why.
        let _ = self.sink.send(message);
    }

    fn to_workers(&self, message: impl Fn() -> ToWorker) {
        for worker in &self.workers {
            let _ = worker.send(message());
        }
    }
}

/// However a run ends, by a panic of its driver too: its threads must not go on without anyone who decides.
impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.keeper.send(ToKeeper::End);
        self.load.cancelled.store(true, Relaxed);
    }
}

/// A named thread of a run. Should it panic, which only a broken invariant of ours makes it do, the pipeline is stopped; others
/// go on.
pub fn spawn(
    name: &str,
    driver: &DriverSender,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let (thread, driver) = (name.to_string(), driver.clone());
    std::thread::Builder::new().name(name.to_string()).spawn(move || {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
            let what = said(panic.as_ref());
            fail(&driver, ErrorKind::Bug, format!("a broken invariant stopped thread {thread}: {what}"));
        }
    })
}

/// What a panic said; where it happened is on standard error.
pub fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no more is known")
}

#[cfg(test)]
mod tests {
    use super::*;
    use onceflow_protocol::coordinator::Failure;

    #[test]
    fn a_panic_of_a_thread_becomes_a_failure_of_its_run() {
        let (sender, inbox) = unbounded();
        let driver = DriverSender::new(7, sender);
        let thread = spawn("worker-3", &driver, || panic!("row {} of {}", 5, 4)).unwrap();
        thread.join().unwrap();
        let Ok((7, ToDriver::Event(Event::Failed(Failure { kind, message })))) = inbox.try_recv() else {
            panic!("nobody was told");
        };
        assert_eq!(kind, ErrorKind::Bug);
        assert_eq!(message, "a broken invariant stopped thread worker-3: row 5 of 4");
    }

    #[test]
    fn a_run_that_is_dropped_stops_its_threads() {
        let load = Arc::new(Load::new(0));
        let ((sink, _), (keeper, inbox)) = (unbounded(), unbounded());
        drop(Run { number: 1, load: load.clone(), sink, keeper, workers: vec![], threads: vec![] });
        assert!(load.is_cancelled());
        assert!(matches!(inbox.try_recv(), Ok(ToKeeper::End)));
    }
}
