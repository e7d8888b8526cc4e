//! Whether a job's answers are right: a result that differs makes its speed worth nothing.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::NaiveDateTime;
use onceflow_benches::workload::{DISORDER_MS, Workload};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;

use crate::cases::{Case, Contender};

/// A row with windows.
#[derive(Deserialize)]
pub struct Total<'a> {
    /// The orders'.
    pub user_id: &'a str,
    /// Beginning of the window.
    #[serde(borrow)]
    pub window_start: Instant<'a>,
    /// How many.
    pub orders: i64,
    /// Their amounts.
    pub total_cents: i64,
}

/// Milliseconds since the epoch, or text: Flink SQL writes a local time, which is UTC.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Instant<'a> {
    /// As most write it.
    Number(i64),
    /// As Flink SQL does.
    Text(&'a str),
}

impl Instant<'_> {
    /// Since 1970.
    ///
    /// # Errors
    /// Text that is no time.
    pub fn ms(&self) -> Result<i64> {
        match self {
            Instant::Number(ms) => Ok(*ms),
            Instant::Text(text) => {
                let time =
                    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").context(text.to_string())?;
                Ok(time.and_utc().timestamp_millis())
            }
        }
    }
}

/// A row without.
#[derive(Deserialize)]
pub struct Cleaned<'a> {
    /// The order's.
    pub user_id: &'a str,
    /// The order's.
    pub order_id: i64,
    /// Its amount.
    pub cents: i64,
    /// The order's time, milliseconds.
    pub ts: i64,
}

/// What the topic that `contender` wrote must hold, and whether it does.
///
/// # Errors
/// What is missing, wrong or there twice.
pub fn check(
    bootstrap: &str,
    topic: &str,
    contender: Contender,
    case: &Case,
    workload: Workload,
) -> Result<()> {
    let Some((size, slide)) = case.job.window_ms() else { return check_orders(bootstrap, topic, workload) };
    let mut expected = workload.totals(size, slide);
    let rows = read_totals(bootstrap, topic, &mut expected)?;
    if contender == Contender::Streams {
        // It never closes windows that no later record closes; and it looks for some only when a record comes, at most once a second of
        // wall time, in which it may read a minute's orders.
        let open = workload.last_ms() - 2 * DISORDER_MS - 60_000;
        expected.retain(|(_, start), _| start + size <= open);
    }
    match expected.len() {
        0 => Ok(()),
        missing => bail!("{missing} of {} rows are missing", rows + missing),
    }
}

/// Takes each row out of `expected`; how many there were.
fn read_totals(
    bootstrap: &str,
    topic: &str,
    expected: &mut HashMap<(u32, i64), (i64, i64)>,
) -> Result<usize> {
    let mut rows = 0;
    read(bootstrap, topic, |value| {
        rows += 1;
        take_out(expected, value, user)
    })?;
    Ok(rows)
}

/// Takes a row with windows out of what is expected; `user` reads the number in its user's name.
///
/// # Errors
/// A row that is wrong, there twice, or should not be.
pub fn take_out(
    expected: &mut HashMap<(u32, i64), (i64, i64)>,
    value: &[u8],
    user: impl FnOnce(&str) -> Result<u32>,
) -> Result<()> {
    let row: Total = serde_json::from_slice(value)?;
    match expected.remove(&(user(row.user_id)?, row.window_start.ms()?)) {
        Some(total) if total == (row.orders, row.total_cents) => Ok(()),
        Some(total) => bail!("{}: {total:?} is right", String::from_utf8_lossy(value)),
        None => bail!("{} is there twice, or should not be", String::from_utf8_lossy(value)),
    }
}

fn check_orders(bootstrap: &str, topic: &str, workload: Workload) -> Result<()> {
    let mut expected: HashMap<i64, (u32, i64, i64)> =
        workload.orders().map(|order| (order.id, (order.user, order.cents(), order.time))).collect();
    read(bootstrap, topic, |value| {
        let row: Cleaned = serde_json::from_slice(value)?;
        match expected.remove(&row.order_id) {
            Some(right) if right == (user(row.user_id)?, row.cents, row.ts) => Ok(()),
            other => bail!("{}: {other:?} is right", String::from_utf8_lossy(value)),
        }
    })?;
    match expected.len() {
        0 => Ok(()),
        missing => bail!("{missing} of {} orders are missing", workload.orders),
    }
}

/// The number in a user's name.
///
/// # Errors
/// A name without one.
pub fn user(name: &str) -> Result<u32> {
    name.strip_prefix("user-").and_then(|number| number.parse().ok()).with_context(|| format!("user {name}"))
}

/// Time limit of a question to the brokers, and of their silence.
const CALL: Duration = Duration::from_secs(30);

/// A `read_committed` consumer that stands at the beginning of each partition of a topic.
///
/// # Errors
/// If the brokers do not answer, or do not know the topic.
pub fn reader(bootstrap: &str, topic: &str, properties: &[(&str, &str)]) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench-answers")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    for (name, value) in properties {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Hands out the value of every committed record of a topic.
fn read(bootstrap: &str, topic: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let consumer = reader(bootstrap, topic, &[("enable.partition.eof", "true")])?;
    let partitions = consumer.assignment()?.count();
    let (mut left, mut heard) = (partitions, std::time::Instant::now());
    while left > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            None if heard.elapsed() > CALL => bail!("{topic} cannot be read to its end"),
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => left -= 1,
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => each(message.payload().unwrap_or_default())?,
        }
        heard = std::time::Instant::now();
    }
    Ok(())
}
