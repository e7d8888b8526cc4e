//! Rows of state as bytes: what workers exchange, what a segment's extents hold.
//!
//! One row is `varint key length, varint state length, key, state`: the key as in [`key`](super::key), the state as in
//! [`aggregate`](super::aggregate), lengths in bytes as unsigned LEB128. Rows follow each other without padding, in no
//! particular order; a key occurs at most once in one [`EncodedRows`] that a freeze made.

use super::StateError;
use super::bytes::{put_varint, take, take_varint};

/// Rows, encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedRows {
    /// Number of rows.
    pub count: u64,
    /// The rows, one after the other.
    pub bytes: Vec<u8>,
}

impl EncodedRows {
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends a row whose state `encode` writes.
    #[inline]
    pub fn push(&mut self, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        put_varint(&mut self.bytes, key.len() as u64);
        // Nearly all states are shorter than 128 bytes: their length takes one byte, which is filled in afterwards, so that
        // no state is copied.
        let length_at = self.bytes.len();
        self.bytes.push(0);
        self.bytes.extend_from_slice(key);
        let state_at = self.bytes.len();
        encode(&mut self.bytes);
        let length = self.bytes.len() - state_at;
        if length < 0x80 {
            self.bytes[length_at] = length as u8;
        } else {
            let mut varint = vec![];
            put_varint(&mut varint, length as u64);
            self.bytes.splice(length_at..=length_at, varint);
        }
        self.count += 1;
    }

    /// The rows, `(key, state)`. The last item is an error if the bytes end within a row or hold another number of rows
    /// than [`count`](Self::count).
    pub fn iter(&self) -> RowIter<'_> {
        RowIter { bytes: &self.bytes, left: self.count }
    }
}

/// Iterator over encoded rows.
#[derive(Clone, Debug)]
pub struct RowIter<'a> {
    bytes: &'a [u8],
    left: u64,
}

impl<'a> Iterator for RowIter<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match (self.left, self.bytes.is_empty()) {
            (0, true) => return None,
            (0, false) => Err(StateError::damaged("more rows than counted")),
            (left, true) => Err(StateError::damaged(format!("{left} rows are missing"))),
            (_, false) => take_row(&mut self.bytes),
        };
        if row.is_ok() {
            self.left -= 1;
        } else {
            (self.left, self.bytes) = (0, &[]);
        }
        Some(row)
    }
}

fn take_row<'a>(bytes: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), StateError> {
    let key_length = take_varint(bytes)?;
    let state_length = take_varint(bytes)?;
    Ok((take(bytes, key_length)?, take(bytes, state_length)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        let mut rows = EncodedRows::default();
        rows.push(b"key", |state| state.extend_from_slice(b"state"));
        rows.push(b"", |_| {});
        rows.push(b"k", |state| state.extend_from_slice(&[7; 130]));
        let mut expected = b"\x03\x05keystate\x00\x00\x01\x82\x01k".to_vec();
        expected.extend_from_slice(&[7; 130]);
        assert_eq!(rows.bytes, expected);
        assert_eq!(rows.count, 3);
    }

    #[test]
    fn counts_are_checked() {
        let mut rows = EncodedRows::default();
        rows.push(b"key", |state| state.push(1));
        rows.count = 2;
        assert!(rows.iter().last().unwrap().is_err());
        rows.count = 0;
        assert!(rows.iter().last().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn rows_come_back(expected: Vec<(Vec<u8>, Vec<u8>)>) {
            let mut rows = EncodedRows::default();
            for (key, state) in &expected {
                rows.push(key, |out| out.extend_from_slice(state));
            }
            let decoded: Vec<_> = rows.iter().map(|row| row.map(|(key, state)| (key.to_vec(), state.to_vec()))).collect();
            prop_assert_eq!(decoded, expected.into_iter().map(Ok).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_bytes_end(bytes: Vec<u8>, count in 0u64..100) {
            let rows = EncodedRows { count, bytes };
            prop_assert!(rows.iter().count() as u64 <= count + 1);
        }
    }
}
