//! Segment files: what a forger, a torn write or a bad disk would leave.

use std::io::Cursor;

use onceflow_engine::state::rows::EncodedRows;
use onceflow_engine::state::segment::{Location, SegmentWriter, read_extent, read_footer};
use xxhash_rust::xxh3::xxh3_64;

use crate::allocation::bounded;
use crate::draw::Draw;

pub fn target(bytes: &[u8]) {
    any_file(bytes);
    forged(bytes);
    written(&mut Draw(bytes));
}

/// What reading may hold: the file's own length, 1 MiB for a block, and what compressed rows grow to (LZ4 packs at most 255 to 1; buffers
/// grow by doubling).
fn bound(length: usize) -> usize {
    (4 << 20) + 1_200 * length
}

fn any_file(bytes: &[u8]) {
    let manifest = bounded("reading a footer", bound(bytes.len()), || read_footer(&mut Cursor::new(bytes)));
    assert!(manifest.is_err() || bytes.len() >= 56, "too short for header and trailer");
}

/// An extent whose checksum is right and whose content is the fuzzer's.
fn forged(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let offset = u64::from(draw.byte());
    let rows = u64::from(draw.byte());
    let file = draw.0;
    let content = file.get(offset as usize..).unwrap_or_default();
    let length = content.len() as u64;
    let at = Location { offset, length, rows, checksum: xxh3_64(content) };
    let read = bounded("reading an extent", bound(bytes.len()), || read_extent(&mut Cursor::new(file), &at));
    if let Ok(extent) = read {
        assert!(extent.iter().count() as u64 <= rows + 1);
    }
    for at in [Location { length: length + 1, ..at }, Location { offset: u64::MAX - offset, ..at }] {
        // An extent without bytes is one wherever it lies within the file.
        assert!(read_extent(&mut Cursor::new(file), &at).is_err(), "{at:?} of {} bytes", file.len());
    }
}

/// What is written comes back, and no byte of it can change unnoticed.
fn written(draw: &mut Draw) {
    let (at, mask) = (usize::from(u16::from_le_bytes(draw.array())), draw.byte() | 1);
    let manifest = draw.bytes();
    let mut extents = vec![EncodedRows::default()];
    while !draw.is_empty() {
        if draw.byte() < 16 {
            extents.push(EncodedRows::default());
        }
        let (key, state) = (draw.bytes(), draw.bytes());
        if let Some(extent) = extents.last_mut() {
            extent.push(key, |out| out.extend_from_slice(state));
        }
    }
    let mut writer = SegmentWriter::new(vec![]).unwrap();
    let locations: Vec<Location> = extents.iter().map(|rows| writer.write_extent(rows).unwrap()).collect();
    let (mut file, finished) = writer.finish(manifest).unwrap();
    assert_eq!((finished.length, finished.checksum), (file.len() as u64, xxh3_64(&file)));
    assert_eq!(read_footer(&mut Cursor::new(&file)).unwrap(), manifest);
    for (rows, at) in extents.iter().zip(&locations) {
        assert_eq!(read_extent(&mut Cursor::new(&file), at).unwrap(), *rows);
    }
    let at = at % file.len();
    file[at] ^= mask;
    let mut file = Cursor::new(file);
    let unnoticed =
        read_footer(&mut file).is_ok() && locations.iter().all(|at| read_extent(&mut file, at).is_ok());
    assert!(!unnoticed, "byte {at} was changed and nobody noticed");
}
