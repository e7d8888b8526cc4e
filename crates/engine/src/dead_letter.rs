//! Dead letters: what could not be processed, kept so that it can be understood and sent again.
//!
//! A dead letter is the source record as it came (key, value and headers, byte for byte), with its provenance in headers behind its
//! own:
//!
//! | header | holds |
//! | --- | --- |
//! | `onceflow.pipeline` | the pipeline's name |
//! | `onceflow.step` | the name of the source, step or sink that refused it |
//! | `onceflow.topic`, `onceflow.partition`, `onceflow.offset` | where it came from; numbers in decimal |
//! | `onceflow.reason` | one of [`Reason`] |
//! | `onceflow.error` | what is wrong, for people; at most [`MAX_ERROR_BYTES`] |
//! | `onceflow.window_start`, `onceflow.window_end` | of a window's result: milliseconds since the epoch |
//! | `onceflow.omitted` | what of the record is missing, because its topic takes no letter that large, with the sizes in bytes |
//!
//! A row that a window made has no source record: its letter's value is the row as a JSON object (what JSON cannot say
//! is null), its key is null, and the headers of provenance in a topic are absent.
//!
//! The letter's timestamp is the source record's, or the row's event time. Where a topic would refuse that (a record without a
//! timestamp, one far in the future) it is 0, which a Kafka client replaces by the time of sending.
//!
//! A letter is a little larger than its record, so that it can be too large for its topic. It then goes without the value, and where
//! that is not enough without key and headers: the provenance still tells where the record is.

use crate::message::MessageBatch;
use crate::output::{DEAD_LETTER_SINK, Output, RecordWriter};

/// Length of `onceflow.error`; the rest is cut off.
pub const MAX_ERROR_BYTES: usize = 512;

/// Why a record was not processed, as `onceflow.reason` and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is not what its source's format and schema say.
    Decode,
    /// Its event time is further ahead of its timestamp than `max_ahead`.
    Ahead,
    /// Its value is null, and its source skips those (only dropped, never a letter).
    Tombstone,
    /// An expression failed.
    Evaluate,
    /// All its windows are closed.
    Late,
    /// An aggregate's result does not fit its type.
    Overflow,
    /// The sink's format cannot say it.
    Encode,
    /// The sink's topic would refuse it (too large, or a timestamp that the topic does not take), or there is no such topic or
    /// partition as the row names.
    Refused,
}

impl Reason {
    /// All of them; a reason's number is its place here.
    pub const ALL: [Reason; 8] = [
        Reason::Decode,
        Reason::Ahead,
        Reason::Tombstone,
        Reason::Evaluate,
        Reason::Late,
        Reason::Overflow,
        Reason::Encode,
        Reason::Refused,
    ];

    /// As headers and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Decode => "decode",
            Reason::Ahead => "ahead",
            Reason::Tombstone => "tombstone",
            Reason::Evaluate => "evaluate",
            Reason::Late => "late",
            Reason::Overflow => "overflow",
            Reason::Encode => "encode",
            Reason::Refused => "refused",
        }
    }
}

/// What the letters of one operator have in common.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Index of the dead letter topic in the plan's output topics.
    pub topic: u16,
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// Name of the source, step or sink.
    pub step: &'a str,
    /// What kind of failure it is.
    pub reason: Reason,
    /// What is wrong.
    pub error: &'a str,
}

/// How much of a record its letter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Key and headers.
    NoValue,
    /// Nothing but where it came from.
    Provenance,
}

impl Extent {
    /// From the largest to the smallest.
    pub const ALL: [Extent; 3] = [Extent::Whole, Extent::NoValue, Extent::Provenance];
}

/// Begins the letter of source record `i`. The caller finishes it, if the topic takes records of its size.
pub fn of_record<'o>(
    out: &'o mut Output,
    sender: Sender,
    timestamp: i64,
    (topic, partition, messages): (&str, i32, &dyn MessageBatch),
    i: usize,
    extent: Extent,
) -> RecordWriter<'o> {
    let mut letter = out.record(sender.topic, DEAD_LETTER_SINK, timestamp);
    if extent == Extent::Whole {
        letter.value_bytes(messages.value(i));
    }
    if extent < Extent::Provenance {
        letter.key_bytes(messages.key(i));
        messages.headers(i, &mut |name, value| letter.header(name, value));
    }
    let omitted = match (extent, messages.value(i).map_or(0, <[u8]>::len)) {
        (Extent::Whole, _) => None,
        (Extent::NoValue, value) => Some(format!("value ({value})")),
        (Extent::Provenance, value) => {
            let key = messages.key(i).map_or(0, <[u8]>::len);
            let mut headers = 0;
            messages.headers(i, &mut |name, value| headers += name.len() + value.map_or(0, <[u8]>::len));
            Some(format!("value ({value}), key ({key}), headers ({headers})"))
        }
    };
    sender.write(&mut letter, omitted.as_deref());
    letter.header("onceflow.topic", Some(topic.as_bytes()));
    write_number(&mut letter, "onceflow.partition", partition.into());
    write_number(&mut letter, "onceflow.offset", messages.offset(i));
    letter
}

