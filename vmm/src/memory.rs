//! The guest's memory: address space reserved at once, and pages of one of three kinds.
//!
//! Ordinary pages are taken from the host one by one as the guest uses them, without a promise that there are enough. Each
//! range starts on a 2 MiB boundary here as it does in the guest. That lets the host use huge pages for both its own page
//! tables and the guest's second level, so that a booting guest takes tens of page faults, not thousands.
//!
//! Huge pages of the host's pool are reserved by the mapping: a guest that starts has them all, one that can't does not
//! start. Memory that other processes are to map, and huge pages of the pool, belong to a [file] in memory. One of the pool's
//! can't shrink under its guest. One of ordinary pages could be shrunk by those who were given it, which are the servers of this
//! guest alone and can end it anyway, by hanging up.

use std::{fs::File, io, os::fd::AsRawFd, ptr};

use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionCollectionError, GuestRegionMmap, MmapRegion, mmap::MmapRegionBuilder,
};

use crate::{
    config::{Backing, MemoryConfig},
    layout,
};

mod file;

const HUGE_PAGE: usize = 2 << 20;
const PROTECTION: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// The guest's memory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not that much address space left, or limits it.
    #[error("the host refuses")]
    Map(#[source] io::Error),
    /// The host's pool of huge pages is too small, or has too few left.
    #[error(
        "the host has not {pages} free huge pages of {page_mib} MiB: raise \
         /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages (for 2 MiB also /proc/sys/vm/nr_hugepages)",
        .page_mib * 1024
    )]
    HugePages {
        /// How many are needed.
        pages: u32,
        /// Their size.
        page_mib: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host can't give all memory now.
    #[error("the host cannot give it all at once (memory.prefault; it needs Linux 5.14 and free memory)")]
    Prefault(#[source] io::Error),
    /// The host's page size does not fit.
    #[error("the mapping is unusable")]
    Region(#[from] vm_memory::mmap::MmapRegionError),
    /// The ranges overlap.
    #[error("the ranges are unusable")]
    Collection(#[from] GuestRegionCollectionError),
}

/// The file that a guest's memory belongs to, if it is to belong to one. To be made before the jail.
///
/// # Errors
/// When the host refuses.
pub fn create_file(mem_size_mib: u32, config: MemoryConfig) -> Result<Option<File>, MemoryError> {
    file::create(mem_size_mib, config).map_err(|source| refused(mem_size_mib, config, source))
}

/// Maps memory for a guest, of its file if it has one. It stays mapped until the process ends.
///
/// # Errors
/// When the host refuses.
pub fn map(
    mem_size_mib: u32,
    config: MemoryConfig,
    file: Option<&File>,
) -> Result<GuestMemoryMmap, MemoryError> {
    let refused = |source| refused(mem_size_mib, config, source);
    let mut regions = Vec::with_capacity(2);
    let mut offset = 0;
    for (start, len) in layout::memory_ranges(mem_size_mib) {
        let too_large = |_| MemoryError::Map(io::ErrorKind::OutOfMemory.into());
        let len = usize::try_from(len).map_err(too_large)?;
        let file = file.map(|file| file.try_clone().map(|file| FileOffset::new(file, offset)));
        let region = map_aligned(len, file.transpose().map_err(MemoryError::Map)?, config.backing, refused)?;
        let region = GuestRegionMmap::new(region, GuestAddress(start));
        regions.push(region.ok_or_else(|| MemoryError::Map(io::ErrorKind::InvalidInput.into()))?);
        offset += len as u64;
    }
    let mem = GuestMemoryMmap::from_regions(regions)?;
    if config.prefault {
        prefault(&mem).map_err(MemoryError::Prefault)?;
    }
    Ok(mem)
}

fn refused(mem_size_mib: u32, config: MemoryConfig, source: io::Error) -> MemoryError {
    match config.backing.huge_page_mib() {
        Some(page_mib) => MemoryError::HugePages { pages: mem_size_mib / page_mib, page_mib, source },
        None => MemoryError::Map(source),
    }
}

/// Maps `len` bytes, a multiple of the page size, at a boundary of a huge page: a file's, or the process's own.
fn map_aligned(
    len: usize,
    file: Option<FileOffset>,
    backing: Backing,
    refused: impl Fn(io::Error) -> MemoryError,
) -> Result<MmapRegion, MemoryError> {
    let alignment = backing.huge_page_mib().map_or(HUGE_PAGE, |mib| (mib as usize) << 20);
    let aligned = reserve(len, alignment).map_err(MemoryError::Map)?;
    let (fd, offset) = match &file {
        Some(file) => (file.file().as_raw_fd(), i64::try_from(file.start()).unwrap_or(i64::MAX)),
        None => (-1, 0),
    };
    let flags = match (&file, backing) {
        (None, _) => libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        (Some(_), Backing::Anonymous) => libc::MAP_SHARED | libc::MAP_NORESERVE,
        // Reserved: a page that the pool did not have would end the process when the guest touched it.
        (Some(_), _) => libc::MAP_SHARED,
    };
    // SAFETY: replaces the address space that was reserved above, of which nobody else knows.
    let start = unsafe { libc::mmap(aligned.cast(), len, PROTECTION, flags | libc::MAP_FIXED, fd, offset) };
    if start == libc::MAP_FAILED {
        let error = io::Error::last_os_error();
        // SAFETY: the range was reserved above, and nobody knows of it.
        unsafe { libc::munmap(aligned.cast(), len) };
        return Err(refused(error));
    }
    if backing == Backing::Anonymous {
        // A hint: without huge pages all works as well, but slower.
        // SAFETY: changes nothing but how the kernel backs the mapping made above.
        unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
    }
    let mut builder = MmapRegionBuilder::new(len).with_mmap_prot(PROTECTION).with_mmap_flags(flags);
    if let Some(file) = file {
        builder = builder.with_file_offset(file);
    }
    // SAFETY: the address and length are those of the mapping, which nobody else uses and nobody unmaps.
    Ok(unsafe { builder.with_raw_mmap_pointer(aligned) }.build()?)
}

/// Takes `len` bytes of address space at a multiple of `alignment`.
fn reserve(len: usize, alignment: usize) -> io::Result<*mut u8> {
    const FLAGS: i32 = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_PRIVATE;
    let reserved = len + alignment;
    // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, FLAGS, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start: *mut u8 = start.cast();
    let before = start.align_offset(alignment);
    let (aligned, end) = (start.wrapping_add(before), start.wrapping_add(before + len));
    for (piece, len) in [(start, before), (end, alignment - before)] {
        if len > 0 {
            // SAFETY: the piece is part of the mapping made above, of which nobody knows yet. It could fail only for want
            // of memory for the kernel's own records, and then the piece is merely kept.
            unsafe { libc::munmap(piece.cast(), len) };
        }
    }
    Ok(aligned)
}

/// Makes the host give all pages now.
fn prefault(mem: &GuestMemoryMmap) -> io::Result<()> {
    for region in mem.iter() {
        let len = usize::try_from(region.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the range is that of the region's mapping; its content does not change.
        if unsafe { libc::madvise(region.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use vm_memory::Bytes;

    use super::*;

    const ANONYMOUS: MemoryConfig =
        MemoryConfig { backing: Backing::Anonymous, shared: false, prefault: false };

    fn map(mem_size_mib: u32, config: MemoryConfig) -> Result<GuestMemoryMmap, MemoryError> {
        let file = create_file(mem_size_mib, config)?;
        super::map(mem_size_mib, config, file.as_ref())
    }

    #[test]
    fn memory_is_usable_up_to_its_ends_and_aligned() {
        for shared in [false, true] {
            // Nothing is taken from the host until it is used.
            let mem = map(5000, MemoryConfig { shared, ..ANONYMOUS }).unwrap();
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

    #[test]
    fn shared_memory_is_a_file() {
        let mem = map(3073, MemoryConfig { shared: true, ..ANONYMOUS }).unwrap();
        mem.write_obj(0x1234_u16, GuestAddress(4 << 30)).unwrap();
        let high = mem.find_region(GuestAddress(4 << 30)).unwrap().file_offset().unwrap();
        assert_eq!(high.start(), 3 << 30);
        let mut bytes = [0; 2];
        high.file().read_exact_at(&mut bytes, high.start()).unwrap();
        assert_eq!(bytes, [0x34, 0x12]);
        assert!(map(64, ANONYMOUS).unwrap().iter().all(|region| region.file_offset().is_none()));
    }

    /// How many pages of a range the host has given.
    fn resident(mem: &GuestMemoryMmap, len: usize) -> usize {
        let host = mem.get_host_address(GuestAddress(0)).unwrap();
        let mut pages = vec![0_u8; len / 4096];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(host.cast(), len, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn prefault_takes_all_at_once() {
        for shared in [false, true] {
            let lazy = map(64, MemoryConfig { shared, ..ANONYMOUS }).unwrap();
            assert_eq!(resident(&lazy, 64 << 20), 0);
            let eager = map(64, MemoryConfig { shared, prefault: true, ..ANONYMOUS }).unwrap();
            assert_eq!(resident(&eager, 64 << 20), 64 << 8);
        }
    }

    #[test]
    fn a_pool_that_is_too_small_is_named() {
        // More than any machine has.
        let config = MemoryConfig { backing: Backing::Hugetlb2M, ..ANONYMOUS };
        let error = map(512 << 10, config).unwrap_err();
        assert!(matches!(error, MemoryError::HugePages { pages: 262_144, page_mib: 2, .. }), "{error:?}");
        assert!(error.to_string().contains("hugepages-2048kB/nr_hugepages"), "{error}");
    }
}
