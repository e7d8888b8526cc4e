//! The targets; the crate's header says what each promises.

mod control;
mod json;
mod json_model;
mod key;
mod pipeline;
mod segment;
mod sql;
mod state;
mod window;

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("json", json::target),
    ("key", key::target),
    ("state", state::target),
    ("segment", segment::target),
    ("control", control::target),
    ("pipeline", pipeline::target),
    ("sql", sql::target),
    ("window", window::target),
];
