//! `load BOOTSTRAP TOPIC ORDERS [USERS [PADDING]]`: fills a topic with the [`Workload`].

use std::time::Duration;

use anyhow::{Context, Result, bail};
use onceflow_benches::workload::Workload;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, orders, rest @ ..] = arguments.as_slice() else {
        bail!("usage: load BOOTSTRAP TOPIC ORDERS [USERS [PADDING]]");
    };
    let workload = Workload {
        orders: orders.parse().context("ORDERS")?,
        users: rest.first().map_or(Ok(100_000), |users| users.parse()).context("USERS")?,
        padding: rest.get(1).map_or(Ok(0), |padding| padding.parse()).context("PADDING")?,
    };
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .set("batch.size", "500000")
        .set("acks", "all")
        .create()?;
    for order in workload.orders() {
        let (user, value) = (order.user_name(), order.json(workload.padding));
        let mut record = BaseRecord::to(topic).key(&user).payload(&value).timestamp(order.time);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            producer.poll(Duration::from_millis(10));
            record = refused;
        }
        if order.id % 1000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    println!("{} orders of {} users are in {topic}", workload.orders, workload.users);
    Ok(())
}
