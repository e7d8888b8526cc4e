//! Producing one record, and the transaction calls.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka_sys as sys;

use super::super::errors::{Code, KafkaError, Result, code_of};
use super::client::Client;
use super::{c_string, millis, raw, text};

/// A topic of a producer, looked up once instead of for every record.
pub(in crate::kafka) struct TopicHandle {
    // Declared first, so that it goes before the client could.
    topic: NonNull<sys::rd_kafka_topic_t>,
    /// Keeps the client; the handle is given back first.
    client: Arc<Client>,
}

// SAFETY: librdkafka's topic handles are thread-safe.
unsafe impl Send for TopicHandle {}

impl TopicHandle {
    /// Opens a topic. This asks no broker.
    ///
    /// # Errors
    /// `Config` for a name that Kafka does not allow.
    pub fn new(client: &Arc<Client>, name: &str) -> Result<Self> {
        let what = format!("open topic {name}");
        let c_name = c_string(&what, name)?;
        // SAFETY: a live client and a NUL-terminated name, which is copied; null topic settings mean the
        // client's own.
        let topic =
            unsafe { sys::rd_kafka_topic_new(client.as_ptr(), c_name.as_ptr(), std::ptr::null_mut()) };
        match NonNull::new(topic) {
            Some(topic) => Ok(Self { topic, client: Arc::clone(client) }),
            None => Err(KafkaError::config(what, "librdkafka refuses the name")),
        }
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once; the client outlives it.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// What is to be written, apart from the topic.
pub(in crate::kafka) struct Outgoing<'a> {
    /// The partition, or `None` for the partitioner's choice by key.
    pub partition: Option<i32>,
    /// The key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970; 0 would be replaced by the present.
    pub timestamp: i64,
    /// Header names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl TopicHandle {
    /// Copies a record into the producer's queue.
    ///
    /// # Errors
    /// `QueueFull` (as the code) when the queue's limits are reached; otherwise what the client objects to.
    pub fn produce(&self, out: &Outgoing<'_>) -> Result<()> {
        let mut arguments = [const { EMPTY }; 7];
        arguments[0] =
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, Union { rkt: self.topic.as_ptr() });
        arguments[1] = argument(
            sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            Union { i32_: out.partition.unwrap_or(UNASSIGNED) },
        );
        arguments[2] =
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, Union { i: sys::RD_KAFKA_MSG_F_COPY });
        arguments[3] = argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(out.key));
        arguments[4] = argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(out.value));
        arguments[5] =
            argument(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, Union { i64_: out.timestamp });
        let headers = Headers::new(out.headers)?;
        let count = match &headers {
            Some(headers) => {
                arguments[6] = argument(
                    sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                    Union { headers: headers.0.as_ptr() },
                );
                7
            }
            None => 6,
        };
        // SAFETY: the first `count` arguments are initialised, each with the member that its type asks for;
        // key and value are copied during the call (MSG_F_COPY). Headers become librdkafka's if and only if
        // the call succeeds.
        let error = unsafe { sys::rd_kafka_produceva(self.client.as_ptr(), arguments.as_ptr(), count) };
        if error.is_null() {
            if let Some(headers) = headers {
                std::mem::forget(headers);
            }
            return Ok(());
        }
        // SAFETY: the topic is alive and has a NUL-terminated name; the error is ours and is consumed.
        unsafe {
            let what = format!("send a record to {}", text(sys::rd_kafka_topic_name(self.topic.as_ptr())));
            self.client.check_object(&what, error)
        }
    }
}

type Union = sys::rd_kafka_vu_s__bindgen_ty_1;

/// librdkafka's RD_KAFKA_PARTITION_UA: let the partitioner choose.
const UNASSIGNED: i32 = -1;

const EMPTY: sys::rd_kafka_vu_t =
    sys::rd_kafka_vu_t { vtype: sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END, u: Union { i64_: 0 } };

fn argument(vtype: sys::rd_kafka_vtype_t, u: Union) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

/// Bytes as an argument. An empty slice keeps a non-null pointer, so that empty and null stay different.
fn memory(bytes: Option<&[u8]>) -> Union {
    let (ptr, size) = match bytes {
        Some(bytes) => (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len()),
        None => (std::ptr::null_mut(), 0),
    };
    Union { mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr, size } }
}

