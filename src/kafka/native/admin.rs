//! Administrative requests, each made and waited for in one call: a private queue, one request, one answer.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka_sys as sys;
use sys::rd_kafka_admin_op_t as op;

use super::super::errors::{Code, Flags, KafkaError, Result, code_of};
use super::super::permissions::{Operation, Resource as Guarded};
use super::client::Client;
use super::{ErrorText, c_string, millis, raw, text};

/// While an answer is awaited, the client is asked this often whether there is any hope.
const STEP: Duration = Duration::from_millis(100);

/// Whose configuration is asked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka) enum ConfigOf<'a> {
    /// A topic's.
    Topic(&'a str),
    /// A broker's.
    Broker(i32),
}

/// What DescribeTopics says of a topic.
pub(in crate::kafka) struct Description {
    /// The topic's id, base64; it changes when a topic is deleted and created anew.
    pub id: Option<String>,
    /// The number of replicas of each partition, by partition number.
    pub replicas: Vec<usize>,
    /// What this client may do with the topic, where that was asked for and the broker tells.
    pub operations: Option<Vec<Operation>>,
}

/// A queue for the answers of one client's requests.
pub(in crate::kafka) struct AdminQueue {
    // Declared first, so that it goes before the client could.
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Arc<Client>,
}

/// Options of a request; destroyed at the end of the call.
struct Options(NonNull<sys::rd_kafka_AdminOptions_t>);

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// An answer; what it names lives as long as it does.
struct Answer(NonNull<sys::rd_kafka_event_t>);

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

impl AdminQueue {
    /// A queue of its own for `client`.
    ///
    /// # Errors
    /// `Bug` without memory.
    pub fn new(client: &Arc<Client>) -> Result<Self> {
        // SAFETY: a live client; null is handled.
        let queue = unsafe { sys::rd_kafka_queue_new(client.as_ptr()) };
        let queue = NonNull::new(queue)
            .ok_or_else(|| KafkaError::bug("open a queue for administrative answers", "no memory"))?;
        Ok(Self { queue, client: Arc::clone(client) })
    }

