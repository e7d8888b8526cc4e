//! The daemon against a real Kafka, in one binary, so that all scenarios share one broker.
//!
//! `cargo build --release --workspace` comes first: the binary under test is not built by `cargo test`. One scenario alone:
//! `cargo test --release --workspace --test main kill_points::`.

mod api;
mod bad_records;
mod bounded_runs;
mod changes;
mod command_line;
mod connect;
mod container;
mod deduplicate;
mod disorder;
mod fencing;
mod harness;
mod hostile;
mod http;
mod kill_points;
mod kills;
mod refusals;
mod reload;
mod savepoints;
mod secrets;
mod security;
mod service;
mod sinks;
mod sources;
mod stateless;
mod topology;
mod transactions;
mod why_key;
