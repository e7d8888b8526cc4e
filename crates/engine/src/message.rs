//! What the engine sees of Kafka records: borrowed bytes, valid for one call.

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
