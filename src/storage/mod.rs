//! Checkpoint storage on a file system (`file://`).
//!
//! # Layout
//!
//! Everything of one shard lives in one directory, so that one listing finds it:
//!
//! ```text
//! <storage>/<namespace>/<pipeline>/<shard>/
//!     snapshots/<epoch, 20 digits>-<attempt>.snapshot     changed rows of one barrier, its manifest at the end
//!     cold/<incarnation>/<file>                           files of the cold store, as they came up
//!     confirmed                                           the newest confirmed epoch (JSON)
//!     history.jsonl                                       the newest checkpoints, for people
//!     savepoints/<name>/                                  a copy of one snapshot, with the same names, and savepoint.json
//! ```
//!
//! # Guarantees
//!
//! - When [`ShardStorage::create`], [`ShardStorage::link_in`] or [`ShardStorage::replace`] returns `Ok`, the file and every
//!   directory entry on the way to it survive a loss of power. Nothing says so before.
//! - A file appears under its name whole or not at all, and never changes or is overwritten afterwards; only `confirmed` is
//!   replaced, atomically. (The history, which nothing depends on, also grows by lines.)
//! - Names carry an attempt or an incarnation that is random per start, so that a paused instance that wakes up cannot touch
//!   the files of its successor.
//! - No name leaves the shard's directory.
//! - A failed call leaves no file under the asked name, unless it says [`StorageErrorKind::Exists`] or only the last `fsync`
//!   of a directory failed; repeating the call is always safe.
//!
//! # Recovery
//!
//! Nothing here decides what counts: decisions in Kafka do. What a crash leaves behind, temporary files (`*.tmp`) among it,
//! is in [`ShardStorage::list`] and named by no manifest; the next start removes it.

mod durable;
mod error;
mod name;
mod shard;

pub use error::{StorageError, StorageErrorKind};
pub use name::FileName;
pub(crate) use name::check_component;
pub use shard::{ShardStorage, check_savepoint_name};
