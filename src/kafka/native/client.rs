//! One librdkafka client, its callbacks, and the calls that any kind of client has.
//!
//! Callbacks are few and do little: log lines go to `tracing` (target `librdkafka`), client errors, failed
//! deliveries and statistics are kept for whoever asks. They run on librdkafka's threads (logs) or inside our own calls
//! (errors and delivery reports, served by poll, flush and commit).

use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onceflow_protocol::ErrorKind;
use rdkafka_sys as sys;

use super::super::errors::{Code, Flags, KafkaError, Result, code_of};
use super::super::permissions::{Operation, Resource};
use super::conf::Conf;
use super::{ErrorText, c_string, millis, raw, text};

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kafka) enum Role {
    /// Reads assigned partitions.
    Consumer,
    /// Writes, or administrates: librdkafka's admin calls go through any client.
    Producer,
}

/// Client errors are kept up to this many; the newest say most about the present.
const KEPT_ERRORS: usize = 16;

/// What the callbacks left behind.
#[derive(Default)]
struct Events {
    errors: VecDeque<KafkaError>,
    /// The newest client error's text: the reason behind a later, bare time-out.
    last: Option<(Instant, String)>,
    failed_delivery: Option<KafkaError>,
    /// The newest, where they were asked for.
    statistics: Option<String>,
}

/// A librdkafka client. Destroyed when the last owner of the `Arc` goes, which may take until its threads
/// have ended.
pub(in crate::kafka) struct Client {
    rk: NonNull<sys::rd_kafka_t>,
    /// Also reachable by the callbacks, through the client's opaque pointer. Boxed by the `Arc`, and freed
    /// after the client is destroyed, because fields are dropped after `Drop::drop`.
    events: Arc<Mutex<Events>>,
}

