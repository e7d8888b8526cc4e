//! Keyed state: group tables in memory, the rows that changed on their way to a segment, panes that memory cannot hold.
//!
//! ```text
//! batch ─→ window_state: pane by pane ─→ table: key bytes → group ─→ aggregate: typed columns
//!                │ barrier
//!                ├─ close, merge: rows of the windows that fire
//!                ├─ purge:        panes whose last window is done
//!                └─ freeze:       rows that changed ─→ segment (a file) ─→ extents (which of its parts are live)
//!                                 evict: a whole pane ─→ cold (sorted runs)
//! ```
//!
//! Everything durable is ours and versioned: the key encoding ([`key`]), the aggregate states ([`aggregate`]), the rows
//! ([`rows`]) and the file around them ([`segment`]). Bytes from disk give errors when they are damaged, never a panic.

pub mod aggregate;
mod bytes;
pub mod cold;
mod error;
pub mod extents;
pub mod key;
mod merge;
pub mod rows;
pub mod segment;
pub mod table;
pub mod window_state;

pub use error::StateError;

/// Version of everything below the segment's own framing: key encoding, hash, lanes, aggregate states, rows. What another
/// version wrote is refused, not guessed at.
pub const LAYOUT_VERSION: u16 = 1;
