//! State that stays: a crowd of users, each of whom orders once, in scattered order, and then all of them once more, and so on; in windows
//! that are open until [`close`] is asked for. And whether what comes out then is the fold of all of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use onceflow_benches::workload::Order;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message};

use crate::answers;

/// Event time of the first order: one o'clock on 2026-01-02, milliseconds.
const START_MS: i64 = 1_767_315_600_000;
/// Of event time.
const ORDERS_A_MILLISECOND: i64 = 10;
/// Far enough to close everything.
const CLOSING_MS: i64 = START_MS + 10 * 86_400_000;
/// A prime beyond every number of users: its multiples visit all of them before one comes again.
const STRIDE: i64 = 2_654_435_761;
/// Whoever is sampled has a number that divides by this.
pub const SAMPLE: u32 = 100;

/// Who orders.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// How many.
    pub users: u32,
    /// Bytes by which a name is longer than 13; nothing compresses them.
    pub name_padding: usize,
    /// Length of a window, milliseconds.
    pub window_ms: i64,
    /// Whether only the answers for one user of a [`SAMPLE`] come out.
    pub sampled: bool,
}

impl Crowd {
    fn order(self, id: i64) -> Order {
        let user = (id * STRIDE % i64::from(self.users)) as u32;
        let (amount, time) =
            ((2 + (id % 997) as u32, (id % 100) as u32), START_MS + id / ORDERS_A_MILLISECOND);
        Order { id, user, amount, country: "DE", time }
    }

    /// What identifies a user, and what makes it long.
    fn name(self, user: u32) -> (String, String) {
        (format!("user-{user:08}"), noise(user, self.name_padding))
    }

    /// Count and cents by user and beginning of the window, of the first `orders`.
    fn totals(self, orders: i64) -> HashMap<(u32, i64), (i64, i64)> {
        let mut totals = HashMap::new();
        for order in (0..orders).map(|id| self.order(id)) {
            if !self.sampled || order.user % SAMPLE == 0 {
                let window = order.time.div_euclid(self.window_ms) * self.window_ms;
                let total: &mut (i64, i64) = totals.entry((order.user, window)).or_default();
                total.0 += 1;
                total.1 += order.cents();
            }
        }
        totals
    }
}

/// So many characters that nothing but the number says anything about.
fn noise(number: u32, characters: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut text, mut seed) = (String::with_capacity(characters), u64::from(number));
    while text.len() < characters {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        for sixth in (0..10).take(characters - text.len()) {
            text.push(char::from(ALPHABET[(bits >> (6 * sixth)) as usize % ALPHABET.len()]));
        }
    }
    text
}

/// Notes what could not be delivered.
#[derive(Default)]
struct Deliveries {
    failed: AtomicBool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.store(true, Relaxed);
        }
    }
}

/// Writes a crowd's orders to a topic, each once.
struct Writer {
    producer: BaseProducer<Deliveries>,
    topic: String,
    crowd: Crowd,
}

impl Writer {
    fn new(bootstrap: &str, topic: &str, crowd: Crowd) -> Result<Writer> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("enable.idempotence", "true")
            .create_with_context(Deliveries::default())?;
        Ok(Writer { producer, topic: topic.to_owned(), crowd })
    }

    fn write(&self, id: i64) -> Result<()> {
        let order = self.crowd.order(id);
        let (key, padding) = self.crowd.name(order.user);
        let value = order.json_of(&format!("{key}{padding}"), 0);
        self.send(BaseRecord::to(&self.topic).key(&key).payload(&value).timestamp(order.time))
    }

    fn send(&self, mut record: BaseRecord<'_, String, String>) -> Result<()> {
        while let Err((error, refused)) = self.producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            self.producer.poll(Duration::from_millis(10));
            record = refused;
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(60))?;
        if self.producer.context().failed.load(Relaxed) {
            bail!("some orders could not be written to {}", self.topic);
        }
        Ok(())
    }
}

/// Writes these orders as fast as it goes.
///
/// # Errors
/// If one cannot be delivered.
pub fn load(bootstrap: &str, topic: &str, crowd: Crowd, ids: Range<i64>) -> Result<()> {
    let writer = Writer::new(bootstrap, topic, crowd)?;
    for id in ids {
        writer.write(id)?;
        if id % 1000 == 0 {
            writer.producer.poll(Duration::ZERO);
        }
    }
    writer.finish()
}

