//! librdkafka behind safe types: the only place of the daemon with `unsafe` code.
//!
//! The safe clients of the `rdkafka` crate are not used. Their `poll` costs more than twice the CPU per record
//! of the batch call (measured: 0.96 against 0.40 µs), they have no DescribeTopics and no topic handles for
//! sending, and they take delivery reports as events, which nobody serves while `commit_transaction` flushes.
//!
//! Each file owns one kind of foreign object and keeps three promises, on which every `SAFETY` comment here
//! rests:
//! - A pointer is created and destroyed by the same type, and never leaves it.
//! - Whatever belongs to a client (queue, message, topic handle) holds an `Arc` of it and is released first;
//!   librdkafka would otherwise wait for it for ever while the client is destroyed.
//! - librdkafka's handles are thread-safe, its messages are not: batches are `Send` and not `Sync`.
//!
//! Error codes are read as integers. The bindings declare them as a Rust enumeration, and a broker that is
//! newer than this librdkafka may send a number that the enumeration lacks, which would be undefined
//! behaviour; see [`raw`].

mod admin;
mod batch;
mod client;
mod conf;
mod partitions;
mod producer;

pub(super) use admin::{AdminQueue, ConfigOf};
pub use batch::MessageBatch;
pub(super) use batch::Queue;
pub(super) use client::{Client, Role};
pub(super) use conf::Conf;
pub(super) use partitions::Partitions;
pub(super) use producer::{Outgoing, TopicHandle};

use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use super::errors::{KafkaError, Result};

/// Calls whose error code may have come from a broker, declared with the code as the integer that it is.
mod raw {
    use std::ffi::c_int;

    use rdkafka_sys as sys;

    unsafe extern "C" {
        #[link_name = "rd_kafka_error_code"]
        pub fn error_code(error: *const sys::rd_kafka_error_t) -> c_int;
        #[link_name = "rd_kafka_fatal_error"]
        pub fn fatal_error(rk: *mut sys::rd_kafka_t, text: *mut std::ffi::c_char, size: usize) -> c_int;
        #[link_name = "rd_kafka_event_error"]
        pub fn event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        #[link_name = "rd_kafka_topic_result_error"]
        pub fn topic_result_error(result: *const sys::rd_kafka_topic_result_t) -> c_int;
        #[link_name = "rd_kafka_ConfigResource_error"]
        pub fn config_resource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> c_int;
        #[link_name = "rd_kafka_TopicDescription_authorized_operations"]
        pub fn topic_operations(
            topic: *const sys::rd_kafka_TopicDescription_t,
            count: *mut usize,
        ) -> *const c_int;
        #[link_name = "rd_kafka_query_watermark_offsets"]
        pub fn query_watermark_offsets(
            rk: *mut sys::rd_kafka_t,
            topic: *const std::ffi::c_char,
            partition: i32,
            low: *mut i64,
            high: *mut i64,
            timeout_ms: c_int,
        ) -> c_int;
        #[link_name = "rd_kafka_offsets_for_times"]
        pub fn offsets_for_times(
            rk: *mut sys::rd_kafka_t,
            offsets: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
        #[link_name = "rd_kafka_committed"]
        pub fn committed(
            rk: *mut sys::rd_kafka_t,
            partitions: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
        #[link_name = "rd_kafka_commit"]
        pub fn commit(
            rk: *mut sys::rd_kafka_t,
            partitions: *const sys::rd_kafka_topic_partition_list_t,
            asynchronous: c_int,
        ) -> c_int;
        #[link_name = "rd_kafka_commit_queue"]
        pub fn commit_queue(
            rk: *mut sys::rd_kafka_t,
            partitions: *const sys::rd_kafka_topic_partition_list_t,
            queue: *mut sys::rd_kafka_queue_t,
            callback: Option<unsafe extern "C" fn()>,
            opaque: *mut std::ffi::c_void,
        ) -> c_int;
        #[link_name = "rd_kafka_metadata"]
        pub fn metadata(
            rk: *mut sys::rd_kafka_t,
            all_topics: c_int,
            only: *mut sys::rd_kafka_topic_t,
            metadata: *mut *const sys::rd_kafka_metadata,
            timeout_ms: c_int,
        ) -> c_int;
        #[link_name = "rd_kafka_flush"]
        pub fn flush(rk: *mut sys::rd_kafka_t, timeout_ms: c_int) -> c_int;
        #[link_name = "rd_kafka_assign"]
        pub fn assign(
            rk: *mut sys::rd_kafka_t,
            partitions: *const sys::rd_kafka_topic_partition_list_t,
        ) -> c_int;
    }
}

/// A time limit in librdkafka's milliseconds: rounded up, so that a short wait does not become none, and
/// never negative, because -1 means for ever.
fn millis(timeout: Duration) -> c_int {
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    c_int::try_from(millis).unwrap_or(c_int::MAX)
}

/// A name for C. Names come from configuration, so that an inner NUL is a mistake in it.
fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| KafkaError::config(what, format!("{text:?} contains a NUL byte")))
}

/// A string that librdkafka owns, copied; null counts as empty.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that lives at least during the call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and NUL-terminated by this function's contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A buffer for the error texts that librdkafka writes.
struct ErrorText([c_char; 512]);

impl ErrorText {
    fn new() -> Self {
        Self([0; 512])
    }

    fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn into_string(mut self) -> String {
        // librdkafka terminates what it writes; this holds even if it did not.
        self.0[self.0.len() - 1] = 0;
        // SAFETY: the array ends with a NUL and lives until the end of the call.
        unsafe { text(self.0.as_ptr()) }
    }
}
