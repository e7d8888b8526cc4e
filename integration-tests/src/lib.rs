//! Drives the `onceflow` binary against a real Apache Kafka, and judges what it wrote.
//!
//! Nothing here shares code with the daemon: input is generated and parsed, windows are folded and topics are read by code of its
//! own, so that a mistake in the daemon cannot hide behind the same mistake here. The pieces:
//!
//! | module | holds |
//! | --- | --- |
//! | [`kafka`] | a broker of this test process, topics, records deleted on purpose |
//! | [`topic`] | reading a whole topic, committed or not; producing at a rate |
//! | [`orders`] | the input: orders in JSON from a seed, some far too late, some broken |
//! | [`daemon`] | the daemon as a child process: signals, kill points, logs, exit codes |
//! | [`http`] | a GET over a plain socket |
//! | [`scenario`] | topics, directories and the pipeline file of one test |
//! | [`fold`] | what the output has to be: a plain fold over the input |
//! | [`verify`] | the comparison: every (key, window) once, with exact values; nothing lost, nothing doubled |
//! | [`repeats`] | another input: orders that come again, near and far, in any partition |
//! | [`unique`] | what a deduplication has to make of it: of duplicates one, and the right one |
//!
//! All of it is test code: what goes wrong panics, with the log of the daemon at hand.

pub mod daemon;
pub mod fold;
pub mod http;
pub mod kafka;
pub mod orders;
pub mod repeats;
pub mod rng;
pub mod scenario;
pub mod topic;
pub mod unique;
pub mod verify;
