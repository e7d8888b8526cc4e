//! Onceflow.
mod kafka;
fn main() {}
