//! The shell of Onceflow: what touches files, Kafka, threads and the network. The rules live in `onceflow-protocol` and
//! `onceflow-engine`.

pub mod state;
pub mod storage;
