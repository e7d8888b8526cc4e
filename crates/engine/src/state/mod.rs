//! Keyed state.

pub mod cold;
