//! A real Kafka, and the daemon on it, hurt in every way that one machine can be made to.
//!
//! Each scenario writes orders at a rate, does harm, lets the daemon recover by itself, and compares the committed output with the
//! fold of the input: nothing lost, nothing doubled. `make test` runs a few rounds of those that a busy machine cannot upset,
//! `make chaos` many rounds of all, one after the other, with a line for each event. `docs/chaos.md` says how a run is repeated.

mod broker;
mod cluster;
mod kills;
mod limits;
mod run;
mod storage;
mod time_limits;
mod topics;
mod zombies;
