//! The shell of Onceflow: what touches files, Kafka, threads and the network. The rules live in `onceflow-protocol` and
//! `onceflow-engine`.

pub mod demo;
pub mod http;
pub mod kafka;
pub mod metrics;
pub mod settings;
pub mod state;
pub mod storage;
pub mod telemetry;
