//! `load BOOTSTRAP TOPIC RECORDS [USERS]`: fills a topic with the workload that speed is measured with: JSON records of about 139
//! bytes, keyed by user, disorder up to 5 s, the same for the same arguments.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Event time of the first record: 2026-01-01.
const START_MS: i64 = 1_767_225_600_000;
/// Records per second of event time.
const RECORDS_A_SECOND: i64 = 10_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, records, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: load BOOTSTRAP TOPIC RECORDS [USERS]");
    };
    let records: i64 = records.parse().context("RECORDS")?;
    let users: u32 = rest.first().map_or(Ok(100_000), |users| users.parse()).context("USERS")?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "500000")
        .set("acks", "all")
        .create()?;
    let mut random = StdRng::seed_from_u64(7);
    for i in 0..records {
        let time = START_MS + i * 1000 / RECORDS_A_SECOND - random.random_range(0..5000);
        let user = format!("user-{:07}", random.random_range(0..users));
        let value = format!(
            r#"{{"user_id":"{user}","order_id":{i},"amount":{}.{:02},"country":"{}","status":"paid","channel":"web","ts":{time}}}"#,
            random.random_range(1..1000),
            random.random_range(0..100),
            ["DE", "FR", "IT", "PL", "ES"][random.random_range(0..5)],
        );
        let mut record = BaseRecord::to(topic).key(&user).payload(&value).timestamp(time.max(1));
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
        if i % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    println!("{records} records of {users} users are in {topic}");
    Ok(())
}
