//! Working state: what is cold.
