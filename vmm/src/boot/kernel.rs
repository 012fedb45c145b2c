//! Loading an uncompressed kernel. The file is untrusted: it must be what it says, and stay within the guest's memory.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use linux_loader::loader::{Elf, KernelLoader};
use vm_memory::GuestMemoryMmap;

use crate::layout::HIGH_MEMORY;

const ELF_HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
/// Most program headers of a kernel; a Linux kernel has five.
const MAX_PROGRAM_HEADERS: u16 = 64;
const MACHINE_X86_64: u16 = 62;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const SEGMENT_LOAD: u32 = 1;

/// A kernel can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file can't be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Not an ELF file at all.
    #[error("not a vmlinux: it is not an ELF file (a bzImage is not one either)")]
    NotElf,
    /// An ELF file for something else.
    #[error("not a vmlinux for this machine: it is not a 64-bit x86 ELF file")]
    Machine,
    /// The file ends too early, or its headers make no sense.
    #[error("the ELF file is damaged: {0}")]
    Damaged(&'static str),
    /// The guest's memory is too small.
    #[error("it needs memory up to {needed_mib} MiB: give the guest more")]
    TooSmall {
        /// Where the kernel ends.
        needed_mib: u64,
    },
    /// The loader failed.
    #[error("the ELF file can't be loaded")]
    Load(#[source] linux_loader::loader::Error),
}

/// A loaded kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Address of the 64-bit entry point.
    pub(super) entry: u64,
    /// First address after the kernel, its zero-filled part included.
    pub(super) end: u64,
}

/// Loads the kernel, straight from the file into the guest's memory, which ends at `memory_end`.
pub(super) fn load(mem: &GuestMemoryMmap, mut file: File, memory_end: u64) -> Result<Kernel, KernelError> {
    let kernel = check(&file, memory_end)?;
    file.seek(SeekFrom::Start(0)).map_err(KernelError::Read)?;
    Elf::load(mem, None, &mut file, None).map_err(KernelError::Load)?;
    Ok(kernel)
}

/// Checks all that the loader takes for granted.
fn check(file: &File, memory_end: u64) -> Result<Kernel, KernelError> {
    let file_len = file.metadata().map_err(KernelError::Read)?.len();
    let mut header = [0; ELF_HEADER_LEN];
    read(file, &mut header[..4], 0).map_err(|_| KernelError::NotElf)?;
    if &header[..4] != b"\x7fELF" {
        return Err(KernelError::NotElf);
    }
    read(file, &mut header, 0)?;
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || u16_at(&header, 18) != MACHINE_X86_64 {
        return Err(KernelError::Machine);
    }
    let entry = u64_at(&header, 24);
    let (headers_at, headers) = (u64_at(&header, 32), u16_at(&header, 56));
    if usize::from(u16_at(&header, 54)) != PROGRAM_HEADER_LEN || headers > MAX_PROGRAM_HEADERS {
        return Err(KernelError::Damaged("its program headers are not of the usual form"));
    }

    let mut end = 0;
    let mut entry_is_inside = false;
    for index in 0..u64::from(headers) {
        let mut segment = [0; PROGRAM_HEADER_LEN];
        let at = headers_at.checked_add(index * PROGRAM_HEADER_LEN as u64);
        read(file, &mut segment, at.ok_or(KernelError::Damaged("a header lies beyond any file"))?)?;
        if u32_at(&segment, 0) != SEGMENT_LOAD {
            continue;
        }
        let (offset, start) = (u64_at(&segment, 8), u64_at(&segment, 24));
        let (len_in_file, len) = (u64_at(&segment, 32), u64_at(&segment, 40));
        if offset.checked_add(len_in_file).is_none_or(|segment_end| segment_end > file_len) {
            return Err(KernelError::Damaged("it is shorter than it says"));
        }
        let segment_end = start.checked_add(len.max(len_in_file));
        let segment_end = segment_end.ok_or(KernelError::Damaged("a segment lies beyond any memory"))?;
        if start < HIGH_MEMORY {
            return Err(KernelError::Damaged("a segment lies in the first MiB"));
        }
        entry_is_inside |= (start..segment_end).contains(&entry);
        end = end.max(segment_end);
    }
    if !entry_is_inside {
        return Err(KernelError::Damaged("its entry point lies outside of it"));
    }
    if end > memory_end {
        return Err(KernelError::TooSmall { needed_mib: end.div_ceil(1 << 20) });
    }
    Ok(Kernel { entry, end })
}

fn read(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), KernelError> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
            KernelError::Damaged("it is shorter than it says")
        }
        _ => KernelError::Read(error),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
