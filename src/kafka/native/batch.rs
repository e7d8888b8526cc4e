//! A partition's queue and the batches taken from it: the hot path of reading.
//!
//! A batch owns its messages, hands out slices into librdkafka's receive buffers and gives all back at once
//! when it is dropped. Nothing is copied and nothing allocated per record.
//!
//! Traps, from librdkafka's source and from trying:
//! - `rd_kafka_consume_batch_queue` does not return when something is there: it waits its whole time until
//!   the batch is full. So the wait is for a batch of one, and the rest is taken without waiting.
//! - A queue must be detached from the main queue *before* its partition is assigned; a message that arrives
//!   in between goes to the main queue and is lost to us.
//! - End-of-partition and errors come as messages with a code; transaction markers do not come at all.
//! - Headers are parsed on first access, inside the message: batches must not be shared between threads.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use onceflow_engine::message;
use rdkafka_sys as sys;

use super::super::errors::{Code, KafkaError, Result, code_of};
use super::client::Client;
use super::{c_string, millis, text};

/// Where a client's messages arrive.
pub(in crate::kafka) struct Queue {
    // Declared first, so that it goes before the client could.
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Arc<Client>,
}

// SAFETY: librdkafka's queues are thread-safe; taking needs `&mut self`.
unsafe impl Send for Queue {}

/// What comes through a queue besides data.
pub(in crate::kafka) struct RawEvent {
    /// How many data messages of the same batch came before it.
    pub after: usize,
    /// What it is; `PartitionEOF` is the end of a partition.
    pub code: Code,
    /// The position it speaks of.
    pub offset: i64,
    /// librdkafka's words.
    pub message: String,
}

impl Queue {
    /// Detaches the queue of a partition, which must not be assigned yet.
    ///
    /// # Errors
    /// `Config` for a topic name with an inner NUL.
    pub fn of_partition(client: &Arc<Client>, topic: &str, partition: i32) -> Result<Self> {
        let what = "open a partition's queue";
        let name = c_string(what, topic)?;
        // SAFETY: a live consumer and a NUL-terminated name, which is copied; null is handled. Forwarding to
        // null ends the forwarding.
        unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.as_ptr(), name.as_ptr(), partition);
            let queue = NonNull::new(queue)
                .ok_or_else(|| KafkaError::bug(what, format!("no queue for {topic} [{partition}]")))?;
            sys::rd_kafka_queue_forward(queue.as_ptr(), std::ptr::null_mut());
            Ok(Self { queue, client: Arc::clone(client) })
        }
    }

    /// Takes up to `max` messages that are there; where none is, waits up to `timeout` for the first. What is
    /// not data comes apart, in order.
    pub fn take(&mut self, max: usize, timeout: Duration) -> (MessageBatch, Vec<RawEvent>) {
        let mut batch = MessageBatch { messages: Vec::with_capacity(max), _client: Arc::clone(&self.client) };
        self.fill(&mut batch.messages, max, Duration::ZERO);
        if batch.messages.is_empty() && max > 0 && !timeout.is_zero() {
            self.fill(&mut batch.messages, 1, timeout);
            self.fill(&mut batch.messages, max, Duration::ZERO);
        }
        let events = batch.split_off_events();
        (batch, events)
    }

    /// Appends messages until there are `max` or `timeout` has passed.
    fn fill(&mut self, messages: &mut Vec<NonNull<sys::rd_kafka_message_t>>, max: usize, timeout: Duration) {
        let have = messages.len();
        let room = max.saturating_sub(have).min(messages.capacity() - have);
        if room == 0 {
            return;
        }
        // SAFETY: a live queue, and room for `room` pointers behind the vector's length. librdkafka writes
        // as many non-null pointers as it returns, each a message that is ours from then on.
        // `NonNull<T>` has the layout of `*mut T`.
        unsafe {
            let place = messages.as_mut_ptr().add(have).cast::<*mut sys::rd_kafka_message_t>();
            let got = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), millis(timeout), place, room);
            messages.set_len(have + usize::try_from(got).unwrap_or(0));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: our reference, given back once; the client outlives it.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl Client {
    /// Takes one message from a consumer's main queue, where errors and events of the client arrive.
    pub fn poll_consumer(self: &Arc<Self>, timeout: Duration) -> Option<(MessageBatch, Vec<RawEvent>)> {
        // SAFETY: a live consumer; a message that is returned is ours.
        let message = unsafe { sys::rd_kafka_consumer_poll(self.as_ptr(), millis(timeout)) };
        let message = NonNull::new(message)?;
        let mut batch = MessageBatch { messages: vec![message], _client: Arc::clone(self) };
        let events = batch.split_off_events();
        Some((batch, events))
    }
}

/// Data messages of one partition, in offset order. Dropping the batch releases them all.
pub struct MessageBatch {
    messages: Vec<NonNull<sys::rd_kafka_message_t>>,
    /// Keeps the client until its messages are released.
    _client: Arc<Client>,
}

