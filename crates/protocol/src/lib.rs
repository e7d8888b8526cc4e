//! Onceflow.

mod error;

pub use error::ErrorKind;
