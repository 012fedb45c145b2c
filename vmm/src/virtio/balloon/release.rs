//! Gives memory of the guest back to the host. It reads as zeros afterwards, and comes back when the guest touches it.

use std::ops::Range;

use vm_memory::{
    Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress, VolatileSlice,
};

use super::metrics::BalloonCounters;

/// Size of a page in the balloon's interface (virtio 1.2, section 5.5.6).
pub(super) const PAGE: u64 = 4096;
const ALIGNMENT: usize = 4096;

/// How memory is given back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Releaser {
    advice: i32,
}

impl Releaser {
    /// For memory that is a file's (`shared`) or the process's own.
    pub(super) fn new(shared: bool) -> Self {
        // What a file holds stays when the mapping forgets it: a hole has to be made.
        Self { advice: if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED } }
    }

    /// Gives back a range of pages, as far as they are memory of the guest; returns how many pages that was.
    pub(super) fn pages(self, mem: &GuestMemoryMmap, range: Range<u64>, counters: &BalloonCounters) -> u64 {
        let mut pages = 0;
        for region in mem.iter() {
            let first = region.start_addr().raw_value() / PAGE;
            let start = range.start.max(first);
            let end = range.end.min(first + region.len() / PAGE);
            let Some(count) = end.checked_sub(start).filter(|count| *count > 0) else { continue };
            let Ok(len) = usize::try_from(count * PAGE) else { continue };
            let piece = region.get_slice(MemoryRegionAddress((start - first) * PAGE), len);
            if piece.is_ok_and(|piece| self.slice(&piece, counters) > 0) {
                pages += count;
            }
        }
        pages
    }

    /// Gives back the whole pages of a piece of the guest's memory; returns how many bytes that was.
    pub(super) fn slice(self, piece: &VolatileSlice<'_>, counters: &BalloonCounters) -> u64 {
        let pointer = piece.ptr_guard_mut();
        let start = pointer.as_ptr();
        let before = start.align_offset(ALIGNMENT);
        let len = piece.len().saturating_sub(before) / ALIGNMENT * ALIGNMENT;
        if len == 0 {
            return 0;
        }
        // SAFETY: the range lies within the piece, which is memory of the guest: mapped as long as the piece lives, and
        // without any reference to it, since the guest may change its content at any time, as this does.
        let result = unsafe { libc::madvise(start.wrapping_add(before).cast(), len, self.advice) };
        if result < 0 {
            counters.failures.add(1);
            return 0;
        }
        len as u64
    }
}