// SAFETY: messages are plain memory with atomic references to what they came from; librdkafka lets any one
// thread at a time use and release them. (Not `Sync`: headers are parsed inside the message on first access.)
unsafe impl Send for MessageBatch {}

impl MessageBatch {
    /// How many records the batch holds.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    fn message(&self, i: usize) -> &sys::rd_kafka_message_t {
        // SAFETY: every pointer in the vector is a live message of ours whose code is 0 once the batch is
        // handed out (`split_off_events`), so that it is also a valid value of the bindings' enumeration.
        unsafe { self.messages[i].as_ref() }
    }

    /// The offset of record `i`.
    pub fn offset(&self, i: usize) -> i64 {
        self.message(i).offset
    }

    /// The record's timestamp in milliseconds since 1970, if it has one.
    pub fn timestamp(&self, i: usize) -> Option<i64> {
        // SAFETY: a live message; the type of the timestamp is not asked for.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.message(i), std::ptr::null_mut()) };
        (timestamp >= 0).then_some(timestamp)
    }

    /// The record's key; `None` where it is null, which an empty key is not.
    pub fn key(&self, i: usize) -> Option<&[u8]> {
        let message = self.message(i);
        // SAFETY: the message owns this memory as long as it lives, and the slice borrows the batch.
        unsafe { slice(message.key, message.key_len) }
    }

    /// The record's value; `None` for a tombstone.
    pub fn value(&self, i: usize) -> Option<&[u8]> {
        let message = self.message(i);
        // SAFETY: as for `key`.
        unsafe { slice(message.payload, message.len) }
    }

    /// Key and value bytes of record `i`, as counted in `onceflow_bytes_in_total`.
    pub fn size(&self, i: usize) -> usize {
        let message = self.message(i);
        message.key_len + message.len
    }

    /// Visits the headers of record `i` in order, with name and value (`None` where it is null). A name that
    /// is not UTF-8 comes with replacement characters.
    pub fn headers(&self, i: usize, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        let mut headers = std::ptr::null_mut();
        // SAFETY: a live message; parsing its headers changes it behind the shared reference, which is why
        // the batch is not `Sync`. The header list belongs to the message.
        unsafe {
            let found = sys::rd_kafka_message_headers(self.messages[i].as_ptr(), &mut headers);
            if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            for index in 0.. {
                let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
                let result = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if result != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return;
                }
                let name = CStr::from_ptr(name).to_string_lossy();
                visit(&name, slice(value, size));
            }
        }
    }

    /// Releases the records from this offset on.
    pub fn truncate_at(&mut self, offset: i64) {
        let keep = self.messages.partition_point(|message| {
            // SAFETY: as in `message`.
            unsafe { message.as_ref() }.offset < offset
        });
        for message in self.messages.drain(keep..) {
            // SAFETY: a live message of ours that nobody refers to any more.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
        }
    }

    /// Removes what is not data, and releases it.
    fn split_off_events(&mut self) -> Vec<RawEvent> {
        let mut events = Vec::new();
        let mut kept = 0;
        self.messages.retain(|message| {
            let message = message.as_ptr();
            // SAFETY: a live message of ours; its code is read as an integer, see the module header of
            // `native`. A message that leaves the vector is released here and nowhere else.
            unsafe {
                let code = std::ptr::addr_of!((*message).err).cast::<c_int>().read();
                if code == 0 {
                    kept += 1;
                    return true;
                }
                events.push(RawEvent {
                    after: kept,
                    code: code_of(code),
                    offset: std::ptr::addr_of!((*message).offset).read(),
                    message: text(sys::rd_kafka_message_errstr(message)),
                });
                sys::rd_kafka_message_destroy(message);
                false
            }
        });
        events
    }
}

/// What the engine sees of it.
impl message::MessageBatch for MessageBatch {
    fn len(&self) -> usize {
        MessageBatch::len(self)
    }
    fn offset(&self, i: usize) -> i64 {
        MessageBatch::offset(self, i)
    }
    fn timestamp(&self, i: usize) -> i64 {
        MessageBatch::timestamp(self, i).unwrap_or(-1)
    }
    fn key(&self, i: usize) -> Option<&[u8]> {
        MessageBatch::key(self, i)
    }
    fn value(&self, i: usize) -> Option<&[u8]> {
        MessageBatch::value(self, i)
    }
    fn headers(&self, i: usize, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        MessageBatch::headers(self, i, visit);
    }
}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each message is ours and is released once; `_client` is dropped afterwards.
            unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }
}

impl std::fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageBatch({} records)", self.len())
    }
}

/// A slice of librdkafka's memory; null means null.
///
/// # Safety
/// `data` is null or points to `len` bytes that stay unchanged for `'a`.
unsafe fn slice<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by this function's contract.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}
