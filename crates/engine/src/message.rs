//! What the engine sees of Kafka records: borrowed bytes, valid for one call.

use std::ops::Range;

/// A run of consecutive records of one topic partition, in offset order (gaps are normal: transaction
/// markers, compaction). Implemented over librdkafka's messages by the shell, over plain vectors in tests.
pub trait MessageBatch {
    /// Number of records.
    fn len(&self) -> usize;

    /// Whether there is no record.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset of record `i` in its partition.
    fn offset(&self, i: usize) -> i64;

    /// Kafka timestamp of record `i`, milliseconds since the epoch; negative where the record has none.
    fn timestamp(&self, i: usize) -> i64;

    /// Key bytes of record `i`, `None` where it is null.
    fn key(&self, i: usize) -> Option<&[u8]>;

    /// Value bytes of record `i`, `None` for a tombstone.
    fn value(&self, i: usize) -> Option<&[u8]>;

    /// Calls `visit` with every header of record `i`, in their order. Only dead letters and forwarding sinks ask.
    fn headers(&self, i: usize, visit: &mut dyn FnMut(&str, Option<&[u8]>));
}

/// A batch of no records: what windows that fire have in place of source messages.
pub struct NoMessages;

impl MessageBatch for NoMessages {
    fn len(&self) -> usize {
        0
    }
    fn offset(&self, _: usize) -> i64 {
        -1
    }
    fn timestamp(&self, _: usize) -> i64 {
        -1
    }
    fn key(&self, _: usize) -> Option<&[u8]> {
        None
    }
    fn value(&self, _: usize) -> Option<&[u8]> {
        None
    }
    fn headers(&self, _: usize, _: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

/// A record that owns its bytes, for tests and the simulator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedMessage {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl MessageBatch for Vec<OwnedMessage> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }
    fn offset(&self, i: usize) -> i64 {
        self[i].offset
    }
    fn timestamp(&self, i: usize) -> i64 {
        self[i].timestamp
    }
    fn key(&self, i: usize) -> Option<&[u8]> {
        self[i].key.as_deref()
    }
    fn value(&self, i: usize) -> Option<&[u8]> {
        self[i].value.as_deref()
    }
    fn headers(&self, i: usize, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self[i].headers {
            visit(name, value.as_deref());
        }
    }
}

/// Copies of records, one behind the other in memory: for those that outlive the call they came with.
#[derive(Debug, Default)]
pub struct CopiedMessages {
    records: Vec<Copied>,
    /// Names and values of headers, of one record after the other.
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// Keys, values, and names and values of headers.
    bytes: Vec<u8>,
}

/// A record, by where its parts are.
#[derive(Debug)]
struct Copied {
    offset: i64,
    timestamp: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

impl CopiedMessages {
    /// Adds a copy of record `i` of `messages`.
    pub fn push(&mut self, messages: &dyn MessageBatch, i: usize) {
        let bytes = &mut self.bytes;
        let mut copy = |part: &[u8]| {
            let begin = bytes.len();
            bytes.extend_from_slice(part);
            begin..bytes.len()
        };
        let (key, value) = (messages.key(i).map(&mut copy), messages.value(i).map(&mut copy));
        let first = self.headers.len();
        messages.headers(i, &mut |name, value| {
            self.headers.push((copy(name.as_bytes()), value.map(&mut copy)));
        });
        let headers = first..self.headers.len();
        let (offset, timestamp) = (messages.offset(i), messages.timestamp(i));
        self.records.push(Copied { offset, timestamp, key, value, headers });
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.records.as_slice()) + size_of_val(self.headers.as_slice())
    }
}

impl MessageBatch for CopiedMessages {
    fn len(&self) -> usize {
        self.records.len()
    }
    fn offset(&self, i: usize) -> i64 {
        self.records[i].offset
    }
    fn timestamp(&self, i: usize) -> i64 {
        self.records[i].timestamp
    }
    fn key(&self, i: usize) -> Option<&[u8]> {
        self.records[i].key.clone().map(|key| &self.bytes[key])
    }
    fn value(&self, i: usize) -> Option<&[u8]> {
        self.records[i].value.clone().map(|value| &self.bytes[value])
    }
    fn headers(&self, i: usize, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self.headers[self.records[i].headers.clone()] {
            // They were copied from names, whole.
            let name = std::str::from_utf8(&self.bytes[name.clone()]).unwrap_or_default();
            visit(name, value.clone().map(|value| &self.bytes[value]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_what_was_copied() {
        let full = OwnedMessage {
            offset: 7,
            timestamp: 1_000,
            key: Some(b"k".to_vec()),
            value: Some(b"value".to_vec()),
            headers: vec![("a".into(), Some(b"1".to_vec())), ("b".into(), None), ("a".into(), Some(vec![]))],
        };
        let bare = OwnedMessage { offset: 9, timestamp: -1, ..OwnedMessage::default() };
        let empty = OwnedMessage { key: Some(vec![]), value: Some(vec![]), ..full.clone() };
        let records = vec![full, bare, empty];
        let mut copies = CopiedMessages::default();
        (0..records.len()).for_each(|i| copies.push(&records, i));
        for (i, record) in records.iter().enumerate() {
            let mut headers = vec![];
            copies.headers(i, &mut |name, value| headers.push((name.to_owned(), value.map(<[u8]>::to_vec))));
            let (key, value) = (copies.key(i).map(<[u8]>::to_vec), copies.value(i).map(<[u8]>::to_vec));
            let (offset, timestamp) = (copies.offset(i), copies.timestamp(i));
            assert_eq!(OwnedMessage { offset, timestamp, key, value, headers }, *record);
        }
        assert_eq!(copies.len(), records.len());
    }
}
