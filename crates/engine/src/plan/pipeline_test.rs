//! `tests:`, what a pipeline is given in a test, and what is expected of it.

use crate::message::OwnedMessage;

/// One test of a pipeline.
#[derive(Debug, Clone)]
pub struct PipelineTest {
    /// Its name.
    pub name: String,
    /// What happens, in order.
    pub input: Vec<Happening>,
    /// What sinks write, by number; of the others nothing is expected.
    pub output: Vec<(usize, Vec<Expected>)>,
    /// Every dead letter.
    pub dead_letters: Vec<Expected>,
}

/// What happens in a test.
#[derive(Debug, Clone)]
pub enum Happening {
    /// A record is there to be read.
    Record {
        /// Number of the source.
        source: usize,
        /// Where it is.
        topic: String,
        /// Where it is.
        partition: i32,
        /// The record; its offset follows that of the one before.
        message: OwnedMessage,
    },
    /// So many milliseconds without records.
    Wait(u64),
    /// A checkpoint.
    Checkpoint,
    /// A checkpoint at which the watermark of every source is this, milliseconds, whatever was read.
    Watermark(i64),
    /// The process dies, and starts again.
    Crash,
    /// Nothing more will come: all windows close.
    End,
}

/// A record that is to be written. What is `None` can be anything.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its value.
    pub value: Option<Content>,
    /// Its key.
    pub key: Option<Content>,
    /// Its timestamp, milliseconds.
    pub timestamp: Option<i64>,
    /// Its topic, of a sink with several.
    pub topic: Option<String>,
    /// Its partition, of a sink that says one.
    pub partition: Option<i32>,
    /// Headers that it has among others.
    pub headers: Vec<(String, Content)>,
    /// Why it is a dead letter.
    pub reason: Option<String>,
    /// The source, step or sink where it became one.
    pub step: Option<String>,
}

/// What a key, a value or a header holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Null,
    /// This text.
    Text(String),
    /// JSON that means the same as this: members in any order, numbers however they are written.
    Json(String),
}
