//! The sink thread: the one owner of the producer, and the only one to make its blocking calls.
//!
//! Guarantee: everything that workers emit in an epoch, and the decision that ends it, is produced within one transaction; what
//! they emit after their barrier waits until the next one is open. A worker's messages come in order, so its barrier separates
//! the epochs; other workers' output of the epoch is taken meanwhile. What waits is bounded by the workers, who stop polling
//! their sources while too much is held ([`Load::held_bytes`]).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use onceflow_engine::output::Output;
use onceflow_protocol::coordinator::Event;
use onceflow_protocol::{Claim, Decision, Epoch, EpochGate};

use super::context::{Context, SHARD, SINKS, wall_clock_ms};
use super::kill_point::KillPoint;
use super::load::Load;
use super::messages::{DriverSender, ToSink, fail};
use crate::kafka::{
    Admin, KafkaError, OutRecord, ProducerSettings, SendError, TopicRef, TransactionalProducer,
};

/// How long the thread sleeps when there is nothing to do; the producer is polled at least this often.
const IDLE: Duration = Duration::from_millis(10);
/// Time limit of a question to the brokers.
const CALL: Duration = Duration::from_secs(30);

/// State of the sink thread.
pub struct Sink {
    context: Arc<Context>,
    driver: DriverSender,
    load: Arc<Load>,
    inbox: Receiver<ToSink>,
    producer: Option<TransactionalProducer>,
    /// The plan's output topics, then the control topic.
    topics: Vec<TopicRef>,
    /// Holds what arrives behind a worker's barrier.
    gate: EpochGate<ToSink>,
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
        let gate = EpochGate::new(workers);
        Sink { context, driver, load, inbox, producer: None, topics: vec![], gate }
    }

    /// Runs until the run is over.
    pub fn run(mut self) {
        while !self.load.is_cancelled() {
            let result = match self.inbox.recv_timeout(IDLE) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let result = result.and_then(|()| {
                self.producer.as_mut().map_or(Ok(()), |producer| producer.poll(Duration::ZERO))
            });
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
            ToSink::Output { worker, .. } | ToSink::Barrier { worker, .. } => {
                match self.gate.admit(worker, message) {
                    Some(ToSink::Output { output, .. }) => self.produce(output),
                    Some(ToSink::Barrier { worker, epoch }) => self.barrier(worker, epoch),
                    _ => Ok(()),
                }
            }
            ToSink::Decide(decision) => self.decide(&decision),
            ToSink::Release => self.release(),
        }
    }

    fn init_transactions(&mut self) -> Result<(), KafkaError> {
        let context = self.context.clone();
        let connection = &context.connections[SINKS];
        let admin = Admin::open(connection)?;
        let outputs = context.plan.output_topics.iter().map(|topic| &topic.name);
        let topics: Vec<_> = outputs.chain([&context.control_topic]).collect();
        let limits: Vec<_> =
            topics.iter().map(|topic| admin.topic_limits(topic, CALL)).collect::<Result<_, _>>()?;
        let settings =
            ProducerSettings::new(&context.transactional_id, context.transaction_timeout(), &limits);
        let mut producer = TransactionalProducer::create(connection, &settings)?;
        if self.load.is_cancelled() {
            // This run was given up: fencing now would hit its successor.
            return Ok(());
        }
        producer.init_transactions(context.transaction_timeout() + CALL)?;
        self.topics = topics.iter().map(|topic| producer.topic(topic)).collect::<Result<_, _>>()?;
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
        self.producer()?.begin()
    }

    fn commit(&mut self) -> Result<(), KafkaError> {
        let limit = self.context.commit_timeout();
        self.producer()?.commit(limit)
    }

    fn produce(&mut self, output: Output) -> Result<(), KafkaError> {
        let bytes = output.size_bytes();
        let producer = self.producer.as_mut().ok_or_else(no_producer)?;
        let mut headers = Vec::new();
        for record in output.records() {
            headers.clear();
            headers.extend(record.headers());
            let (key, value) = (record.key(), record.value());
            // The engine says 0 where a dead letter's own timestamp would be refused: it gets the present.
            let timestamp = if record.timestamp() == 0 { wall_clock_ms() } else { record.timestamp() };
            let topic = self.topics[record.topic()];
            let partition = record.partition();
            let record = OutRecord { topic, partition, key, value, timestamp, headers: &headers };
            send(producer, &self.load, &record)?;
        }
        self.load.held_bytes.fetch_sub(bytes, Relaxed);
        Ok(())
    }

    fn produce_control(&mut self, key: &str, value: &[u8]) -> Result<(), KafkaError> {
        let topic = *self.topics.last().ok_or_else(no_producer)?;
        let record = OutRecord {
            topic,
            partition: Some(SHARD as i32),
            key: Some(key.as_bytes()),
            value: Some(value),
            timestamp: wall_clock_ms(),
            headers: &[],
        };
        let load = self.load.clone();
        send(self.producer()?, &load, &record)
    }

    fn barrier(&mut self, worker: usize, epoch: Epoch) -> Result<(), KafkaError> {
        if self.gate.at_barrier(worker) {
            let limit = self.context.commit_timeout();
            self.producer()?.flush(limit)?;
            self.driver.event(Event::Flushed(epoch));
        }
        Ok(())
    }

    fn decide(&mut self, decision: &Decision) -> Result<(), KafkaError> {
        self.produce_control(Decision::KEY, &to_json(decision)?)?;
        let limit = self.context.commit_timeout();
        self.producer()?.flush(limit)?;
        KillPoint::AfterDecision.pass();
        self.commit()?;
        KillPoint::AfterCommit.pass();
        self.driver.event(Event::Committed(decision.epoch));
        Ok(())
    }

    /// Opens the next transaction and takes what was held, in order; a worker's next barrier holds it again.
    fn release(&mut self) -> Result<(), KafkaError> {
        self.begin()?;
        for message in self.gate.open_next() {
            self.handle(message)?;
        }
        Ok(())
    }

    fn producer(&mut self) -> Result<&mut TransactionalProducer, KafkaError> {
        self.producer.as_mut().ok_or_else(no_producer)
    }
}

/// Hands a record to the client; a full queue is waited out, since no send may be silently absent.
fn send(producer: &mut TransactionalProducer, load: &Load, record: &OutRecord<'_>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            // A run that is over commits nothing any more.
            Err(SendError::QueueFull) if load.is_cancelled() => return Ok(()),
            Err(SendError::QueueFull) => producer.poll(Duration::from_millis(1))?,
            Err(SendError::Failed(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

fn no_producer() -> KafkaError {
    KafkaError::bug("produce", "the producer was used before it was initialised")
}

fn to_json(record: &impl serde::Serialize) -> Result<Vec<u8>, KafkaError> {
    serde_json::to_vec(record).map_err(|error| KafkaError::bug("write a control record", error.to_string()))
}
