//! The segment file: the rows that changed in one epoch, and the manifest behind them. Version 1.
//!
//! One file per checkpoint, written front to back and never changed; whoever writes it makes it durable. All integers are
//! little endian; checksums are XXH3-64, seed 0.
//!
//! ```text
//! header    8 bytes  "ONCESEG\0"
//!           2        version of this framing (1)
//!           2        layout version of keys, states and rows
//!           2        number of lanes
//!           2        zero
//! extents   any number, one after the other, each a sequence of blocks:
//!           4        length of the block's rows, uncompressed, at most 1 MiB
//!           4        length as stored; the same number: stored as they are, else as one LZ4 block
//!           …        the bytes; together the extent's rows, in the encoding of `rows`
//! manifest  …        bytes of the caller's (JSON)
//! trailer   8        offset of the manifest
//!           8        length of the manifest
//!           8        checksum of the manifest
//!           8        checksum of the 24 bytes before
//!           8        "ONCESEG\x01"
//! ```
//!
//! Where an extent lies, how many rows it has and its checksum (of its bytes as stored) is in its [`Location`], which the
//! manifest keeps. So every byte of the file is under a checksum or compared with what it must be; damage is an
//! error that says where. Reading never allocates more than the file's own length and 1 MiB beyond what the rows take.

use std::io::{self, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::LAYOUT_VERSION;
use super::key::LANES;
use super::rows::EncodedRows;

const HEADER_MAGIC: [u8; 8] = *b"ONCESEG\0";
const TRAILER_MAGIC: [u8; 8] = *b"ONCESEG\x01";
const FRAMING_VERSION: u16 = 1;
const HEADER_BYTES: u64 = 16;
const TRAILER_BYTES: u64 = 40;
const BLOCK_BYTES: usize = 1 << 20;

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are not what was written: says where, and what was expected.
    #[error("damaged segment: {0}")]
    Damaged(String),
    /// The file is whole but of a version that this program does not read.
    #[error("segment of another version: {0}")]
    Version(String),
}

fn damaged(what: impl Into<String>) -> SegmentError {
    SegmentError::Damaged(what.into())
}

/// Where an extent lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes as stored.
    pub length: u64,
    /// Number of rows.
    pub rows: u64,
    /// XXH3-64 of the bytes as stored.
    pub checksum: u64,
}

/// A finished file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its length in bytes.
    pub length: u64,
    /// XXH3-64 of all its bytes.
    pub checksum: u64,
}

/// Writes a segment front to back.
pub struct SegmentWriter<W> {
    out: W,
    length: u64,
    checksum: Xxh3,
    block: Vec<u8>,
}

