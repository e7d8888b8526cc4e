//! A running pipeline: the threads around the protocol's coordinator and the engine's workers.
//!
//! ```text
//!            requests                    events                 effects
//! daemon ───────────────→ driver ←───────────────────┐   driver ───────────→ everyone
//!                       (coordinator)                │
//!                                                    │
//! Kafka ──queues──→ worker 0..n ──output, barriers──→ sink ──one transaction an epoch──→ Kafka
//!                       │   ↑                          (owns the producer)
//!             changed   │   │ parts of windows, between workers
//!             rows      ↓
//!                     keeper ──snapshots──→ checkpoint storage
//!                     (owns storage, cold store, consumer)
//! ```
//!
//! A **run** is a set of such threads, from one start to the next failure; after a failure all of it is thrown away.
//! Only the driver, which holds the coordinator, lives on.

mod change;
mod checkpoint_timer;
mod context;
mod drift;
mod driver;
mod history;
mod keeper;
mod kill_point;
mod load;
mod lookup;
mod manifest;
mod messages;
mod meter;
mod requests;
mod rescue;
mod savepoint;
mod sink;
mod status;
mod story;
mod verify;
mod view;
mod why;
mod worker;

pub use context::{Context, Names, SHARD, SINKS, host_name, wall_clock_ms};
pub use driver::{Driver, said};
pub use history::{CheckpointRecord, CheckpointStatus, History};
pub use keeper::foresee;
pub use lookup::{NoAnswer, OfKey, Search};
pub use requests::{Answer, Request};
pub use rescue::rescue;
pub use savepoint::{Savepoint, savepoint_name, savepoints};
pub use status::{PipelineStatus, Status, Statuses};
pub use verify::{VerifiedSnapshot, verify};
pub use view::{Progress, View};
pub use why::{Why, why};
