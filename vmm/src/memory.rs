//! The guest's memory: reserved at once, taken from the host page by page as the guest uses it.
//!
//! Each range starts on a 2 MiB boundary here as it does in the guest. That lets the host use huge pages for both its
//! own page tables and the guest's second level, so that a booting guest takes tens of page faults, not thousands.

use std::{io, ptr};

use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionCollectionError, GuestRegionMmap, MmapRegion};

use crate::layout;

const HUGE_PAGE: usize = 2 << 20;

/// The guest's memory can't be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not that much address space left, or limits it.
    #[error("the host refuses")]
    Map(#[source] io::Error),
    /// The host's page size does not fit.
    #[error("the mapping is unusable")]
    Region(#[from] vm_memory::mmap::MmapRegionError),
    /// The ranges overlap.
    #[error("the ranges are unusable")]
    Collection(#[from] GuestRegionCollectionError),
}

/// Maps memory for a guest. It stays mapped until the process ends.
///
/// # Errors
/// When the host refuses.
pub fn map(mem_size_mib: u32) -> Result<GuestMemoryMmap, MemoryError> {
    let mut regions = Vec::with_capacity(2);
    for (start, len) in layout::memory_ranges(mem_size_mib) {
        let too_large = |_| MemoryError::Map(io::ErrorKind::OutOfMemory.into());
        let region = map_aligned(usize::try_from(len).map_err(too_large)?)?;
        let region = GuestRegionMmap::new(region, GuestAddress(start));
        regions.push(region.ok_or_else(|| MemoryError::Map(io::ErrorKind::InvalidInput.into()))?);
    }
    Ok(GuestMemoryMmap::from_regions(regions)?)
}

/// Maps `len` bytes, a multiple of the page size, at a boundary of a huge page.
fn map_aligned(len: usize) -> Result<MmapRegion, MemoryError> {
    const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;
    const FLAGS: i32 = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_PRIVATE;
    let reserved = len + HUGE_PAGE;
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), reserved, PROTECTION, FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(MemoryError::Map(io::Error::last_os_error()));
    }
    let start: *mut u8 = start.cast();
    let before = start.align_offset(HUGE_PAGE);
    let (aligned, end) = (start.wrapping_add(before), start.wrapping_add(before + len));
    for (piece, len) in [(start, before), (end, HUGE_PAGE - before)] {
        if len > 0 {
            // SAFETY: the piece is part of the mapping made above, of which nobody knows yet. It could fail only for want
            // of memory for the kernel's own records, and then the piece is merely kept.
            unsafe { libc::munmap(piece.cast(), len) };
        }
    }
    // A hint: without huge pages all works as well, but slower.
    // SAFETY: changes nothing but how the kernel backs the rest of the mapping made above.
    unsafe { libc::madvise(aligned.cast(), len, libc::MADV_HUGEPAGE) };
    // SAFETY: the address and length are those of the rest of the mapping, which nobody else uses and nobody unmaps.
    Ok(unsafe { MmapRegion::build_raw(aligned, len, PROTECTION, FLAGS) }?)
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend};

    use super::*;

    #[test]
    fn memory_is_usable_up_to_its_ends_and_aligned() {
        // Nothing is taken from the host until it is used.
        let mem = map(5000).unwrap();
        let last = (1_u64 << 32) + (5000 - 3072) * (1 << 20) - 1;
        for (address, exists) in [
            (0, true),
            ((3 << 30) - 1, true),
            (3 << 30, false),
            ((4 << 30) - 1, false),
            (4 << 30, true),
            (last, true),
            (last + 1, false),
        ] {
            assert_eq!(mem.write_obj(0xa5_u8, GuestAddress(address)).is_ok(), exists, "{address:#x}");
        }
        for start in [0, 4 << 30] {
            let host = mem.get_host_address(GuestAddress(start)).unwrap();
            assert!(host.align_offset(HUGE_PAGE) == 0);
        }
    }
}
