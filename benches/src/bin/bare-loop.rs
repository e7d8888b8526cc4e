//! `bare-loop BOOTSTRAP TOPIC RECORDS [decode | copy OUTPUT]`: the limit. Consumes a topic with librdkafka's batch call and does nothing; or
//! only decodes four fields of each record with serde_json; or only writes each record to OUTPUT as it is, in transactions of a second. The
//! allocator, the isolation, the pause of a full queue and the producer's settings are the daemon's; how much is held ready is librdkafka's
//! default.

use std::ffi::CString;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka_sys as sys;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time limit of a transaction's calls.
const LIMIT: Duration = Duration::from_secs(60);

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
        bail!("usage: bare-loop BOOTSTRAP TOPIC RECORDS [decode | copy OUTPUT]");
    };
    let records: usize = records.parse().context("RECORDS")?;
    // Something is made of each record, and printed, so that nothing is optimized away.
    let mut sum = 0i64;
    match rest {
        [] => consume(bootstrap, topic, records, |record| {
            sum = sum.wrapping_add(record.len as i64);
            Ok(())
        })?,
        [word] if word == "decode" => consume(bootstrap, topic, records, |record| {
            // SAFETY: a record has a payload of its length.
            let bytes = unsafe { std::slice::from_raw_parts(record.payload.cast::<u8>(), record.len) };
            let order: Order = serde_json::from_slice(bytes)?;
            let lengths = order.user_id.len() + order.country.len();
            sum = sum.wrapping_add(order.ts + order.amount as i64 + lengths as i64);
            Ok(())
        })?,
        [word, output] if word == "copy" => {
            let mut copy = Copy::new(bootstrap, output)?;
            consume(bootstrap, topic, records, |record| {
                sum = sum.wrapping_add(record.len as i64);
                copy.send(record)
            })?;
            copy.producer.commit_transaction(LIMIT)?;
        }
        _ => bail!("{} is not something to do with a record", rest.join(" ")),
    }
    println!("{records} records, sum {sum}");
    Ok(())
}

/// Hands the first so many records of a topic that have a value to `each`.
fn consume(
    bootstrap: &str,
    topic: &str,
    records: usize,
    mut each: impl FnMut(&sys::rd_kafka_message_t) -> Result<()>,
) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bare-loop")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len()) as i32;
    let name = CString::new(topic)?;
    let rk = consumer.client().native_ptr();
    // SAFETY: the consumer outlives the list, the queue and the messages; each is destroyed once, below.
    unsafe {
        let list = sys::rd_kafka_topic_partition_list_new(partitions);
        for partition in 0..partitions {
            (*sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition)).offset =
                i64::from(sys::RD_KAFKA_OFFSET_BEGINNING);
        }
        sys::rd_kafka_assign(rk, list);
        sys::rd_kafka_topic_partition_list_destroy(list);
        let queue = sys::rd_kafka_queue_get_consumer(rk);
        let mut batch = vec![std::ptr::null_mut(); 4096];
        let (mut seen, mut result) = (0, Ok(()));
        while seen < records && result.is_ok() {
            let taken = sys::rd_kafka_consume_batch_queue(queue, 1000, batch.as_mut_ptr(), batch.len());
            for message in batch.iter().take(usize::try_from(taken).unwrap_or(0)) {
                let record = &**message;
                let is_record = record.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
                    && !record.payload.is_null();
                if is_record && result.is_ok() {
                    seen += 1;
                    result = each(record);
                }
                sys::rd_kafka_message_destroy(*message);
            }
        }
        sys::rd_kafka_queue_destroy(queue);
        result
    }
}

/// Writes records with librdkafka's leanest call that copies one.
struct Copy {
    producer: BaseProducer,
    topic: *mut sys::rd_kafka_topic_t,
    began: Instant,
    sent: usize,
}

impl Copy {
    fn new(bootstrap: &str, output: &str) -> Result<Copy> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", format!("bare-loop-{output}"))
            .set("compression.type", "lz4")
            .set("batch.size", "500000")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("linger.ms", std::env::var("BENCH_LINGER").context("BENCH_LINGER")?)
            .set("partitioner", "murmur2_random")
            .set("delivery.report.only.error", "true")
            .create()?;
        producer.init_transactions(LIMIT)?;
        producer.begin_transaction()?;
        let name = CString::new(output)?;
        // SAFETY: a live producer and a NUL-terminated name. The reference is never given back: the process ends first.
        let topic = unsafe {
            sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), std::ptr::null_mut())
        };
        anyhow::ensure!(!topic.is_null(), "the topic's name is refused");
        Ok(Copy { producer, topic, began: Instant::now(), sent: 0 })
    }

    fn send(&mut self, record: &sys::rd_kafka_message_t) -> Result<()> {
        const ANY_PARTITION: i32 = -1;
        // SAFETY: the topic lives as long as the process; payload and key have their lengths, and are copied.
        while unsafe {
            sys::rd_kafka_produce(
                self.topic,
                ANY_PARTITION,
                sys::RD_KAFKA_MSG_F_COPY,
                record.payload,
                record.len,
                record.key,
                record.key_len,
                std::ptr::null_mut(),
            )
        } != 0
        {
            // SAFETY: it reads a variable of this thread.
            match unsafe { sys::rd_kafka_last_error() } {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL => {
                    self.producer.poll(Duration::from_millis(1));
                }
                error => bail!("a record was refused: {error:?}"),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(4096) && self.began.elapsed() >= Duration::from_secs(1) {
            // It flushes first, and fails when a record was not delivered.
            self.producer.commit_transaction(LIMIT)?;
            self.producer.begin_transaction()?;
            self.began = Instant::now();
        }
        Ok(())
    }
}
