//! Onceflow.

pub mod kafka_properties;