impl<W: Write> SegmentWriter<W> {
    /// Begins a segment in `out`, which should buffer little: blocks are written whole.
    pub fn new(out: W) -> io::Result<SegmentWriter<W>> {
        let mut writer = SegmentWriter { out, length: 0, checksum: Xxh3::new(), block: vec![] };
        writer.write(&header())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.checksum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Writes an extent. No rows make an extent of no bytes, which needs not be kept.
    pub fn write_extent(&mut self, rows: &EncodedRows) -> io::Result<Location> {
        let offset = self.length;
        let mut checksum = Xxh3::new();
        for raw in rows.bytes.chunks(BLOCK_BYTES) {
            let mut block = std::mem::take(&mut self.block);
            block.clear();
            block.extend_from_slice(&(raw.len() as u32).to_le_bytes());
            block.resize(8 + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            let compressed =
                lz4_flex::block::compress_into(raw, &mut block[8..]).map_err(io::Error::other)?;
            if compressed < raw.len() {
                block[4..8].copy_from_slice(&(compressed as u32).to_le_bytes());
                block.truncate(8 + compressed);
            } else {
                block[4..8].copy_from_slice(&(raw.len() as u32).to_le_bytes());
                block.truncate(8);
                block.extend_from_slice(raw);
            }
            checksum.update(&block);
            self.write(&block)?;
            self.block = block;
        }
        Ok(Location { offset, length: self.length - offset, rows: rows.count, checksum: checksum.digest() })
    }

    /// Writes the manifest and the trailer, and gives back what was written to; it is not flushed.
    pub fn finish(mut self, manifest: &[u8]) -> io::Result<(W, Finished)> {
        let mut trailer = Vec::with_capacity(TRAILER_BYTES as usize);
        trailer.extend_from_slice(&self.length.to_le_bytes());
        trailer.extend_from_slice(&(manifest.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&xxh3_64(manifest).to_le_bytes());
        trailer.extend_from_slice(&xxh3_64(&trailer).to_le_bytes());
        trailer.extend_from_slice(&TRAILER_MAGIC);
        self.write(manifest)?;
        self.write(&trailer)?;
        Ok((self.out, Finished { length: self.length, checksum: self.checksum.digest() }))
    }
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&HEADER_MAGIC);
    header[8..10].copy_from_slice(&FRAMING_VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
    header[12..14].copy_from_slice(&LANES.to_le_bytes());
    header
}

/// Verifies header and trailer and returns the manifest's bytes.
///
/// # Errors
/// `Damaged` says what is wrong and where, `Version` that the file was written by another version.
pub fn read_footer<R: Read + Seek>(file: &mut R) -> Result<Vec<u8>, SegmentError> {
    let length = file.seek(SeekFrom::End(0))?;
    if length < HEADER_BYTES + TRAILER_BYTES {
        return Err(damaged(format!("{length} bytes are too few for a segment")));
    }
    check_header(&read_at(file, 0, HEADER_BYTES)?)?;
    let trailer_at = length - TRAILER_BYTES;
    let trailer = read_at(file, trailer_at, TRAILER_BYTES)?;
    if trailer[32..] != TRAILER_MAGIC {
        return Err(damaged(format!(
            "no end mark at byte {}: the file is cut off or overwritten",
            length - 8
        )));
    }
    check(&trailer[..24], word(&trailer, 24), trailer_at, "trailer")?;
    let (offset, manifest_length) = (word(&trailer, 0), word(&trailer, 8));
    if offset < HEADER_BYTES || offset.checked_add(manifest_length) != Some(trailer_at) {
        return Err(damaged(format!(
            "{manifest_length} bytes of manifest at byte {offset} do not end where the trailer begins, at byte {trailer_at}"
        )));
    }
    let manifest = read_at(file, offset, manifest_length)?;
    check(&manifest, word(&trailer, 16), offset, "manifest")?;
    Ok(manifest)
}

/// Reads and verifies an extent.
///
/// # Errors
/// `Damaged` if the bytes there are not those that were written. That the rows' states decode is not checked here.
pub fn read_extent<R: Read + Seek>(file: &mut R, at: &Location) -> Result<EncodedRows, SegmentError> {
    let length = file.seek(SeekFrom::End(0))?;
    if at.offset.checked_add(at.length).is_none_or(|end| end > length) {
        return Err(damaged(format!(
            "an extent of {} bytes at byte {} ends behind the file's {length} bytes",
            at.length, at.offset
        )));
    }
    let stored = read_at(file, at.offset, at.length)?;
    check(&stored, at.checksum, at.offset, "extent")?;
    let mut rows = EncodedRows { count: at.rows, bytes: vec![] };
    let mut rest = stored.as_slice();
    while !rest.is_empty() {
        let position = at.offset + (stored.len() - rest.len()) as u64;
        let malformed = |what: &str| damaged(format!("block at byte {position}: {what}"));
        let (lengths, blocks) = rest.split_first_chunk::<8>().ok_or_else(|| malformed("cut off"))?;
        let [a, b, c, d, e, f, g, h] = *lengths;
        let raw_length = u32::from_le_bytes([a, b, c, d]) as usize;
        let stored_length = u32::from_le_bytes([e, f, g, h]) as usize;
        if raw_length > BLOCK_BYTES {
            return Err(malformed("longer than any block"));
        }
        let (block, after) =
            blocks.split_at_checked(stored_length).ok_or_else(|| malformed("longer than its extent"))?;
        let start = rows.bytes.len();
        if stored_length == raw_length {
            rows.bytes.extend_from_slice(block);
        } else {
            rows.bytes.resize(start + raw_length, 0);
            let written = lz4_flex::block::decompress_into(block, &mut rows.bytes[start..])
                .map_err(|error| malformed(&error.to_string()))?;
            if written != raw_length {
                return Err(malformed(&format!("{written} bytes instead of {raw_length}")));
            }
        }
        rest = after;
    }
    Ok(rows)
}

fn read_at<R: Read + Seek>(file: &mut R, offset: u64, length: u64) -> Result<Vec<u8>, SegmentError> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![];
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(damaged(format!(
            "{} of {length} bytes at byte {offset}: the file is cut off",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn check(bytes: &[u8], expected: u64, offset: u64, what: &str) -> Result<(), SegmentError> {
    let actual = xxh3_64(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(damaged(format!(
        "{what} of {} bytes at byte {offset} has checksum {actual:016x}, not {expected:016x}",
        bytes.len()
    )))
}

fn check_header(bytes: &[u8]) -> Result<(), SegmentError> {
    let expected = header();
    if bytes == expected {
        return Ok(());
    }
    if bytes[..8] != HEADER_MAGIC {
        return Err(damaged("the file does not begin like a segment"));
    }
    Err(SegmentError::Version(format!(
        "header {:02x?}, this program writes {:02x?}",
        &bytes[8..],
        &expected[8..]
    )))
}

/// The 64-bit number at `at`, which is within the bytes.
fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn rows(count: usize, noise: bool) -> EncodedRows {
        let mut rows = EncodedRows::default();
        let mut state = 1u64;
        for row in 0..count {
            rows.push(format!("key {row}").as_bytes(), |out| {
                state = if noise { state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) } else { 7 };
                out.extend_from_slice(&xxh3_64(&state.to_le_bytes()).to_le_bytes());
            });
        }
        rows
    }

    fn segment(extents: &[EncodedRows]) -> (Vec<u8>, Vec<Location>, Finished) {
        let mut writer = SegmentWriter::new(vec![]).unwrap();
        let locations = extents.iter().map(|rows| writer.write_extent(rows).unwrap()).collect();
        let (bytes, finished) = writer.finish(b"{\"a\":1}").unwrap();
        (bytes, locations, finished)
    }

    #[test]
    fn extents_come_back() {
        let extents = [rows(3, true), rows(0, true), rows(200_000, false), rows(100_000, true)];
        let (bytes, locations, finished) = segment(&extents);
        assert_eq!(finished, Finished { length: bytes.len() as u64, checksum: xxh3_64(&bytes) });
        let raw: usize = extents.iter().map(|rows| rows.bytes.len()).sum();
        assert!(bytes.len() < raw, "{} stored for {raw}", bytes.len());
        let mut file = Cursor::new(bytes);
        assert_eq!(read_footer(&mut file).unwrap(), b"{\"a\":1}");
        for (rows, location) in extents.iter().zip(&locations) {
            assert_eq!(read_extent(&mut file, location).unwrap(), *rows);
        }
    }

    #[test]
    fn golden() {
        let mut extent = EncodedRows::default();
        extent.push(b"key", |out| out.extend_from_slice(b"state"));
        let (bytes, locations, _) = segment(&[extent]);
        insta::assert_snapshot!(format!("{}\n{locations:?}", hex(&bytes)));
    }

    fn hex(bytes: &[u8]) -> String {
        let lines =
            bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Reads everything; whether something was wrong.
    fn is_refused(bytes: &[u8], locations: &[Location]) -> bool {
        let mut file = Cursor::new(bytes);
        read_footer(&mut file).is_err() || locations.iter().any(|at| read_extent(&mut file, at).is_err())
    }

    #[test]
    fn every_damaged_byte_is_found() {
        let (bytes, locations, _) = segment(&[rows(20, true), rows(20, false)]);
        assert!(!is_refused(&bytes, &locations));
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(is_refused(&bytes, &locations), "byte {at} ^ {flip:#x}");
            }
        }
        for length in 0..bytes.len() {
            assert!(is_refused(&bytes[..length], &locations), "cut off at {length}");
        }
    }

    #[test]
    fn damage_says_where() {
        let (mut bytes, locations, _) = segment(&[rows(20, true)]);
        bytes[40] ^= 1;
        let error = read_extent(&mut Cursor::new(&bytes), &locations[0]).unwrap_err().to_string();
        assert!(error.contains("extent of") && error.contains("at byte 16 has checksum"), "{error}");
        bytes[10] = 9;
        let error = read_footer(&mut Cursor::new(&bytes)).unwrap_err().to_string();
        assert!(error.contains("another version"), "{error}");
    }

    proptest::proptest! {
        /// Blocks whose checksum is right but whose content is not: what a forger or a bug would write.
        #[test]
        fn arbitrary_blocks_end(mut bytes: Vec<u8>, raw in 0u32..3_000_000, offset in 0u64..50) {
            bytes.splice(0..0, raw.to_le_bytes());
            let tail = bytes.get(offset as usize..).unwrap_or(&[]);
            let at = Location { offset, length: tail.len() as u64, rows: 1, checksum: xxh3_64(tail) };
            if let Ok(rows) = read_extent(&mut Cursor::new(&bytes), &at) {
                proptest::prop_assert!(rows.iter().count() <= 2);
            }
            proptest::prop_assert!(read_footer(&mut Cursor::new(&bytes)).is_err());
        }
    }
}
