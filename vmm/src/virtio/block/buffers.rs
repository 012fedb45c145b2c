//! A request's guest memory in the form that the kernel takes, owned: a transfer in flight needs nothing of the queue.

use std::sync::Arc;

use vm_memory::{GuestMemoryMmap, VolatileSlice};

use crate::virtio::segments::Buffer;

/// A sector of zeros.
pub(super) const ZEROS: [u8; 512] = [0; 512];

/// Pieces of guest memory for data, and the byte for the status.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The data's pieces, and last the status byte.
    vectors: Vec<libc::iovec>,
    /// The first piece of data that is not done with.
    next: usize,
    /// Keeps all pieces mapped.
    _mem: Arc<GuestMemoryMmap>,
}

// SAFETY: the pointers are to guest memory, which is mapped for the whole process as long as this lives, and to which no
// Rust reference exists.
unsafe impl Send for Buffers {}

/// Which of a request's descriptors hold its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Data {
    /// The readable ones, after so many bytes of header.
    AfterHeader(usize),
    /// The writable ones, before the status.
    BeforeStatus,
}

impl Buffers {
    /// Takes over what a chain in `mem` has; `None` if it has no place for the status: the last writable byte.
    pub(super) fn new(
        mem: &Arc<GuestMemoryMmap>,
        readable: &Buffer<'_>,
        writable: &Buffer<'_>,
        data: Data,
    ) -> Option<Self> {
        let mut writable = vectors(writable);
        let last = writable.last_mut()?;
        last.iov_len -= 1;
        let status = libc::iovec { iov_base: last.iov_base.wrapping_byte_add(last.iov_len), iov_len: 1 };
        // Most drivers have a descriptor for the status alone.
        writable.pop_if(|last| last.iov_len == 0);
        let (mut vectors, skipped) = match data {
            Data::AfterHeader(skipped) => (vectors(readable), skipped),
            Data::BeforeStatus => (writable, 0),
        };
        vectors.push(status);
        let mut buffers = Self { vectors, next: 0, _mem: mem.clone() };
        buffers.advance(skipped);
        Some(buffers)
    }

    /// The data that is still to be moved.
    pub(super) fn data(&self) -> &[libc::iovec] {
        &self.vectors[self.next..self.vectors.len() - 1]
    }

    /// Whether all data has been moved.
    pub(super) fn is_done(&self) -> bool {
        self.data().iter().all(|vector| vector.iov_len == 0)
    }

    /// The first `count` bytes of data have been moved.
    pub(super) fn advance(&mut self, mut count: usize) {
        let status = self.vectors.len() - 1;
        while self.next < status {
            let vector = &mut self.vectors[self.next];
            if count < vector.iov_len {
                vector.iov_base = vector.iov_base.wrapping_byte_add(count);
                vector.iov_len -= count;
                return;
            }
            count -= vector.iov_len;
            self.next += 1;
        }
    }

    /// Overwrites the data with the start of `from`; returns how many bytes that are.
    pub(super) fn copy_from(&self, from: &[u8]) -> usize {
        let mut done = 0;
        for vector in self.data() {
            let count = vector.iov_len.min(from.len() - done);
            slice(vector).copy_from(&from[done..done + count]);
            done += count;
        }
        done
    }

    /// Overwrites the data with zeros, up to the length of a sector for each piece.
    pub(super) fn fill_with_zeros(&self) {
        for vector in self.data() {
            let piece = slice(vector);
            piece.copy_from(&ZEROS[..piece.len().min(ZEROS.len())]);
        }
    }

    /// Tells the driver how its request ended (VIRTIO_BLK_S_*).
    pub(super) fn set_status(&self, status: u32) {
        if let Some(vector) = self.vectors.last() {
            slice(vector).copy_from(&[u8::try_from(status).unwrap_or(u8::MAX)]);
        }
    }
}

fn vectors(buffer: &Buffer<'_>) -> Vec<libc::iovec> {
    // One more may be added: the status.
    let mut vectors = Vec::with_capacity(buffer.pieces().len() + 1);
    for piece in buffer.pieces().iter().filter(|piece| !piece.is_empty()) {
        vectors.push(libc::iovec { iov_base: piece.ptr_guard_mut().as_ptr().cast(), iov_len: piece.len() });
    }
    vectors
}

fn slice(vector: &libc::iovec) -> VolatileSlice<'_> {
    // SAFETY: a vector is a part of a piece of guest memory that `Buffers`, whose part it is, keeps mapped; all accesses
    // to guest memory are volatile.
    unsafe { VolatileSlice::new(vector.iov_base.cast(), vector.iov_len) }
}