    fn options(&self, what: &str, request: op, timeout: Duration) -> Result<Options> {
        // SAFETY: a live client; null is handled.
        let options = unsafe { sys::rd_kafka_AdminOptions_new(self.client.as_ptr(), request) };
        let options = NonNull::new(options).map(Options).ok_or_else(|| KafkaError::bug(what, "no memory"))?;
        let mut message = ErrorText::new();
        // SAFETY: live options and a buffer as long as we say.
        let result = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.0.as_ptr(),
                millis(timeout).clamp(1, 3_600_000),
                message.as_mut_ptr(),
                message.len(),
            )
        };
        match result {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(options),
            _ => Err(KafkaError::bug(what, message.into_string())),
        }
    }

    /// Waits for the answer to the request just made. The queue has no other.
    fn answer(&self, what: &str, expected: c_int, timeout: Duration) -> Result<Answer> {
        // The request has the same limit, and answers with a time-out of its own; waiting a little longer
        // gets that answer, with its reason, and leaves none behind in the queue.
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        // What was wrong before this request may be right by now.
        self.client.take_errors();
        let answer = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: a live queue; an event that is returned is ours.
            let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), millis(left.min(STEP))) };
            if let Some(answer) = NonNull::new(event).map(Answer) {
                break answer;
            }
            self.client.hopeless().map_err(|error| KafkaError { what: what.to_owned(), ..error })?;
            if left.is_zero() {
                return Err(KafkaError::timed_out(what, "no answer from any broker"));
            }
        };
        // SAFETY: a live event; its text is copied.
        let (kind, code, message) = unsafe {
            let event = answer.0.as_ptr();
            let code = raw::event_error(event);
            let message =
                if code == 0 { String::new() } else { text(sys::rd_kafka_event_error_string(event)) };
            (sys::rd_kafka_event_type(event), code, message)
        };
        if code != 0 {
            // So that what went wrong meanwhile is known.
            self.client.poll_producer(Duration::ZERO);
            return Err(self.client.explain(what, code_of(code), Flags::default(), message));
        }
        if kind != expected {
            return Err(KafkaError::bug(what, format!("an answer of type {kind} instead of {expected}")));
        }
        Ok(answer)
    }

    /// Creates a topic; `only_try`: asks whether it would be. `Ok(false)`: there is one of this name already.
    ///
    /// # Errors
    /// `Config` for what the broker refuses, `Retry` without an answer (the topic may exist then).
    pub fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        replication: i32,
        config: &[(&str, String)],
        only_try: bool,
        timeout: Duration,
    ) -> Result<bool> {
        let what = format!("create topic {name}");
        let c_name = c_string(&what, name)?;
        let mut message = ErrorText::new();
        // SAFETY: a NUL-terminated name, which is copied, and a buffer as long as we say.
        let topic = unsafe {
            sys::rd_kafka_NewTopic_new(
                c_name.as_ptr(),
                partitions,
                replication,
                message.as_mut_ptr(),
                message.len(),
            )
        };
        let Some(topic) = NonNull::new(topic).map(NewTopic) else {
            return Err(KafkaError::config(what, message.into_string()));
        };
        for (key, value) in config {
            let (key, value) = (c_string(&what, key)?, c_string(&what, value)?);
            // SAFETY: a live object and NUL-terminated strings, which are copied. It refuses only a null name.
            unsafe { sys::rd_kafka_NewTopic_set_config(topic.0.as_ptr(), key.as_ptr(), value.as_ptr()) };
        }
        let options = self.options(&what, op::RD_KAFKA_ADMIN_OP_CREATETOPICS, timeout)?;
        if only_try {
            // SAFETY: live options and a buffer as long as we say. It refuses only requests that do not know this option.
            unsafe {
                sys::rd_kafka_AdminOptions_set_validate_only(
                    options.0.as_ptr(),
                    1,
                    message.as_mut_ptr(),
                    message.len(),
                )
            };
        }
        let mut topics = [topic.0.as_ptr()];
        // SAFETY: all objects are alive during the call, which copies them.
        unsafe {
            sys::rd_kafka_CreateTopics(
                self.client.as_ptr(),
                topics.as_mut_ptr(),
                topics.len(),
                options.0.as_ptr(),
                self.queue.as_ptr(),
            );
        }
        let answer = self.answer(&what, sys::RD_KAFKA_EVENT_CREATETOPICS_RESULT, timeout)?;
        // SAFETY: the answer has the type checked above and owns what it names; texts are copied.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_CreateTopics_result(answer.0.as_ptr());
            let results = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
            if count != 1 {
                return Err(KafkaError::bug(what, format!("{count} answers for one topic")));
            }
            let code = code_of(raw::topic_result_error(*results));
            match code {
                Code::NoError => Ok(true),
                Code::TopicAlreadyExists => Ok(false),
                code => {
                    let message = text(sys::rd_kafka_topic_result_error_string(*results));
                    let topic = Guarded::Topic(name.to_owned());
                    Err(KafkaError::from_code(what, code, message).needing(Operation::Create, &topic))
                }
            }
        }
    }

    /// Reads a topic's or a broker's configuration, defaults included. A value that is null or hidden is left
    /// out.
    ///
    /// # Errors
    /// `Config` for a topic that does not exist or without permission, `Retry` without an answer.
    pub fn describe_config(&self, of: ConfigOf<'_>, timeout: Duration) -> Result<BTreeMap<String, String>> {
        let (what, kind, name) = match of {
            ConfigOf::Topic(topic) => (
                format!("read the configuration of topic {topic}"),
                sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                topic.to_owned(),
            ),
            ConfigOf::Broker(id) => (
                format!("read the configuration of broker {id}"),
                sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER,
                id.to_string(),
            ),
        };
        let c_name = c_string(&what, &name)?;
        // SAFETY: a NUL-terminated name, which is copied; null is handled.
        let resource = unsafe { sys::rd_kafka_ConfigResource_new(kind, c_name.as_ptr()) };
        let resource =
            NonNull::new(resource).map(Resource).ok_or_else(|| KafkaError::bug(&what, "no memory"))?;
        let options = self.options(&what, op::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, timeout)?;
        let mut resources = [resource.0.as_ptr()];
        // SAFETY: all objects are alive during the call, which copies them.
        unsafe {
            sys::rd_kafka_DescribeConfigs(
                self.client.as_ptr(),
                resources.as_mut_ptr(),
                resources.len(),
                options.0.as_ptr(),
                self.queue.as_ptr(),
            );
        }
        let answer = self.answer(&what, sys::RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT, timeout)?;
        // SAFETY: the answer has the type checked above and owns what it names; texts are copied.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_DescribeConfigs_result(answer.0.as_ptr());
            let results = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
            if count != 1 {
                return Err(KafkaError::bug(what, format!("{count} answers for one resource")));
            }
            let code = code_of(raw::config_resource_error(*results));
            if code != Code::NoError {
                let message = text(sys::rd_kafka_ConfigResource_error_string(*results));
                let guarded = match of {
                    ConfigOf::Topic(topic) => Guarded::Topic(topic.to_owned()),
                    ConfigOf::Broker(_) => Guarded::Cluster,
                };
                return Err(
                    KafkaError::from_code(what, code, message).needing(Operation::DescribeConfigs, &guarded)
                );
            }
            let mut count = 0;
            let entries = sys::rd_kafka_ConfigResource_configs(*results, &mut count);
            let mut config = BTreeMap::new();
            for i in 0..count {
                let entry = *entries.add(i);
                let value = sys::rd_kafka_ConfigEntry_value(entry);
                if !value.is_null() {
                    config.insert(text(sys::rd_kafka_ConfigEntry_name(entry)), text(value));
                }
            }
            Ok(config)
        }
    }

    /// Describes a topic, `with_operations` also what this client may do with it; `None` if there is none of this name.
    ///
    /// # Errors
    /// `Config` without permission, `Retry` without an answer.
    pub fn describe_topic(
        &self,
        name: &str,
        with_operations: bool,
        timeout: Duration,
    ) -> Result<Option<Description>> {
        let what = format!("describe topic {name}");
        let c_name = c_string(&what, name)?;
        let mut names: [*const c_char; 1] = [c_name.as_ptr()];
        // SAFETY: one NUL-terminated name, which is copied; null is handled.
        let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) };
        let topics = NonNull::new(topics).map(Topics).ok_or_else(|| KafkaError::bug(&what, "no memory"))?;
        let options = self.options(&what, op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, timeout)?;
        if with_operations {
            // SAFETY: live options. It refuses only requests that do not know this option; destroying null does nothing.
            unsafe {
                let refused =
                    sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0.as_ptr(), 1);
                sys::rd_kafka_error_destroy(refused);
            }
        }
        // SAFETY: all objects are alive during the call, which copies them.
        unsafe {
            sys::rd_kafka_DescribeTopics(
                self.client.as_ptr(),
                topics.0.as_ptr(),
                options.0.as_ptr(),
                self.queue.as_ptr(),
            );
        }
        let answer = self.answer(&what, sys::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, timeout)?;
        // SAFETY: the answer has the type checked above and owns what it names (the error too, which must
        // not be destroyed); texts are copied.
        unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_DescribeTopics_result(answer.0.as_ptr());
            let results = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count != 1 {
                return Err(KafkaError::bug(what, format!("{count} answers for one topic")));
            }
            let error = sys::rd_kafka_TopicDescription_error(*results);
            let code = code_of(raw::error_code(error));
            match code {
                Code::NoError => {}
                Code::UnknownTopicOrPartition | Code::UnknownTopic => return Ok(None),
                code => {
                    let message = text(sys::rd_kafka_error_string(error));
                    let topic = Guarded::Topic(name.to_owned());
                    return Err(
                        KafkaError::from_code(what, code, message).needing(Operation::Describe, &topic)
                    );
                }
            }
            let mut count = 0;
            let partitions = sys::rd_kafka_TopicDescription_partitions(*results, &mut count);
            let replicas = (0..count)
                .map(|i| {
                    let mut replicas = 0;
                    sys::rd_kafka_TopicPartitionInfo_replicas(*partitions.add(i), &mut replicas);
                    replicas
                })
                .collect();
            let id = sys::rd_kafka_TopicDescription_topic_id(*results);
            let id =
                (!id.is_null()).then(|| text(sys::rd_kafka_Uuid_base64str(id))).filter(|id| !id.is_empty());
            let mut count = 0;
            let numbers = raw::topic_operations(*results, &mut count);
            let operations = (with_operations && !numbers.is_null())
                .then(|| (0..count).filter_map(|i| Operation::from_number(*numbers.add(i))).collect());
            Ok(Some(Description { id, replicas, operations }))
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// `Config` where there is none or the broker refuses, `Retry` without an answer.
    #[cfg(test)]
    pub fn delete_topic(&self, name: &str, timeout: Duration) -> Result<()> {
        let what = format!("delete topic {name}");
        let c_name = c_string(&what, name)?;
        let options = self.options(&what, op::RD_KAFKA_ADMIN_OP_DELETETOPICS, timeout)?;
        // SAFETY: all objects are alive during the call, which copies them; the answer owns what it names.
        unsafe {
            let topic = sys::rd_kafka_DeleteTopic_new(c_name.as_ptr());
            let mut topics = [topic];
            sys::rd_kafka_DeleteTopics(
                self.client.as_ptr(),
                topics.as_mut_ptr(),
                topics.len(),
                options.0.as_ptr(),
                self.queue.as_ptr(),
            );
            sys::rd_kafka_DeleteTopic_destroy(topic);
            let answer = self.answer(&what, sys::RD_KAFKA_EVENT_DELETETOPICS_RESULT, timeout)?;
            let mut count = 0;
            let result = sys::rd_kafka_event_DeleteTopics_result(answer.0.as_ptr());
            let results = sys::rd_kafka_DeleteTopics_result_topics(result, &mut count);
            match code_of(raw::topic_result_error(*results)) {
                Code::NoError => Ok(()),
                code => Err(KafkaError::from_code(what, code, "")),
            }
        }
    }
}

impl Drop for AdminQueue {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once; the client outlives it.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

struct NewTopic(NonNull<sys::rd_kafka_NewTopic_t>);

impl Drop for NewTopic {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_NewTopic_destroy(self.0.as_ptr()) }
    }
}

struct Resource(NonNull<sys::rd_kafka_ConfigResource_t>);

impl Drop for Resource {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_ConfigResource_destroy(self.0.as_ptr()) }
    }
}

struct Topics(NonNull<sys::rd_kafka_TopicCollection_t>);

impl Drop for Topics {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) }
    }
}
