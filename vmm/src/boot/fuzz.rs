//! Kernels that are anything.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::OnceLock,
};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::kernel;
use crate::layout::HIGH_MEMORY;

const MEMORY_LEN: usize = 4 << 20;

/// A file in memory, one for the life of the process.
fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    FILE.get_or_init(|| {
        // SAFETY: the name is a string that ends with zero.
        let fd = unsafe { libc::memfd_create(c"kernel".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: a descriptor that is not negative is new and nobody else's.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }.into())
    })
    .as_ref()
}

/// Loads a kernel. Achieves one if it would be started.
pub(crate) fn run(data: &[u8]) -> usize {
    // Without memory in the first MiB, nothing can be loaded to where the VMM's own tables are.
    let region = (GuestAddress(HIGH_MEMORY), MEMORY_LEN);
    let (Ok(mem), Some(mut file)) = (GuestMemoryMmap::from_ranges(&[region]), file()) else { return 0 };
    let memory_end = HIGH_MEMORY + MEMORY_LEN as u64;
    if file.set_len(0).is_err()
        || file.write_all_at(data, 0).is_err()
        || file.seek(SeekFrom::Start(0)).is_err()
    {
        return 0;
    }
    let Ok(file) = file.try_clone() else { return 0 };
    let Ok(kernel) = kernel::load(&mem, file, memory_end) else { return 0 };
    assert!((HIGH_MEMORY..kernel.end).contains(&kernel.entry) && kernel.end <= memory_end, "{kernel:x?}");
    1
}

/// A kernel of one segment, and one of two with a note.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let one = elf(&[[1, 7, 0x200, HIGH_MEMORY, HIGH_MEMORY, 16, 0x1000, 0x1000]]);
    let two = elf(&[
        [1, 5, 0x200, u64::MAX << 20, HIGH_MEMORY, 32, 32, 0x1000],
        [1, 6, 0x220, 0, HIGH_MEMORY + 0x1000, 8, 0x2_0000, 0x1000],
        [4, 4, 0x240, 0, 0, 24, 24, 4],
    ]);
    vec![one, two]
}

/// An ELF file with these program headers: kind, flags, offset, virtual and physical address, lengths in file and
/// memory, alignment.
fn elf(segments: &[[u64; 8]]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    let half = |value: usize| u16::try_from(value).unwrap_or(0).to_le_bytes();
    // An executable for x86-64, version 1.
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend(HIGH_MEMORY.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.resize(52, 0);
    [64, 56, segments.len(), 64, 0, 0].into_iter().for_each(|value| bytes.extend(half(value)));
    for [kind, flags, rest @ ..] in segments {
        bytes.extend(&kind.to_le_bytes()[..4]);
        bytes.extend(&flags.to_le_bytes()[..4]);
        rest.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    }
    bytes.resize(0x240, 0x90);
    // A note for Xen, where a PVH entry point would be looked for.
    bytes.extend([4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0]);
    bytes.extend(b"Xen\0\x00\x00\x10\x00\x00\x00\x00\x00");
    bytes
}
