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

/// What a target is called, as its corpus is, and what it does with an input: it panics where a promise is broken.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("json", json::target),
    ("key", key::target),
    ("state", state::target),
    ("segment", segment::target),
    ("control", control::target),
    ("pipeline", pipeline::target),
    ("sql", sql::target),
    ("window", window::target),
];
