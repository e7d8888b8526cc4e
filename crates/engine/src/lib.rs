//! Onceflow.
