//! The exactly-once protocol of Onceflow, and the rules of event time, as values and state machines.
//!
//! Nothing here knows a clock, a thread, a file or Kafka: an event goes in, effects come out. So the simulator runs the very
//! code that ships.

pub mod coordinator;
mod disorder;
mod epoch_gate;
mod error;
mod ids;
mod partition_clock;
pub mod planted;
mod records;
mod time;
mod window;

pub use disorder::Disorder;
pub use epoch_gate::EpochGate;
pub use error::ErrorKind;
pub use ids::{ClaimId, Epoch, NextOffset, Offset};
pub use partition_clock::{Delay, PartitionClock, WentBack};
pub use records::{Claim, Counts, Decision, FORMAT_VERSION, ManifestRef, Position, TopicIdentity};
pub use time::{EventTime, Frontiers, Watermark};
pub use window::WindowSpec;
