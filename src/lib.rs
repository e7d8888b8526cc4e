//! The shell of Onceflow: what touches files, Kafka, threads and the network. The rules live in `onceflow-protocol` and
//! `onceflow-engine`.

#[cfg(test)]
mod book;
pub mod cli;
mod connect;
mod daemon;
mod demo;
mod http;
mod inputs;
mod kafka;
mod metrics;
mod pipeline;
mod secrets;
mod service_manager;
mod settings;
mod state;
mod storage;
mod supervisor;
mod telemetry;
