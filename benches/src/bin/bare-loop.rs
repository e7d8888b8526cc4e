//! `bare-loop BOOTSTRAP TOPIC RECORDS [decode]`: the limit. Consumes a topic with librdkafka's batch call and does nothing, or only
//! decodes four fields of each record with serde_json. The allocator, the isolation and the pause of a full queue are the daemon's; how much is
//! held ready is librdkafka's default.

use std::ffi::CString;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka_sys as sys;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the pipeline of the measurement reads.
#[derive(serde::Deserialize)]
struct Order<'a> {
    user_id: &'a str,
    amount: f64,
    country: &'a str,
    ts: i64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, topic, records, rest @ ..] = arguments.as_slice() else {
        bail!("usage: bare-loop BOOTSTRAP TOPIC RECORDS [decode]");
    };
    let records: usize = records.parse().context("RECORDS")?;
    let decode = rest.first().is_some_and(|word| word == "decode");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bare-loop")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
    let name = CString::new(topic.as_str())?;
    let rk = consumer.client().native_ptr();
    // SAFETY: the consumer outlives the list, the queue and the messages; each is destroyed once, below.
    let (sum, seen) = unsafe {
        let list = sys::rd_kafka_topic_partition_list_new(partitions);
        for partition in 0..partitions {
            (*sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition)).offset =
                i64::from(sys::RD_KAFKA_OFFSET_BEGINNING);
        }
        sys::rd_kafka_assign(rk, list);
        sys::rd_kafka_topic_partition_list_destroy(list);
        let queue = sys::rd_kafka_queue_get_consumer(rk);
        let mut batch = vec![std::ptr::null_mut(); 4096];
        let (mut seen, mut sum) = (0, 0i64);
        while seen < records {
            let taken = sys::rd_kafka_consume_batch_queue(queue, 1000, batch.as_mut_ptr(), batch.len());
            for message in batch.iter().take(usize::try_from(taken).unwrap_or(0)) {
                let record = &**message;
                if record.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                    && !record.payload.is_null()
                {
                    seen += 1;
                    let bytes = std::slice::from_raw_parts(record.payload.cast::<u8>(), record.len);
                    // Only so that nothing is optimized away: it may wrap.
                    sum = sum.wrapping_add(if decode {
                        let order: Order = serde_json::from_slice(bytes)?;
                        order.ts + order.amount as i64 + (order.user_id.len() + order.country.len()) as i64
                    } else {
                        bytes.len() as i64
                    });
                }
                sys::rd_kafka_message_destroy(*message);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
        (sum, seen)
    };
    println!("{seen} records, sum {sum}");
    Ok(())
}
