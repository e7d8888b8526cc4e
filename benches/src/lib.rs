//! What the measurements share: the workload, and what a job's answer to it must be.

pub mod workload;
