//! Random numbers that are the same each time.

use core::cell::Cell;

/// A xorshift generator.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Another sequence for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    /// The next number.
    pub(crate) fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        state
    }

    /// A number below `limit`.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A value that may well meet an edge.
    pub(crate) fn value(&self) -> u64 {
        const EDGES: [u64; 14] = [
            0,
            1,
            2,
            4,
            15,
            255,
            256,
            0x7fff,
            0x8000,
            0xffff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.next(),
            1 => self.next() >> self.below(64),
            _ => self.pick(&EDGES),
        }
    }
}