/// An order for each partition, so late in event time that all windows before it close. What they belong to stays open.
///
/// # Errors
/// If one cannot be delivered.
pub fn close(bootstrap: &str, topic: &str, crowd: Crowd, partitions: i32) -> Result<()> {
    let writer = Writer::new(bootstrap, topic, crowd)?;
    for partition in 0..partitions {
        let order = Order { time: CLOSING_MS, ..crowd.order(0) };
        let (key, value) = ("closing".to_owned(), order.json_of("closing", 0));
        writer.send(
            BaseRecord::to(topic).partition(partition).key(&key).payload(&value).timestamp(order.time),
        )?;
    }
    writer.finish()
}

/// Writes orders at a steady rate until it is stopped, or dropped.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<i64>>>,
}

impl Feeder {
    /// Begins with this order, and goes on with `rate` of them a second.
    ///
    /// # Errors
    /// If there is no producer to be had.
    pub fn start(bootstrap: &str, topic: &str, crowd: Crowd, first: i64, rate: u32) -> Result<Feeder> {
        const STEP: Duration = Duration::from_millis(5);
        let writer = Writer::new(bootstrap, topic, crowd)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (began, mut next) = (Instant::now(), first);
            while !stopped.load(Relaxed) {
                let due = first + (began.elapsed().as_secs_f64() * f64::from(rate)) as i64;
                for id in next..due {
                    writer.write(id)?;
                }
                next = next.max(due);
                writer.producer.poll(STEP);
                // Polling returns at once when there is a report.
                std::thread::sleep(STEP);
            }
            writer.finish()?;
            Ok(next)
        });
        Ok(Feeder { stop, thread: Some(thread) })
    }

    /// Stops it; the number of the order that would have come next. All before it are in the topic.
    ///
    /// # Errors
    /// If one is not.
    pub fn stop(mut self) -> Result<i64> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("it is stopped once")?;
        thread.join().ok().context("the producer of orders panicked")?
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// Asks for the windows to be closed by calling `close`, waits until the answers for the first `orders` are in `topic`, and compares them with
/// the fold of those orders; how many they were.
///
/// # Errors
/// What is wrong, there twice, or not there within `patience` of the row before.
pub fn compare(
    bootstrap: &str,
    topic: &str,
    crowd: Crowd,
    orders: i64,
    patience: Duration,
    close: &mut dyn FnMut() -> Result<()>,
) -> Result<usize> {
    const QUIET: Duration = Duration::from_secs(2);
    let mut expected = crowd.totals(orders);
    let rows = expected.len();
    let consumer = answers::reader(bootstrap, topic, &[])?;
    close()?;
    let (mut heard, mut asked) = (Instant::now(), Instant::now());
    // Kafka Streams looks only at every second or so whether there is something to close, when a record comes. And what is there twice may
    // come last.
    while !expected.is_empty() || heard.elapsed() < QUIET {
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(Err(error)) => return Err(error.into()),
            None if heard.elapsed() > patience => {
                bail!("{} of {rows} rows are missing in {topic}", expected.len())
            }
            None => {
                if !expected.is_empty() && asked.elapsed() > QUIET {
                    close()?;
                    asked = Instant::now();
                }
                continue;
            }
        };
        heard = Instant::now();
        // Eight digits; padding may follow.
        let user =
            |name: &str| name.get(5..13).and_then(|number| number.parse().ok()).context("a user's name");
        answers::take_out(&mut expected, message.payload().unwrap_or_default(), user)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_orders_before_anybody_orders_again() {
        let crowd = Crowd { users: 1000, name_padding: 0, window_ms: 86_400_000, sampled: false };
        let mut users: Vec<u32> = (5..1005).map(|id| crowd.order(id).user).collect();
        users.sort_unstable();
        assert_eq!(users, (0..1000).collect::<Vec<_>>());
        let totals = crowd.totals(2500);
        assert_eq!(totals.len(), 1000);
        assert_eq!(totals.values().map(|(orders, _)| orders).sum::<i64>(), 2500);
    }

    #[test]
    fn names_are_long_and_differ() {
        let [one, other] = [1, 2].map(|user| noise(user, 203));
        assert_eq!((one.len(), other.len()), (203, 203));
        assert_ne!(one, other);
    }
}
