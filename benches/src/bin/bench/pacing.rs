//! The two ends of the latency's measurement: a producer that keeps to a schedule, and a reader of the answers.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message};

use crate::answers::{Cleaned, reader, user};
use crate::cases::Case;
use crate::latency::PATIENCE;

/// How long the reader looks for answers that should not be there.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Milliseconds since 1970.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// When orders are due: evenly, from an instant on.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// When the first is.
    pub began: Instant,
    /// The same on the wall clock, milliseconds.
    began_ms: i64,
    rate: u32,
}

impl Schedule {
    /// A schedule of so many orders a second that begins now.
    pub fn now(rate: u32) -> Schedule {
        Schedule { began: Instant::now(), began_ms: wall_clock_ms(), rate }
    }

    /// When an order is.
    pub fn due(&self, id: i64) -> Instant {
        self.began + Duration::from_nanos(id as u64 * 1_000_000_000 / u64::from(self.rate))
    }

    /// What the order says itself, milliseconds.
    pub fn time_ms(&self, id: i64) -> i64 {
        self.began_ms + id * 1000 / i64::from(self.rate)
    }

    /// Orders due before then.
    pub fn before(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.began);
        (since.as_nanos() * u128::from(self.rate)).div_ceil(1_000_000_000) as i64
    }
}

/// The answer to an order.
pub struct Answer {
    /// When it was read.
    pub arrived: Instant,
    /// What it says.
    pub user: u32,
    /// What it says.
    pub cents: i64,
    /// What it says, milliseconds.
    pub time: i64,
}

/// Notes how long after their due times the orders are in Kafka: no contender can be faster than that.
struct Acknowledgements {
    schedule: Schedule,
    /// Numbers of orders, milliseconds.
    written: Mutex<Vec<(i64, f64)>>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    /// The order's number.
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<i64>) {
        // What is not delivered is missed in the answers.
        if result.is_ok() {
            let late_ms = self.schedule.due(*id).elapsed().as_secs_f64() * 1e3;
            self.written.lock().unwrap_or_else(PoisonError::into_inner).push((*id, late_ms));
        }
    }
}

/// Sends the orders as they become due. When each was in Kafka: its number, milliseconds after it was due.
///
/// # Errors
/// If Kafka does not take them.
pub fn produce(
    bootstrap: &str,
    topic: &str,
    case: &Case,
    schedule: Schedule,
    end: &AtomicI64,
) -> Result<Vec<(i64, f64)>> {
    let context = Acknowledgements { schedule, written: Mutex::default() };
    // With a thread of its own that hears of acknowledgements at once.
    let producer: ThreadedProducer<Acknowledgements> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", case.linger_ms.to_string())
        .set("acks", "all")
        .create_with_context(context)?;
    for mut order in case.workload(i64::MAX).orders() {
        let due = schedule.due(order.id);
        while due > Instant::now() {
            thread::sleep(Duration::from_millis(1));
        }
        // Not before the order is due: only then it is known whether it counts.
        if order.id >= end.load(Relaxed) {
            break;
        }
        order.time = schedule.time_ms(order.id);
        let (user, value) = (order.user_name(), order.json(case.padding));
        producer
            .send(
                BaseRecord::with_opaque_to(topic, Box::new(order.id))
                    .key(&user)
                    .payload(&value)
                    .timestamp(order.time),
            )
            .map_err(|(error, _)| error)
            .context("the producer of orders")?;
    }
    producer.flush(PATIENCE)?;
    let mut written = producer.context().written.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *written))
}

/// Takes in the answers, each at the place of its order, until all are there.
///
/// # Errors
/// One that is there twice, none for long, or one that is no answer.
pub fn read(
    bootstrap: &str,
    topic: &str,
    schedule: Schedule,
    end: &AtomicI64,
    age_ms: &AtomicI64,
) -> Result<Vec<Option<Answer>>> {
    let consumer = reader(bootstrap, topic, &[("fetch.wait.max.ms", "10"), ("fetch.queue.backoff.ms", "1")])?;
    let mut answers: Vec<Option<Answer>> = vec![];
    let (mut heard, mut count) = (Instant::now(), 0i64);
    loop {
        let wanted = end.load(Relaxed);
        let complete = count >= wanted;
        match consumer.poll(Duration::from_millis(10)) {
            None if complete && heard.elapsed() > AFTERWARDS => return Ok(answers),
            None if heard.elapsed() > PATIENCE => bail!("{count} of {wanted} orders are answered"),
            None => {}
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => {
                heard = Instant::now();
                let value = message.payload().unwrap_or_default();
                let row: Cleaned = serde_json::from_slice(value)?;
                let place = usize::try_from(row.order_id)?;
                if place >= answers.len() {
                    answers.resize_with(place + 1, || None);
                }
                let answer =
                    Answer { arrived: heard, user: user(row.user_id)?, cents: row.cents, time: row.ts };
                if answers[place].replace(answer).is_some() {
                    bail!("{} is there twice", String::from_utf8_lossy(value));
                }
                count += 1;
                age_ms.store(schedule.due(row.order_id).elapsed().as_millis() as i64, Relaxed);
            }
        }
    }
}
