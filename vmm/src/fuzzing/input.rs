//! Bytes as numbers. After their end there are only zeros.

/// Bytes that are used up from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    pub(crate) fn new(bytes: &'i [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, or as many as there are.
    pub(crate) fn bytes(&mut self, count: usize) -> &'i [u8] {
        let (taken, left) = self.0.split_at(count.min(self.0.len()));
        self.0 = left;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.bytes(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Three bytes, the highest bit of which counts for all above: small numbers, and those near the largest.
    pub(crate) fn extended(&mut self) -> u64 {
        let [low, middle, high] = self.array();
        let sign = if high & 0x80 == 0 { 0 } else { 0xff };
        u64::from_le_bytes([low, middle, high, sign, sign, sign, sign, sign])
    }
}
