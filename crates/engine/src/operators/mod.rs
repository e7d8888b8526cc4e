//! What the worker does to rows: each operator takes a batch and returns a batch, and says which rows failed and why.

pub mod counts;
pub(crate) mod fate;
pub(crate) mod order;
pub(crate) mod rows;
pub(crate) mod sink;
