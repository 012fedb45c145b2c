//! The buffers of a descriptor chain as pieces of guest memory, for one request at a time.

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

/// Most pieces of one direction that a request may have: a driver may chain no more descriptors than the queue has
/// (virtio 1.2, section 2.7.5.3.1), and one that crosses from one memory region to the next counts twice.
const MAX_PIECES: usize = 512;

/// A chain is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    /// A descriptor lies outside guest memory.
    #[error("a descriptor lies outside the guest's memory")]
    Outside,
    /// More descriptors than any driver may use.
    #[error("a descriptor chain is too long")]
    TooLong,
    /// A descriptor names a next one that does not exist or can't be read, or the chain is a loop.
    #[error("a descriptor chain has no end")]
    Endless,
    /// A descriptor to write to where only reading makes sense, or the other way round.
    #[error("a descriptor chain has a descriptor of the wrong direction")]
    Direction,
    /// A descriptor to read from follows one to write to (virtio 1.2, section 2.7.4.2).
    #[error("a descriptor chain has a readable descriptor after a writable one")]
    Order,
}

/// What the device reads and what it writes: byte streams, however they are cut into descriptors.
#[derive(Debug, Default)]
pub(super) struct Segments<'m> {
    /// From the driver.
    pub(super) readable: Buffer<'m>,
    /// For the driver.
    pub(super) writable: Buffer<'m>,
}

impl<'m> Segments<'m> {
    /// Collects a chain's buffers.
    ///
    /// # Errors
    /// When the chain breaks a rule; none of it may be used then.
    pub(super) fn collect(
        mem: &'m GuestMemoryMmap,
        chain: DescriptorChain<&'m GuestMemoryMmap>,
    ) -> Result<Self, SegmentError> {
        let mut all = Self::default();
        for descriptor in chain {
            let (buffer, access) = if descriptor.is_write_only() {
                (&mut all.writable, Permissions::Write)
            } else if all.writable.pieces.is_empty() {
                (&mut all.readable, Permissions::Read)
            } else {
                return Err(SegmentError::Order);
            };
            let len = usize::try_from(descriptor.len()).map_err(|_| SegmentError::TooLong)?;
            let slices = GuestMemory::get_slices(mem, descriptor.addr(), len, access);
            for piece in slices.map_err(|_| SegmentError::Outside)? {
                if buffer.pieces.len() == MAX_PIECES {
                    return Err(SegmentError::TooLong);
                }
                let piece = piece.map_err(|_| SegmentError::Outside)?;
                buffer.len += piece.len();
                buffer.pieces.push(piece);
            }
        }
        Ok(all)
    }
}

/// Bytes that lie in pieces in guest memory.
#[derive(Debug, Default)]
pub(super) struct Buffer<'m> {
    pieces: Vec<VolatileSlice<'m>>,
    len: usize,
}

impl<'m> Buffer<'m> {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, in order.
    pub(super) fn pieces(&self) -> &[VolatileSlice<'m>] {
        &self.pieces
    }

    /// Copies the first bytes out, as many as `to` holds; returns how many.
    pub(super) fn copy_to(&self, to: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            done += piece.copy_to(&mut to[done..]);
        }
        done
    }

    /// Overwrites the first bytes from `from`, as many as there are in both; returns how many.
    pub(super) fn copy_from(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let count = piece.len().min(from.len() - done);
            piece.copy_from(&from[done..done + count]);
            done += count;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use virtio_queue::{
        Queue, QueueOwnedT,
        desc::{RawDescriptor, split::Descriptor},
        mock::MockSplitQueue,
    };
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const WRITE: u16 = 2;

    fn memory() -> GuestMemoryMmap {
        let region = |start, len| (GuestAddress(start), len);
        // Two regions that touch: contiguous for the guest, not for the host.
        GuestMemoryMmap::from_ranges(&[region(0, 0x1_0000), region(0x1_0000, 0x1_0000)]).unwrap()
    }

    fn collect<'m>(
        mem: &'m GuestMemoryMmap,
        descriptors: &[(u64, u32, u16)],
    ) -> Result<Segments<'m>, SegmentError> {
        let queue = MockSplitQueue::new(mem, 16);
        let descriptors: Vec<_> = descriptors
            .iter()
            .map(|(address, len, flags)| RawDescriptor::from(Descriptor::new(*address, *len, *flags, 0)))
            .collect();
        queue.build_desc_chain(&descriptors).unwrap();
        let mut queue: Queue = queue.create_queue().unwrap();
        let chain = queue.iter(mem).unwrap().next().unwrap();
        Segments::collect(mem, chain)
    }

    #[test]
    fn a_descriptor_may_cross_memory_regions() {
        let mem = memory();
        mem.write_slice(b"abcdef", GuestAddress(0xfffd)).unwrap();
        let segments = collect(&mem, &[(0xfffd, 6, 0)]).unwrap();
        assert_eq!(segments.readable.pieces().len(), 2);
        let mut text = [0; 8];
        assert_eq!(segments.readable.copy_to(&mut text), 6);
        assert_eq!(&text[..6], b"abcdef");
    }

    #[test]
    fn broken_chains_are_refused() {
        let mem = memory();
        let error = |descriptors: &[_]| collect(&mem, descriptors).unwrap_err();
        assert!(matches!(error(&[(0x1_ffff, 2, 0)]), SegmentError::Outside));
        assert!(matches!(error(&[(u64::MAX, 2, WRITE)]), SegmentError::Outside));
        assert!(matches!(error(&[(0x8000, 1, WRITE), (0x8000, 1, 0)]), SegmentError::Order));
    }
}
