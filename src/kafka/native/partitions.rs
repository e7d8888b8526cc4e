//! Lists of (topic, partition, offset), and the consumer calls that take one.

use std::ptr::NonNull;
use std::time::Duration;

use rdkafka_sys as sys;

use super::super::errors::{KafkaError, Result};
use super::client::Client;
use super::{c_string, millis, raw, text};

/// librdkafka's list of partitions.
pub(in crate::kafka) struct Partitions(NonNull<sys::rd_kafka_topic_partition_list_t>);

/// One entry of an answer: topic, partition, and an offset, or nothing where librdkafka has a negative one.
pub(in crate::kafka) type Entry = (String, i32, Option<i64>);

impl Partitions {
    /// A list of partitions with an offset each; what the offset means depends on the call.
    ///
    /// # Errors
    /// `Config` for a topic name with an inner NUL.
    pub fn new<'a>(entries: impl IntoIterator<Item = (&'a str, i32, i64)>) -> Result<Self> {
        // SAFETY: the call takes only a size hint; null is handled.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(16) };
        let list = NonNull::new(list)
            .map(Self)
            .ok_or_else(|| KafkaError::bug("list Kafka partitions", "no memory for a list"))?;
        for (topic, partition, offset) in entries {
            let name = c_string("list Kafka partitions", topic)?;
            // SAFETY: the list is alive, the name is copied, and the returned element (never null, the
            // library aborts without memory) belongs to the list.
            unsafe {
                let element =
                    sys::rd_kafka_topic_partition_list_add(list.0.as_ptr(), name.as_ptr(), partition);
                (*element).offset = offset;
            }
        }
        Ok(list)
    }

    /// The entries, or the first error that stands in one of them.
    fn entries(&self, client: &Client, what: &str) -> Result<Vec<Entry>> {
        // SAFETY: the list is alive, `elems` holds `cnt` elements, and strings in it are NUL-terminated.
        // The error is read as an integer, see the module header.
        unsafe {
            let list = self.0.as_ref();
            let count = usize::try_from(list.cnt).unwrap_or(0);
            (0..count)
                .map(|i| {
                    let element = list.elems.add(i);
                    let (topic, partition) = (text((*element).topic), (*element).partition);
                    let code = std::ptr::addr_of!((*element).err).cast::<std::ffi::c_int>().read();
                    client.check(&format!("{what} of {topic} [{partition}]"), code)?;
                    let offset = (*element).offset;
                    Ok((topic, partition, (offset >= 0).then_some(offset)))
                })
                .collect()
        }
    }

    /// Starts fetching these partitions at their offsets, instead of any earlier assignment.
    ///
    /// # Errors
    /// `Config` or `Bug` from librdkafka's checks of its arguments.
    pub fn assign(&self, client: &Client) -> Result<()> {
        // SAFETY: both objects are alive; librdkafka copies the list.
        let code = unsafe { raw::assign(client.as_ptr(), self.0.as_ptr()) };
        client.check("assign partitions", code)
    }

    /// Commits group offsets without waiting for the broker; a failure is only logged by librdkafka.
    ///
    /// # Errors
    /// What librdkafka objects to at once.
    pub fn commit(&self, client: &Client) -> Result<()> {
        // SAFETY: as for `assign`; 1 means asynchronous.
        let code = unsafe { raw::commit(client.as_ptr(), self.0.as_ptr(), 1) };
        client.check("commit group offsets", code)
    }

    /// Commits group offsets and waits for the broker's answer. (Not `rd_kafka_commit`, whose synchronous form
    /// has no time limit.)
    ///
    /// # Errors
    /// Whatever the coordinator answers; `Retry` without an answer in time.
    pub fn commit_and_wait(&self, client: &Client, timeout: Duration) -> Result<()> {
        let what = "commit group offsets";
        // SAFETY: a live client; the queue and the event are ours and are destroyed once, the event before
        // its queue. Without a callback the answer is an event of the queue, whatever is still outstanding.
        unsafe {
            let queue = sys::rd_kafka_queue_new(client.as_ptr());
            if queue.is_null() {
                return Err(KafkaError::bug(what, "no memory for a queue"));
            }
            let sent = raw::commit_queue(client.as_ptr(), self.0.as_ptr(), queue, None, std::ptr::null_mut());
            let result = if sent == 0 {
                let event = sys::rd_kafka_queue_poll(queue, millis(timeout));
                if event.is_null() {
                    Err(KafkaError::timed_out(what, "no answer from the group's coordinator"))
                } else {
                    let code = raw::event_error(event);
                    sys::rd_kafka_event_destroy(event);
                    client.check(what, code)
                }
            } else {
                Err(client.error(what, sent))
            };
            sys::rd_kafka_queue_destroy(queue);
            result
        }
    }

    /// Looks up the first offset at or after a time in each partition; the offsets of the list are times, milliseconds since 1970.
    ///
    /// # Errors
    /// `Retry` without a leader in time, `Config` for a partition that does not exist.
    pub fn offsets_for_times(&self, client: &Client, timeout: Duration) -> Result<Vec<Entry>> {
        // SAFETY: as for `assign`; librdkafka writes the answer into the list.
        let code = unsafe { raw::offsets_for_times(client.as_ptr(), self.0.as_ptr(), millis(timeout)) };
        client.check("look up offsets by time", code)?;
        self.entries(client, "look up the offset by time")
    }

    /// Reads the group's committed offsets of these partitions.
    ///
    /// # Errors
    /// `Retry` without a coordinator, `Config` without permission.
    pub fn committed(&self, client: &Client, timeout: Duration) -> Result<Vec<Entry>> {
        // SAFETY: as for `assign`; librdkafka writes the answer into the list.
        let code = unsafe { raw::committed(client.as_ptr(), self.0.as_ptr(), millis(timeout)) };
        client.check("read committed group offsets", code)?;
        self.entries(client, "read the committed group offset")
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        // SAFETY: created by us and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) }
    }
}
