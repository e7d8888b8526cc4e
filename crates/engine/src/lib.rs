//! Plans, expressions, operators, keyed state and formats of Onceflow.
//!
//! No Kafka, no RocksDB, no clock, no threads: records come in as [`message::MessageBatch`], leave as [`output::Output`], and
//! state leaves and comes back as rows.

pub mod batch;
pub mod config;
pub mod dead_letter;
pub mod diagnostics;
mod errors_stream;
pub mod expr;
pub mod formats;
pub mod kafka_properties;
pub mod lookup;
pub mod message;
pub mod metadata;
pub mod operators;
pub mod output;
pub mod plan;
pub mod rehearsal;
pub mod state;
pub mod worker;
