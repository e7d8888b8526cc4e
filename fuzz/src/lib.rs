//! Hostile bytes for everything in Onceflow that reads bytes.
//!
//! A **target** is a function that takes any bytes and panics where a promise is broken. The same functions run in two ways:
//! under libFuzzer, which looks for inputs that reach new code (`make fuzz`), and in this crate's ordinary tests, which feed
//! them everything that was ever found worth keeping (`corpus/`) and some thousand mutations of it.
//!
//! | target | reads | promises |
//! | --- | --- | --- |
//! | `json` | records | what serde_json refuses is refused, what is taken has serde_json's values, and comes back from the encoder |
//! | `key` | group keys | an error or a round trip; keys sort as their values do |
//! | `state` | rows and aggregate states | an error or a round trip; merging commutes |
//! | `segment` | segment files | an error or the rows that were written; any changed byte is found |
//! | `control` | claims, decisions and what manifests hold | an error or a round trip; a start from any of it ends or is refused |
//! | `pipeline` | pipeline files | a plan or diagnostics that point into the file |
//! | `sql` | expressions | a mistake that points into the text, or values of the promised type, the same each time |
//! | `window` | instants, sizes, frontiers | windows and panes agree with their definition; nothing goes back |
//!
//! All of them: no panic, no stack beyond 2 MiB, and no more memory than the input's length allows.

pub mod allocation;
mod draw;
mod targets;

pub use targets::TARGETS;
