//! The sink thread: the one owner of the producer, and the only one to make its blocking calls.
//!
//! Guarantee: everything that workers emit in an epoch, and the decision that ends it, is produced within one transaction; what
//! they emit after their barrier waits until the next one is open. A worker's messages come in order, so its barrier separates
//! the epochs; other workers' output of the epoch is taken meanwhile. What waits is bounded by the workers, who stop polling
//! their sources while too much is held ([`Load::held_bytes`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use onceflow_engine::output::{DEAD_LETTER_SINK, Output};
use onceflow_protocol::coordinator::Event;
use onceflow_protocol::{Claim, Decision, Epoch, ErrorKind};

use super::context::Context;
use super::kill_point::KillPoint;
use super::load::Load;
use super::messages::{DriverSender, ToSink, fail};
use crate::kafka::{KafkaError, OutRecord, SendError, TransactionalProducer};

/// How long the thread sleeps when there is nothing to do; the producer is polled at least this often.
const IDLE: Duration = Duration::from_millis(10);

/// State of the sink thread.
pub struct Sink {
    context: Arc<Context>,
    driver: DriverSender,
    load: Arc<Load>,
    inbox: Receiver<ToSink>,
    producer: Option<TransactionalProducer>,
    /// Workers that have reached the barrier of the open epoch, in their order.
    at_barrier: Vec<bool>,
    /// What arrived behind a worker's barrier.
    held: VecDeque<ToSink>,
    in_transaction: bool,
}

impl Sink {
    /// A sink for `workers` workers.
    pub fn new(
        context: Arc<Context>,
        driver: DriverSender,
        load: Arc<Load>,
        inbox: Receiver<ToSink>,
        workers: usize,
    ) -> Sink {
        let (at_barrier, held) = (vec![false; workers], VecDeque::new());
        Sink { context, driver, load, inbox, producer: None, at_barrier, held, in_transaction: false }
    }

    /// Runs until the run is over.
    pub fn run(mut self) {
        while !self.load.is_cancelled() {
            let result = match self.inbox.recv_timeout(IDLE) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let result = result.and_then(|()| self.producer.as_mut().map_or(Ok(()), TransactionalProducer::poll));
            if let Err(error) = result {
                fail(&self.driver, error.kind, error.to_string());
                break;
            }
        }
        if let Some(producer) = self.producer.take() {
            producer.abandon();
        }
    }

    fn handle(&mut self, message: ToSink) -> Result<(), KafkaError> {
        match message {
            ToSink::InitTransactions => self.init_transactions(),
            ToSink::CommitClaim(claim) => self.commit_claim(&claim),
            ToSink::CommitStart(decision) => self.commit_start(&decision),
            ToSink::Begin => self.begin(),
            ToSink::Output { worker, .. } | ToSink::Barrier { worker, .. } if self.at_barrier[worker] => {
                self.held.push_back(message);
                Ok(())
            }
            ToSink::Output { output, .. } => self.produce(output),
            ToSink::Barrier { worker, epoch } => self.barrier(worker, epoch),
            ToSink::Decide(decision) => self.decide(&decision),
            ToSink::Release => self.release(),
        }
    }

    fn init_transactions(&mut self) -> Result<(), KafkaError> {
        let context = &self.context;
        let mut producer = TransactionalProducer::create(
            &context.kafka,
            &context.transactional_id,
            context.transaction_timeout,
            &context.plan.output_topics,
            &context.control_topic,
        )?;
        producer.init_transactions(context.transaction_timeout + Duration::from_secs(30))?;
        self.producer = Some(producer);
        self.driver.event(Event::Initialised(Box::new(context.new_claim())));
        Ok(())
    }

    fn commit_claim(&mut self, claim: &Claim) -> Result<(), KafkaError> {
        self.begin()?;
        self.produce_control(Claim::KEY, &to_json(claim)?)?;
        self.commit()?;
        self.driver.event(Event::ClaimCommitted);
        Ok(())
    }

    fn commit_start(&mut self, decision: &Decision) -> Result<(), KafkaError> {
        self.begin()?;
        self.produce_control(Decision::KEY, &to_json(decision)?)?;
        self.commit()?;
        self.driver.event(Event::StartCommitted);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        self.producer()?.begin()?;
        self.in_transaction = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), KafkaError> {
        let limit = self.context.commit_timeout;
        self.in_transaction = false;
        self.producer()?.commit(limit)
    }

    /// Hands records to the client; a full queue is waited out, since no send may be silently absent.
    fn produce(&mut self, output: Output) -> Result<(), KafkaError> {
        let bytes = output.size_bytes();
        let shard_control = self.context.plan.output_topics.len();
        let producer = self.producer.as_mut().ok_or_else(no_producer)?;
        for record in output.records() {
            debug_assert!(record.topic() < shard_control || record.sink() == DEAD_LETTER_SINK);
            send(producer, &self.load, &OutRecord::from(record))?;
        }
        self.load.held_bytes.fetch_sub(bytes, Relaxed);
        Ok(())
    }

    fn produce_control(&mut self, key: &str, value: &[u8]) -> Result<(), KafkaError> {
        let timestamp = self.context.wall_clock_ms();
        let record = OutRecord::control(self.context.plan.output_topics.len(), self.context.shard, key, value, timestamp);
        let load = self.load.clone();
        send(self.producer()?, &load, &record)
    }

    fn barrier(&mut self, worker: usize, epoch: Epoch) -> Result<(), KafkaError> {
        self.at_barrier[worker] = true;
        if self.at_barrier.iter().all(|at| *at) {
            let limit = self.context.commit_timeout;
            self.producer()?.flush(limit)?;
            self.driver.event(Event::Flushed(epoch));
        }
        Ok(())
    }

    fn decide(&mut self, decision: &Decision) -> Result<(), KafkaError> {
        self.produce_control(Decision::KEY, &to_json(decision)?)?;
        let limit = self.context.commit_timeout;
        self.producer()?.flush(limit)?;
        KillPoint::AfterDecision.pass();
        self.commit()?;
        KillPoint::AfterCommit.pass();
        self.driver.event(Event::Committed(decision.epoch));
        Ok(())
    }

    /// Opens the next transaction and takes what was held, in order; a worker's next barrier holds it again.
    fn release(&mut self) -> Result<(), KafkaError> {
        self.at_barrier.fill(false);
        self.begin()?;
        for message in std::mem::take(&mut self.held) {
            self.handle(message)?;
        }
        Ok(())
    }

    fn producer(&mut self) -> Result<&mut TransactionalProducer, KafkaError> {
        self.producer.as_mut().ok_or_else(no_producer)
    }
}

fn send(producer: &mut TransactionalProducer, load: &Load, record: &OutRecord<'_>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err(SendError::QueueFull) if load.is_cancelled() => return Ok(()),
            Err(SendError::QueueFull) => {
                producer.poll()?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(SendError::Failed(error)) => return Err(error),
        }
    }
}

fn no_producer() -> KafkaError {
    KafkaError::bug("the producer was used before it was initialised")
}

fn to_json(record: &impl serde::Serialize) -> Result<Vec<u8>, KafkaError> {
    serde_json::to_vec(record).map_err(|error| KafkaError::bug(format!("a control record could not be written: {error}")))
}