/// A header list that is ours until a produced record takes it over.
struct Headers(NonNull<sys::rd_kafka_headers_t>);

impl Headers {
    fn new(headers: &[(&str, Option<&[u8]>)]) -> Result<Option<Self>> {
        if headers.is_empty() {
            return Ok(None);
        }
        let what = "add a header";
        // SAFETY: the call takes only a size hint; null is handled.
        let list = unsafe { sys::rd_kafka_headers_new(headers.len()) };
        let list = Self(NonNull::new(list).ok_or_else(|| KafkaError::bug(what, "no memory for headers"))?);
        for (name, value) in headers {
            let (data, size) = match value {
                Some(value) => (value.as_ptr().cast::<c_void>(), length(what, value.len())?),
                None => (std::ptr::null(), 0),
            };
            // SAFETY: a live list; name and value are given with their lengths and copied.
            let result = unsafe {
                sys::rd_kafka_header_add(
                    list.0.as_ptr(),
                    name.as_ptr().cast::<c_char>(),
                    length(what, name.len())?,
                    data,
                    size,
                )
            };
            if result != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::bug(what, format!("librdkafka refuses header {name:?}")));
            }
        }
        Ok(Some(list))
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: ours, as no record took it over (`produce` forgets it then), and destroyed once.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) }
    }
}

fn length(what: &str, len: usize) -> Result<isize> {
    isize::try_from(len).map_err(|_| KafkaError::bug(what, "longer than memory"))
}

/// How long one call of librdkafka's flush may take.
const FLUSH_STEP: Duration = Duration::from_millis(1);

/// Transactions. Each call blocks up to its time limit, and serves delivery reports meanwhile where it
/// flushes.
impl Client {
    /// Fences every older producer of the transactional id and ends what it had open.
    ///
    /// # Errors
    /// `Retry` when the time was too short: the call may be repeated, and goes on where it was.
    pub fn init_transactions(&self, timeout: Duration) -> Result<()> {
        // SAFETY: a live client; the error, if any, is ours and is consumed.
        unsafe {
            let error = sys::rd_kafka_init_transactions(self.as_ptr(), millis(timeout));
            self.check_object("fence older instances (init_transactions)", error)
        }
    }

    /// Begins a transaction. Local: no broker hears of it before its first record.
    ///
    /// # Errors
    /// `EpochFailed` or `Fenced` where the client can no more.
    pub fn begin_transaction(&self) -> Result<()> {
        // SAFETY: as for `init_transactions`.
        unsafe {
            let error = sys::rd_kafka_begin_transaction(self.as_ptr());
            self.check_object("begin a transaction", error)
        }
    }

    /// Commits. What is not delivered yet is flushed, in librdkafka's steps of 10 ms: better done before.
    ///
    /// # Errors
    /// With the code's own kind; that the outcome is unknown is the caller's knowledge.
    pub fn commit_transaction(&self, timeout: Duration) -> Result<()> {
        // SAFETY: as for `init_transactions`.
        unsafe {
            let error = sys::rd_kafka_commit_transaction(self.as_ptr(), millis(timeout));
            self.check_object("commit the transaction", error)
        }
    }

    /// Pushes out everything at once, whatever `linger.ms` says, and waits until it is delivered or failed.
    ///
    /// In short steps: within one call librdkafka looks only every 10 ms whether all is delivered, unless a
    /// report wakes it up, and reports of success are switched off.
    ///
    /// # Errors
    /// `Retry` when records are still on their way after `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: a live client.
            let code = unsafe { raw::flush(self.as_ptr(), millis(left.min(FLUSH_STEP))) };
            if code == 0 || left.is_zero() || code_of(code) != Code::OperationTimedOut {
                return self.check("flush the producer", code);
            }
        }
    }

    /// Drops every record that is queued or on its way, without waiting for any answer.
    pub fn purge(&self) {
        let flags: c_int =
            sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT | sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: a live client. The result could only object to flags or to a client that is no producer.
        unsafe { sys::rd_kafka_purge(self.as_ptr(), flags) };
    }
}
