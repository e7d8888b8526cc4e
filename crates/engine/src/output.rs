//! Records on their way out, in one arena: no allocation per record.
//!
//! A worker encodes into an [`Output`]; the shell hands it whole to the thread that owns the producer. Where a record
//! goes is an index into [`Plan::output_topics`](crate::plan::Plan::output_topics).

use std::ops::Range;

/// Encoded records in the order in which they must be produced.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    records: Vec<Record>,
    headers: Vec<Header>,
}

#[derive(Debug, Default)]
struct Record {
    topic: u16,
    sink: u16,
    partition: Option<i32>,
    timestamp: i64,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

#[derive(Debug)]
struct Header {
    name: Range<u32>,
    value: Option<Range<u32>>,
}

/// One record of an [`Output`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct OutputRecord<'a> {
    output: &'a Output,
    record: &'a Record,
}

/// Sink number that dead letters are counted under.
pub const DEAD_LETTER_SINK: u16 = u16::MAX;

/// What Kafka adds to a header at most: two lengths, as variable-length integers at their longest.
const HEADER_FRAMING: usize = 5 + 5;

impl Output {
    /// Records held.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers, and of their bookkeeping: what the output buffer's budget counts.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Record>() + self.headers.len() * size_of::<Header>()
    }

    /// The records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = OutputRecord<'_>> {
        self.records.iter().map(|record| OutputRecord { output: self, record })
    }

    /// Begins a record for topic `topic` (an index into the plan's output topics) on behalf of `sink`, with the
    /// timestamp in milliseconds since the epoch. Nothing is added until [`RecordWriter::finish`].
    pub fn record(&mut self, topic: u16, sink: u16, timestamp: i64) -> RecordWriter<'_> {
        let headers = self.headers.len() as u32;
        let start = self.bytes.len();
        RecordWriter {
            record: Record { topic, sink, timestamp, headers: headers..headers, ..Record::default() },
            start,
            finished: false,
            output: self,
        }
    }
}

/// Writes one record's parts; dropped without [`finish`](Self::finish) it leaves no trace, so that a row that cannot be
/// encoded is not half sent.
pub struct RecordWriter<'a> {
    output: &'a mut Output,
    record: Record,
    start: usize,
    finished: bool,
}

impl RecordWriter<'_> {
    /// Writes the key through `write`, which appends to the buffer.
    pub fn key<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.record.key = Some(self.append(write)?);
        Ok(())
    }

    /// Writes the value through `write`, which appends to the buffer.
    pub fn value<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.record.value = Some(self.append(write)?);
        Ok(())
    }

    /// Sets the key to these bytes, or to null.
    pub fn key_bytes(&mut self, key: Option<&[u8]>) {
        self.record.key = key.map(|bytes| self.copy(bytes));
    }

    /// Sets the value to these bytes, or to null.
    pub fn value_bytes(&mut self, value: Option<&[u8]>) {
        self.record.value = value.map(|bytes| self.copy(bytes));
    }

    /// Sets the partition; without it the key decides.
    pub fn partition(&mut self, partition: i32) {
        self.record.partition = Some(partition);
    }

    /// Writes the key through `write`, which appends to the buffer and says whether there is one.
    pub fn key_or_null<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        self.record.key = self.append_or_null(write)?;
        Ok(())
    }

    /// Writes the value through `write`, in the same way.
    pub fn value_or_null<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        self.record.value = self.append_or_null(write)?;
        Ok(())
    }

    /// Appends a header whose value `write` appends to the buffer, and of which it says whether there is one.
    pub fn header_or_null<E>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let name = self.copy(name.as_bytes());
        let value = self.append_or_null(write)?;
        self.output.headers.push(Header { name, value });
        self.record.headers.end += 1;
        Ok(())
    }

    /// Appends a header.
    pub fn header(&mut self, name: &str, value: Option<&[u8]>) {
        let name = self.copy(name.as_bytes());
        let value = value.map(|bytes| self.copy(bytes));
        self.output.headers.push(Header { name, value });
        self.record.headers.end += 1;
    }

    /// Bytes of what was written so far, as a topic's limit counts them at most: key, value, headers and their framing.
    pub fn size_bytes(&self) -> usize {
        self.output.bytes.len() - self.start + self.record.headers.len() * HEADER_FRAMING
    }

    /// Adds the record to the output.
    pub fn finish(mut self) {
        self.output.records.push(std::mem::take(&mut self.record));
        self.finished = true;
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.output.bytes.len() as u32;
        self.output.bytes.extend_from_slice(bytes);
        start..self.output.bytes.len() as u32
    }

    fn append<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Range<u32>, E> {
        let start = self.output.bytes.len() as u32;
        write(&mut self.output.bytes)?;
        Ok(start..self.output.bytes.len() as u32)
    }

    fn append_or_null<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>,
    ) -> Result<Option<Range<u32>>, E> {
        let start = self.output.bytes.len() as u32;
        let is_there = write(&mut self.output.bytes)?;
        Ok(is_there.then_some(start..self.output.bytes.len() as u32))
    }
}

impl Drop for RecordWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.output.bytes.truncate(self.start);
            self.output.headers.truncate(self.record.headers.start as usize);
        }
    }
}

impl<'a> OutputRecord<'a> {
    /// Index into the plan's output topics.
    pub fn topic(&self) -> usize {
        self.record.topic as usize
    }
    /// Index of the sink, or [`DEAD_LETTER_SINK`].
    pub fn sink(&self) -> u16 {
        self.record.sink
    }
    /// The partition to write to, `None` where the key decides.
    pub fn partition(&self) -> Option<i32> {
        self.record.partition
    }
    /// Milliseconds since the epoch.
    pub fn timestamp(&self) -> i64 {
        self.record.timestamp
    }
    /// Key bytes, `None` for null.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.key.as_ref().map(|range| self.output.slice(range))
    }
    /// Value bytes, `None` for null.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.record.value.as_ref().map(|range| self.output.slice(range))
    }
    /// Headers in order; a name is UTF-8 as it was given.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'a str, Option<&'a [u8]>)> {
        let output = self.output;
        let range = self.record.headers.start as usize..self.record.headers.end as usize;
        output.headers[range].iter().map(move |header| {
            let name = std::str::from_utf8(output.slice(&header.name)).unwrap_or_default();
            (name, header.value.as_ref().map(|range| output.slice(range)))
        })
    }
}

impl Output {
    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }
}