/// Begins the letter of a row that has no source record. `window`: start and end of the window it came from, where known. It has no
/// key and no headers that could be left out.
pub fn of_row<'o>(
    out: &'o mut Output,
    sender: Sender,
    timestamp: i64,
    row: &[u8],
    window: Option<(i64, i64)>,
    extent: Extent,
) -> RecordWriter<'o> {
    let mut letter = out.record(sender.topic, DEAD_LETTER_SINK, timestamp);
    let omitted = (extent != Extent::Whole).then(|| format!("value ({})", row.len()));
    if omitted.is_none() {
        letter.value_bytes(Some(row));
    }
    sender.write(&mut letter, omitted.as_deref());
    if let Some((start, end)) = window {
        write_number(&mut letter, "onceflow.window_start", start);
        write_number(&mut letter, "onceflow.window_end", end);
    }
    letter
}

impl Sender<'_> {
    fn write(&self, letter: &mut RecordWriter, omitted: Option<&str>) {
        letter.header("onceflow.pipeline", Some(self.pipeline.as_bytes()));
        letter.header("onceflow.step", Some(self.step.as_bytes()));
        letter.header("onceflow.reason", Some(self.reason.as_str().as_bytes()));
        let end = self.error.floor_char_boundary(MAX_ERROR_BYTES);
        letter.header("onceflow.error", Some(&self.error.as_bytes()[..end]));
        if let Some(omitted) = omitted {
            letter.header("onceflow.omitted", Some(omitted.as_bytes()));
        }
    }
}

fn write_number(letter: &mut RecordWriter, name: &str, value: i64) {
    letter.header(name, Some(itoa::Buffer::new().format(value).as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::OwnedMessage;

    #[test]
    fn a_letter_is_the_record_with_its_provenance_behind() {
        let messages = vec![OwnedMessage {
            offset: 17,
            timestamp: 5,
            key: Some(b"k\xff".to_vec()),
            value: Some(b"\x00\xff".to_vec()),
            headers: vec![("own".into(), Some(b"1".to_vec())), ("none".into(), None)],
        }];
        let error = "é".repeat(MAX_ERROR_BYTES);
        let sender =
            Sender { topic: 3, pipeline: "p", step: "orders", reason: Reason::Decode, error: &error };
        let mut out = Output::default();
        for extent in Extent::ALL {
            of_record(&mut out, sender, 5, ("in", 2, &messages), 0, extent).finish();
        }

        let mut letters = out.records();
        let letter = letters.next().unwrap();
        assert_eq!((letter.topic(), letter.sink(), letter.timestamp()), (3, DEAD_LETTER_SINK, 5));
        assert_eq!((letter.key(), letter.value()), (Some(&b"k\xff"[..]), Some(&b"\x00\xff"[..])));
        let headers: Vec<_> = letter.headers().collect();
        assert_eq!(headers[..2], [("own", Some(&b"1"[..])), ("none", None)]);
        let named =
            |name| headers.iter().find(|(header, _)| *header == name).and_then(|(_, value)| *value).unwrap();
        assert_eq!(named("onceflow.pipeline"), b"p");
        assert_eq!(named("onceflow.step"), b"orders");
        assert_eq!(named("onceflow.topic"), b"in");
        assert_eq!(named("onceflow.partition"), b"2");
        assert_eq!(named("onceflow.offset"), b"17");
        assert_eq!(named("onceflow.reason"), b"decode");
        assert_eq!(named("onceflow.error"), "é".repeat(MAX_ERROR_BYTES / 2).as_bytes());
        assert!(headers.iter().all(|(name, _)| *name != "onceflow.omitted"));

        let omitted = |letter: crate::output::OutputRecord| {
            let header = letter.headers().find(|(name, _)| *name == "onceflow.omitted").unwrap();
            String::from_utf8(header.1.unwrap().to_vec()).unwrap()
        };
        let letter = letters.next().unwrap();
        assert_eq!((letter.key(), letter.value()), (Some(&b"k\xff"[..]), None));
        assert_eq!(omitted(letter), "value (2)");
        let letter = letters.next().unwrap();
        assert_eq!((letter.key(), letter.value()), (None, None));
        assert_eq!(omitted(letter), "value (2), key (2), headers (8)");
        let names: Vec<_> = letter.headers().map(|(name, _)| name).collect();
        assert!(names.contains(&"onceflow.offset") && !names.contains(&"own"), "{names:?}");
    }

    #[test]
    fn reasons_are_numbered_by_their_place() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
