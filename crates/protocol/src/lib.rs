//! The exactly-once protocol of Onceflow, and the rules of event time, as values and state machines.
//!
//! Nothing here knows a clock, a thread, a file or Kafka: an event goes in, effects come out. So the simulator runs the very
//! code that ships.

mod error;
mod time;
mod window;

pub use error::ErrorKind;
pub use time::{EventTime, Frontiers, Watermark};
pub use window::WindowSpec;