// SAFETY: librdkafka's client handle may be used from any thread and from several at once (its INTRODUCTION,
// "Threads and callbacks"); the events are behind a mutex.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// Creates a client. This connects to nothing yet.
    ///
    /// # Errors
    /// `Config` for properties that librdkafka refuses, alone or together.
    pub fn new(role: Role, conf: &Conf) -> Result<Arc<Self>> {
        let native = conf.build()?;
        let events = Arc::new(Mutex::new(Events::default()));
        let opaque = Arc::as_ptr(&events).cast_mut().cast::<c_void>();
        // SAFETY: the configuration is ours until `rd_kafka_new` succeeds. `opaque` stays valid as long as
        // callbacks can run, since the client keeps `events` until it is destroyed.
        unsafe {
            sys::rd_kafka_conf_set_opaque(native.as_ptr(), opaque);
            sys::rd_kafka_conf_set_log_cb(native.as_ptr(), Some(on_log));
            sys::rd_kafka_conf_set_error_cb(native.as_ptr(), Some(on_error));
            match role {
                Role::Producer => sys::rd_kafka_conf_set_dr_msg_cb(native.as_ptr(), Some(on_delivery)),
                Role::Consumer => sys::rd_kafka_conf_set_stats_cb(native.as_ptr(), Some(on_statistics)),
            }
        }
        let kind = match role {
            Role::Consumer => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Role::Producer => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        let mut message = ErrorText::new();
        // SAFETY: the configuration is valid and the buffer is as long as we say. On success librdkafka owns
        // the configuration; on failure it is still ours and is dropped.
        let rk = unsafe { sys::rd_kafka_new(kind, native.as_ptr(), message.as_mut_ptr(), message.len()) };
        let Some(rk) = NonNull::new(rk) else {
            return Err(KafkaError::config("create a Kafka client", message.into_string()));
        };
        native.forget();
        let client = Arc::new(Self { rk, events });
        if role == Role::Consumer {
            // Errors and events then arrive where `poll_consumer` serves them.
            // SAFETY: a live consumer.
            unsafe { sys::rd_kafka_poll_set_consumer(client.as_ptr()) };
        }
        Ok(client)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.rk.as_ptr()
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client errors since the last call, oldest first (at most sixteen).
    pub fn take_errors(&self) -> Vec<KafkaError> {
        self.events().errors.drain(..).collect()
    }

    /// A consumer's newest statistics (JSON), if new ones have come since the last call.
    pub fn take_statistics(&self) -> Option<String> {
        self.events().statistics.take()
    }

    /// Serves the callbacks of a producer, and tells of what no waiting mends: a refused password, a refused certificate.
    ///
    /// # Errors
    /// `Config`.
    pub fn hopeless(&self) -> Result<()> {
        self.poll_producer(Duration::ZERO);
        self.take_errors().into_iter().find(|error| error.kind == ErrorKind::Config).map_or(Ok(()), Err)
    }

    /// The newest client error that names a cause, with its age: often the reason behind a bare time-out.
    pub fn last_trouble(&self) -> Option<String> {
        let events = self.events();
        let (at, message) = events.last.as_ref()?;
        Some(format!("{message} ({} s ago)", at.elapsed().as_secs()))
    }

    /// The first failed delivery of this client, but a record that was refused for its own sake goes before
    /// those that failed beside it.
    pub fn failed_delivery(&self) -> Option<KafkaError> {
        self.events().failed_delivery.clone()
    }

    /// Serves callbacks of a producer, waiting up to `timeout` for one.
    pub fn poll_producer(&self, timeout: Duration) {
        // SAFETY: a live client; callbacks get only the opaque pointer that `new` explains.
        unsafe { sys::rd_kafka_poll(self.as_ptr(), millis(timeout)) };
    }

    /// The error of a call that returned a bare code.
    pub(super) fn error(&self, what: &str, code: c_int) -> KafkaError {
        self.explain(what, code_of(code), Flags::default(), String::new())
    }

    /// The result of a call that returned a bare code.
    pub(super) fn check(&self, what: &str, code: c_int) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.error(what, code)) }
    }

    /// The result of a call that returned an error object, which is consumed.
    ///
    /// # Safety
    /// `error` is null or an error object that the caller owns.
    pub(super) unsafe fn check_object(&self, what: &str, error: *mut sys::rd_kafka_error_t) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: a live error object by this function's contract; its text is copied before it is destroyed,
        // and it is destroyed once.
        let (code, flags, message) = unsafe {
            let flags = Flags {
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                requires_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            };
            let parts = (code_of(raw::error_code(error)), flags, text(sys::rd_kafka_error_string(error)));
            sys::rd_kafka_error_destroy(error);
            parts
        };
        Err(self.explain(what, code, flags, message))
    }

    /// Adds what this client knows: the cause behind `_FATAL`, and the last trouble behind a bare time-out.
    pub(super) fn explain(&self, what: &str, code: Code, flags: Flags, message: String) -> KafkaError {
        if (flags.fatal || code == Code::Fatal)
            && let Some((cause, cause_message)) = self.fatal_cause()
        {
            return KafkaError::from_flags(what, cause, Flags { fatal: true, ..flags }, cause_message);
        }
        let mut error = KafkaError::from_flags(what, code, flags, message);
        if matches!(code, Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown)
            && let Some(last) = self.last_trouble()
        {
            error.message = format!("{}; the client's last trouble: {last}", error.message);
        }
        error
    }

    /// The error that made this client unusable, if any.
    pub fn fatal_cause(&self) -> Option<(Code, String)> {
        fatal_cause(self.rk.as_ptr())
    }

    /// Waits up to `timeout` for the cluster's id. `None`: no answer, or brokers older than 0.10.1.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: a live client; the returned string is ours, copied, and freed by librdkafka's own function.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.as_ptr(), millis(timeout));
            if id.is_null() {
                return None;
            }
            let copy = text(id);
            sys::rd_kafka_mem_free(self.as_ptr(), id.cast());
            Some(copy)
        }
    }

    /// The ids of the live brokers.
    ///
    /// # Errors
    /// `Retry` when no broker answers in time; `Config` without permission.
    pub fn broker_ids(&self, timeout: Duration) -> Result<Vec<i32>> {
        let what = "read the cluster's metadata";
        let mut metadata = std::ptr::null();
        // SAFETY: a live client; `metadata` receives an object that is ours on success.
        let code =
            unsafe { raw::metadata(self.as_ptr(), 0, std::ptr::null_mut(), &mut metadata, millis(timeout)) };
        self.check(what, code)?;
        // SAFETY: success means a valid object with `broker_cnt` brokers; destroyed once, after copying.
        unsafe {
            let count = usize::try_from((*metadata).broker_cnt).unwrap_or(0);
            let brokers = if count == 0 {
                Vec::new()
            } else {
                std::slice::from_raw_parts((*metadata).brokers, count).iter().map(|b| b.id).collect()
            };
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(brokers)
        }
    }

    /// The names of all topics that this client may see, Kafka's own among them.
    ///
    /// # Errors
    /// `Retry` when no broker answers in time; `Config` without permission.
    pub fn topic_names(&self, timeout: Duration) -> Result<Vec<String>> {
        let what = "list the cluster's topics";
        let mut metadata = std::ptr::null();
        // SAFETY: a live client; `metadata` receives an object that is ours on success.
        let code =
            unsafe { raw::metadata(self.as_ptr(), 1, std::ptr::null_mut(), &mut metadata, millis(timeout)) };
        self.check(what, code)?;
        // SAFETY: success means a valid object with `topic_cnt` topics, each with a NUL-terminated name; destroyed once, after copying.
        // Of a topic only the name is touched, since its error code may be one that the bindings lack.
        unsafe {
            let count = usize::try_from((*metadata).topic_cnt).unwrap_or(0);
            let name = |i: usize| text(std::ptr::addr_of!((*(*metadata).topics.add(i)).topic).read());
            let topics = (0..count).map(name).collect();
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(topics)
        }
    }

    /// A partition's first offset and, depending on the client's isolation level, its last stable offset or
    /// its high watermark, asked of the leader.
    ///
    /// # Errors
    /// `Retry` when no leader answers in time, `Config` for a partition that does not exist.
    pub fn query_bounds(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64)> {
        let what = format!("read the offsets of {topic} [{partition}]");
        let name = c_string(&what, topic)?;
        let (mut low, mut end) = (0, 0);
        // SAFETY: a live client, a NUL-terminated name, and two places for the answers.
        let code = unsafe {
            raw::query_watermark_offsets(
                self.as_ptr(),
                name.as_ptr(),
                partition,
                &mut low,
                &mut end,
                millis(timeout),
            )
        };
        self.check(&what, code)?;
        Ok((low, end))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: nobody else can hold the pointer any more, since whatever belongs to the client keeps its
        // `Arc`. No group was joined, so there is nothing to leave: consumer close is skipped, because it
        // would wait for a coordinator that may be away.
        unsafe {
            sys::rd_kafka_destroy_flags(self.rk.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
    }
}

fn fatal_cause(rk: *mut sys::rd_kafka_t) -> Option<(Code, String)> {
    let mut message = ErrorText::new();
    // SAFETY: called with a live client only; the buffer is as long as we say.
    let code = unsafe { raw::fatal_error(rk, message.as_mut_ptr(), message.len()) };
    (code != 0).then(|| (code_of(code), message.into_string()))
}

/// The events behind a callback's opaque pointer.
///
/// # Safety
/// `opaque` is what `Client::new` set, and its client is not destroyed yet.
unsafe fn events_of<'a>(opaque: *mut c_void) -> MutexGuard<'a, Events> {
    // SAFETY: by this function's contract the pointer is the inside of an `Arc` that the client keeps.
    let events = unsafe { &*opaque.cast::<Mutex<Events>>() };
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

/// librdkafka's log lines. Its levels are syslog's; even its errors are only warnings here, since what
/// follows from them is decided, and logged, where the error arrives.
unsafe extern "C" fn on_log(
    rk: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes a live client and NUL-terminated strings.
    let (client, facility, line) = unsafe {
        let client = if rk.is_null() { String::new() } else { text(sys::rd_kafka_name(rk)) };
        (client, text(facility), text(line))
    };
    match level {
        // A new cluster's coordinators take a moment to come up, and the client asks again: nobody has anything to do about that.
        0..=4 if line.ends_with(": retrying") => {
            tracing::info!(target: "librdkafka", client, facility, "{line}")
        }
        // Every client gets all of the user's properties, and leaves those alone that are for the others.
        0..=4 if facility == "CONFWARN" && line.contains(" and will be ignored by this ") => {
            tracing::debug!(target: "librdkafka", client, facility, "{line}")
        }
        0..=4 => tracing::warn!(target: "librdkafka", client, facility, "{line}"),
        5 | 6 => tracing::debug!(target: "librdkafka", client, facility, "{line}"),
        _ => tracing::trace!(target: "librdkafka", client, facility, "{line}"),
    }
}

/// Errors of the client as a whole: brokers that are down, authentication, fatal errors.
unsafe extern "C" fn on_error(
    rk: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes a NUL-terminated reason and the opaque pointer of `Client::new`.
    let (reason, mut events) = unsafe { (text(reason), events_of(opaque)) };
    let what = "talk to Kafka";
    let error = match (code_of(code), fatal_cause(rk)) {
        (Code::Fatal, Some((cause, message))) => {
            KafkaError::from_flags(what, cause, Flags { fatal: true, ..Flags::default() }, message)
        }
        (code, _) => KafkaError::from_code(what, code, reason),
    };
    // "All brokers are down" only sums up what was said about each of them.
    if error.code != Some(Code::AllBrokersDown) || events.last.is_none() {
        let advice = error.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        events.last = Some((Instant::now(), format!("{}{advice}", error.message)));
    }
    if events.errors.len() == KEPT_ERRORS {
        events.errors.pop_front();
    }
    events.errors.push_back(error);
}

/// A client's own figures, every `statistics.interval.ms`.
unsafe extern "C" fn on_statistics(
    _rk: *mut sys::rd_kafka_t,
    json: *mut c_char,
    _length: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes NUL-terminated JSON and the opaque pointer of `Client::new`.
    let (json, mut events) = unsafe { (text(json), events_of(opaque)) };
    events.statistics = Some(json);
    // Zero: librdkafka frees its text.
    0
}

/// Delivery reports. With `delivery.report.only.error` only failures arrive.
unsafe extern "C" fn on_delivery(
    rk: *mut sys::rd_kafka_t,
    message: *const sys::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: librdkafka passes a live message and the opaque pointer of `Client::new`. The code is read as
    // an integer, see the module header.
    let (code, topic, what, reason, mut events) = unsafe {
        let code = std::ptr::addr_of!((*message).err).cast::<c_int>().read();
        if code == 0 {
            return;
        }
        let topic = text(sys::rd_kafka_topic_name((*message).rkt));
        let what = format!(
            "deliver a record of {} key and {} value bytes to {topic} [{}]",
            (*message).key_len,
            (*message).len,
            (*message).partition
        );
        // Not `rd_kafka_message_errstr`: for a produced message that would return its value as a C string.
        (code, topic, what, text(sys::rd_kafka_message_produce_errstr(message)), events_of(opaque))
    };
    let topic = Resource::Topic(topic);
    let error = match (code_of(code), fatal_cause(rk)) {
        // Records fail in several ways once the client is unusable; the cause says more.
        (_, Some((cause, message))) => {
            KafkaError::from_flags(what, cause, Flags { fatal: true, ..Flags::default() }, message)
        }
        // The message was given up after the client's own retries: nothing of this transaction can be saved.
        (code, None) => {
            KafkaError::from_flags(what, code, Flags { requires_abort: true, ..Flags::default() }, reason)
        }
    };
    let error = error.needing(Operation::Write, &topic);
    let more_telling = match &events.failed_delivery {
        None => true,
        Some(known) => known.kind == ErrorKind::EpochFailed && error.kind != ErrorKind::EpochFailed,
    };
    if more_telling {
        events.failed_delivery = Some(error);
    }
}
