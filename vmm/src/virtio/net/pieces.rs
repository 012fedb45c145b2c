//! Bytes that lie in pieces in guest memory: those of several chains, one after the other.

use std::collections::VecDeque;

use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use super::ring::Chain;
use crate::virtio::segments::SegmentError;

/// Most descriptors of a chain, and most pieces that they may be cut into. No driver may chain more than the queue has.
pub(super) const MAX_CHAIN_PIECES: usize = 512;

/// A range of bytes in pieces, none of which is empty.
#[derive(Debug, Default)]
pub(super) struct Pieces<'m> {
    pieces: VecDeque<VolatileSlice<'m>>,
}

/// What a chain consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many descriptors.
    pub(super) descriptors: usize,
    /// How many pieces.
    pub(super) pieces: usize,
    /// How many bytes.
    pub(super) bytes: usize,
}

impl<'m> Pieces<'m> {
    /// Adds the bytes of a chain whose descriptors are all for reading, or all for writing.
    ///
    /// # Errors
    /// When the chain breaks a rule.
    pub(super) fn append(
        &mut self,
        mem: &'m GuestMemoryMmap,
        chain: Chain<'m>,
        access: Permissions,
    ) -> Result<Extent, SegmentError> {
        let mut extent = Extent { descriptors: 0, pieces: 0, bytes: 0 };
        let mut ended = false;
        for descriptor in chain {
            if extent.descriptors == MAX_CHAIN_PIECES {
                return Err(SegmentError::TooLong);
            }
            if descriptor.is_write_only() != (access == Permissions::Write) {
                return Err(SegmentError::Direction);
            }
            ended = !descriptor.has_next();
            extent.descriptors += 1;
            let len = usize::try_from(descriptor.len()).map_err(|_| SegmentError::TooLong)?;
            let slices = GuestMemory::get_slices(mem, descriptor.addr(), len, access);
            for piece in slices.map_err(|_| SegmentError::Outside)? {
                let piece = piece.map_err(|_| SegmentError::Outside)?;
                if piece.is_empty() {
                    continue;
                }
                if extent.pieces == MAX_CHAIN_PIECES {
                    return Err(SegmentError::TooLong);
                }
                extent.pieces += 1;
                extent.bytes += piece.len();
                self.pieces.push_back(piece);
            }
        }
        if ended { Ok(extent) } else { Err(SegmentError::Endless) }
    }

    /// How many pieces there are.
    pub(super) fn count(&self) -> usize {
        self.pieces.len()
    }

    /// The pieces, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.pieces.iter()
    }

    /// Forgets the first `count` pieces.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.pieces.drain(..count.min(self.pieces.len()));
    }

    /// Forgets all pieces.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Overwrites what is at `offset`, as far as there is something.
    pub(super) fn write_at(&self, mut offset: usize, mut bytes: &[u8]) {
        for piece in &self.pieces {
            if bytes.is_empty() {
                return;
            }
            // In range: an error means that the piece lies before the offset.
            if let Ok(rest) = piece.offset(offset) {
                let (now, later) = bytes.split_at(bytes.len().min(rest.len()));
                rest.copy_from(now);
                bytes = later;
            }
            offset = offset.saturating_sub(piece.len());
        }
    }
}
