//! The proof by search: the coordinator and the engine as they ship, against a simulated Kafka and a simulated storage, in one thread,
//! driven by one seed.
//!
//! A seed draws a pipeline, an input, settings and a mix of faults (`hazard`), and then, step by step, who does something next. Every
//! effect of an instance is a step of its own, so that a crash, a pause or another instance may come between any two. The
//! judge (`judge`) compares every commit with what it works out from the input itself. The same seed gives the same run.
//!
//! What is *not* simulated is the daemon's own shell (`src/`): its threads and its calls to librdkafka, RocksDB and the file system. Sink,
//! keeper and worker threads have stand-ins here that follow the same rules; the shell itself is tested against a real Kafka.

mod coverage;
mod engine;
mod fold;
mod hazard;
mod instance;
mod judge;
mod kafka;
mod keeper;
mod messages;
mod outside;
mod questions;
mod rng;
mod row;
mod segments;
mod sink;
mod storage;
mod task;
mod worker;
mod world;

pub use coverage::Coverage;
pub use engine::Plans;
pub use world::{Report, run};
