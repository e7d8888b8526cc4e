//! The sink thread of the simulation: the one owner of the producer. Its blocking calls take steps, during which anything may happen.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use onceflow_protocol::coordinator::Event;
use onceflow_protocol::planted::{Planted, is_planted};
use onceflow_protocol::{Claim, Decision, Epoch, EpochGate, ErrorKind};

use crate::hazard::Hazard;
use crate::kafka::{CONTROL, OUTPUTS, Produce, Refusal, Request, SOURCES, Value};
use crate::messages::{Mail, Outbox, ToSink};
use crate::outside::Outside;
use crate::row::Row;
use crate::worker::Shared;

/// The sink of one run.
pub struct Sink {
    process: u64,
    /// The limit of a flush or a commit, milliseconds.
    limit_ms: u64,
    /// Messages to it.
    pub inbox: VecDeque<ToSink>,
    epoch: u32,
    sequences: Vec<u64>,
    unanswered: BTreeSet<u64>,
    gate: EpochGate<ToSink>,
    call: Option<Call>,
    /// The decision of a commit whose outcome is unknown.
    pub unknown: Option<String>,
    /// It failed, or hangs.
    over: bool,
}

/// A blocking call.
#[derive(Clone, Debug)]
struct Call {
    what: What,
    deadline_ms: u64,
}

#[derive(Clone, Debug)]
enum What {
    Init,
    Flush(Epoch),
    Commit { answer: Event, decision: Option<Box<Decision>> },
}

impl Sink {
    /// A sink for so many workers.
    pub fn new(process: u64, workers: usize, limit_ms: u64) -> Sink {
        Sink {
            process,
            limit_ms,
            inbox: VecDeque::new(),
            epoch: 0,
            sequences: vec![0; SOURCES],
            unanswered: BTreeSet::new(),
            gate: EpochGate::new(workers),
            call: None,
            unknown: None,
            over: false,
        }
    }

    /// Does one thing; whether there was any.
    pub fn step(&mut self, outside: &mut Outside, shared: &mut Shared, out: &mut Outbox) -> bool {
        if self.over {
            return false;
        }
        if self.answers(outside, out) {
            return true;
        }
        if let Some(call) = self.call.clone() {
            return self.go_on(call, outside, out);
        }
        let Some(message) = self.inbox.pop_front() else { return false };
        if let (ToSink::Output(..) | ToSink::Decide(_), true) = (&message, outside.strikes(Hazard::QueueFull))
        {
            if let (ToSink::Decide(decision), true) = (&message, is_planted(Planted::RefusedDecisionIgnored))
            {
                return self.commit(Event::Committed(decision.epoch), Some(decision.clone()), outside);
            }
            // The client's queue is full: wait, and hand the same record over again.
            self.inbox.push_front(message);
            return false;
        }
        self.handle(message, outside, shared);
        true
    }

    fn handle(&mut self, message: ToSink, outside: &mut Outside, shared: &mut Shared) {
        match message {
            ToSink::Init => self.call(What::Init, outside, 40_000),
            ToSink::Claim(claim) => {
                self.produce(CONTROL, vec![Value::Claim(Rc::new(*claim))], outside);
                self.commit(Event::ClaimCommitted, None, outside);
            }
            ToSink::Start(decision) => {
                self.produce(CONTROL, vec![Value::Decision(Rc::new(*decision.clone()))], outside);
                self.commit(Event::StartCommitted, Some(decision), outside);
            }
            ToSink::Output(worker, _) | ToSink::Barrier(worker, _) => {
                match self.gate.admit(worker, message) {
                    Some(ToSink::Output(_, rows)) => {
                        shared.held -= rows.len();
                        self.output(rows, outside);
                    }
                    Some(ToSink::Barrier(worker, epoch)) if self.gate.at_barrier(worker) => {
                        self.call(What::Flush(epoch), outside, self.limit_ms);
                    }
                    _ => {}
                }
            }
            ToSink::Decide(decision) => {
                if !is_planted(Planted::DecisionOutsideTransaction) {
                    self.produce(CONTROL, vec![Value::Decision(Rc::new(*decision.clone()))], outside);
                }
                self.commit(Event::Committed(decision.epoch), Some(decision), outside);
            }
            ToSink::Release => {
                // What was held comes before what arrived since.
                for message in self.gate.open_next().into_iter().rev() {
                    self.inbox.push_front(message);
                }
            }
        }
    }

    fn output(&mut self, rows: Vec<Row>, outside: &mut Outside) {
        for log in OUTPUTS {
            let belongs = |row: &&Row| match row {
                Row::Result { key, .. } => OUTPUTS.start + usize::from(*key) % OUTPUTS.len() == log,
                Row::Late { .. } | Row::Kept { .. } => log == OUTPUTS.start,
            };
            let values: Vec<Value> = rows.iter().filter(belongs).map(|row| Value::Row(*row)).collect();
            if !values.is_empty() {
                self.produce(log, values, outside);
            }
        }
    }

    fn produce(&mut self, log: usize, values: Vec<Value>, outside: &mut Outside) {
        let id = outside.fresh();
        let sequence = self.sequences[log];
        self.sequences[log] += 1;
        self.unanswered.insert(id);
        outside.send(Produce { id, epoch: self.epoch, log, sequence, values: Rc::new(values) });
    }

