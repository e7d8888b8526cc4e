//! Kafka: the only place of the daemon that names librdkafka.
//!
//! Everything here is blocking, has time limits and depends on no runtime. Errors are [`KafkaError`]s, whose
//! kind says what the caller must do; one table decides it (`errors`). All `unsafe` code is in `native`.
//!
//! ```text
//! Connection::new(bootstrap_servers, &properties)             properties, checked; one per cluster
//! check(&properties) -> Vec<(name, reason)>
//!
//! Reader::open(&connection, group_id, &[(topic, partition, next_offset)], idle_after) -> (Reader, Vec<PartitionQueue>)
//!   PartitionQueue::poll(max, timeout) -> Fetched { batch: MessageBatch, reached_end: Option<i64> }
//!                 ::next_offset()  ::topic()  ::partition()  ::is_heard()             Send: goes to its worker
//!   MessageBatch::{len, offset(i), timestamp(i), key(i), value(i), size(i), headers(i, visit)}            Send
//!   Reader::{poll_main, commit_offsets, committed, beginning_and_stable_end}
//!
//! TransactionalProducer::create(&connection, &ProducerSettings::new(id, transaction_timeout, &[TopicLimits]))
//!   ::init_transactions(timeout)  ::begin()  ::topic(name) -> TopicRef  ::send(&OutRecord) -> SendError::QueueFull
//!   ::poll(timeout)  ::flush(timeout)  ::commit(timeout)  ::abandon(self)
//!
//! Admin::open(&connection)
//!   ::cluster_id  ::brokers  ::topic_names  ::describe_topic  ::operations  ::describe_configs  ::topic_limits
//!   ::transaction_max_timeout
//!   ::create_topic(&NewTopic, timeout) -> Creation
//! TopicLimits::at(now) -> what the engine checks records against
//!
//! ControlTopic { name, shards }.ensure(&admin, timeout) -> Ensured { created, topic }
//! ControlReader::open(&connection, group_id, topic, partition, Isolation)
//!   ::newest(Until, enough, deadline) -> Newest    ::scan(from, Until, deadline, visit) -> end
//!   ::fate(offset, deadline) -> Fate               ::bounds(deadline) -> Bounds
//! ```
//!
//! `plain` holds clients that share nothing with the above: the demo writes its input and reads its proof with them.
//!
//! Offsets named `next_offset` are the offset to read next, never that of a record. Timestamps are milliseconds
//! since 1970.

#[forbid(unsafe_code)]
mod admin;
#[forbid(unsafe_code)]
mod advice;
#[forbid(unsafe_code)]
mod control_reader;
#[forbid(unsafe_code)]
mod control_topic;
#[forbid(unsafe_code)]
mod errors;
#[forbid(unsafe_code)]
mod leaders;
mod native;
#[forbid(unsafe_code)]
mod permissions;
#[forbid(unsafe_code)]
pub mod plain;
#[forbid(unsafe_code)]
mod producer;
#[forbid(unsafe_code)]
mod properties;
#[forbid(unsafe_code)]
mod reader;
#[cfg(test)]
mod tests;
#[forbid(unsafe_code)]
mod topic_limits;

pub use admin::{Admin, Creation, NewTopic, TopicDescription};
pub use advice::HOW_TO_GRANT;
pub use control_reader::{ControlReader, ControlRecord, Fate, Newest, Until};
pub use control_topic::ControlTopic;
pub use errors::KafkaError;
pub use permissions::{Operation, Permission, Resource, quoted};
pub use producer::{OutRecord, SendError, TopicRef, TransactionalProducer};
pub use properties::{Connection, Isolation, ProducerSettings, check};
pub use reader::{PartitionQueue, Reader};
pub use topic_limits::TopicLimits;
