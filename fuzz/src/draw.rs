//! Values out of bytes: each takes what it needs from the front, and zeros once nothing is left.

/// Bytes that have not been used yet.
pub struct Draw<'a>(pub &'a [u8]);

impl<'a> Draw<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let length = N.min(self.0.len());
        array[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        array
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A 64-bit integer, often one at which arithmetic goes wrong.
    pub fn integer(&mut self) -> i64 {
        const EDGES: [i64; 8] =
            [0, i64::MIN, i64::MAX, 253_402_300_799_999, -62_135_596_800_000, 1 << 53, i32::MIN as i64, 1];
        match self.byte() {
            kind @ 0..128 => EDGES[usize::from(kind) % EDGES.len()].saturating_add(self.byte() as i8 as i64),
            128..192 => i16::from_le_bytes(self.array()).into(),
            _ => i64::from_le_bytes(self.array()),
        }
    }

    /// Up to 255 bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// A short text.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