    fn call(&mut self, what: What, outside: &mut Outside, limit_ms: u64) {
        self.call = Some(Call { what, deadline_ms: outside.now_ms + limit_ms });
    }

    fn commit(&mut self, answer: Event, decision: Option<Box<Decision>>, outside: &mut Outside) -> bool {
        self.call(What::Commit { answer, decision }, outside, self.limit_ms);
        true
    }

    /// Answers to produce requests. One that was refused fails the run.
    fn answers(&mut self, outside: &mut Outside, out: &mut Outbox) -> bool {
        let mut refused = false;
        let mut any = false;
        outside.cluster.answers.retain(|(id, answer)| {
            let ours = self.unanswered.remove(id);
            any |= ours;
            refused |= ours && answer.is_err();
            !ours
        });
        if refused {
            self.fail(ErrorKind::Fenced, "a produce request was refused", out);
        }
        any
    }

    fn go_on(&mut self, call: Call, outside: &mut Outside, out: &mut Outbox) -> bool {
        if outside.strikes(Hazard::CallHangs) {
            outside.coverage.row("a call did not return");
            outside.say(self.process, || format!("{:?} hangs", call.what));
            self.over = true;
            return true;
        }
        let late = outside.now_ms >= call.deadline_ms;
        match call.what {
            What::Init if late => self.fail(ErrorKind::Retry, "init_transactions took too long", out),
            What::Init => return self.init(outside, out),
            _ if !self.unanswered.is_empty() => match late {
                // Before the commit was sent, nothing can have been committed.
                true => self.fail(ErrorKind::EpochFailed, "records were not acknowledged in time", out),
                false => return false,
            },
            What::Flush(epoch) => {
                self.call = None;
                out.push_back(Mail::Driver(Event::Flushed(epoch)));
            }
            What::Commit { answer, decision } => return self.end(answer, decision, late, outside, out),
        }
        true
    }

    fn init(&mut self, outside: &mut Outside, out: &mut Outbox) -> bool {
        match outside.cluster.init() {
            Err(_) => false,
            Ok(_) if outside.strikes(Hazard::AnswerLost) => {
                self.fail(ErrorKind::Retry, "the answer to init_transactions was lost", out);
                true
            }
            Ok(epoch) => {
                self.epoch = epoch;
                self.sequences.fill(0);
                self.call = None;
                let claim = outside.claim_id(self.process);
                outside.say(self.process, || format!("fences with producer epoch {epoch}, {claim}"));
                out.push_back(Mail::Driver(Event::Initialised(Box::new(Claim {
                    version: onceflow_protocol::FORMAT_VERSION,
                    claim,
                    instance: format!("#{}", self.process),
                    host: "sim".into(),
                    started_ms: 0,
                    transactional_id: "sim.p.0".into(),
                }))));
                true
            }
        }
    }

    /// EndTxn, with everything that may become of it.
    fn end(
        &mut self,
        answer: Event,
        decision: Option<Box<Decision>>,
        late: bool,
        outside: &mut Outside,
        out: &mut Outbox,
    ) -> bool {
        let lost = late || outside.strikes(Hazard::RequestLost);
        let delayed = !lost && outside.strikes(Hazard::RequestDelayed);
        if delayed {
            let due = outside.now_ms + outside.rng.below(5000);
            outside.cluster.network.push((due, Request::Commit(self.epoch)));
        }
        if lost || delayed {
            self.outcome_unknown(
                answer,
                decision,
                "outcome of a commit unknown, and it was not",
                outside,
                out,
            );
            return true;
        }
        match outside.commit(self.epoch) {
            Err(Refusal::Busy) => return false,
            Err(Refusal::Fenced) => self.fail(ErrorKind::Fenced, "commit_transaction was fenced", out),
            Ok(()) => {
                if let (Some(decision), true) = (&decision, is_planted(Planted::DecisionOutsideTransaction)) {
                    outside.cluster.append_outside(CONTROL, Value::Decision(Rc::new((**decision).clone())));
                }
                if outside.strikes(Hazard::AnswerLost) {
                    self.outcome_unknown(
                        answer,
                        decision,
                        "outcome of a commit unknown, and it was committed",
                        outside,
                        out,
                    );
                } else {
                    outside.say(self.process, || format!("commits: {answer:?}"));
                    self.call = None;
                    out.push_back(Mail::Driver(answer));
                }
            }
        }
        true
    }

    fn outcome_unknown(
        &mut self,
        answer: Event,
        decision: Option<Box<Decision>>,
        row: &'static str,
        outside: &mut Outside,
        out: &mut Outbox,
    ) {
        outside.coverage.row(row);
        outside.say(self.process, || format!("{row}: {answer:?}"));
        if is_planted(Planted::UnknownTakenAsCommitted) {
            self.call = None;
            out.push_back(Mail::Driver(answer));
            return;
        }
        self.unknown = decision.map(|decision| decision.attempt);
        self.fail(ErrorKind::OutcomeUnknown, "commit_transaction failed", out);
    }

    fn fail(&mut self, kind: ErrorKind, message: &str, out: &mut Outbox) {
        self.over = true;
        self.call = None;
        out.push_back(Mail::failed(kind, message));
    }
}
