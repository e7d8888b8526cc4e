//! Onceflow.
fn main() {}
