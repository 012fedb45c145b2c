//! Getting a Linux kernel from files into a guest's memory, ready for its 64-bit entry point. No firmware is involved.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::{config::VmConfig, layout};

pub mod cmdline;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod gdt;
mod kernel;
mod mptable;
pub(crate) mod paging;
mod params;

pub use cmdline::CmdlineError;
pub use kernel::KernelError;

/// A guest can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The kernel can't be loaded.
    #[error("cannot load the kernel {path}")]
    Kernel {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// The initramfs can't be read.
    #[error("cannot read the initramfs {path}")]
    Initramfs {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Kernel and initramfs need more memory than the guest has.
    #[error("the initramfs ({initramfs_mib} MiB) does not fit beside the kernel: give the guest more memory")]
    TooSmall {
        /// Size of the initramfs.
        initramfs_mib: u64,
    },
    /// The command line is no good.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The guest has no memory where it must have some.
    #[error("cannot write the boot data")]
    Memory(#[from] GuestMemoryError),
}

/// Where the first CPU starts.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Instruction pointer.
    pub address: u64,
    /// CR3.
    pub page_tables: u64,
}

/// What the guest boots from, open and not yet looked at.
#[derive(Debug)]
pub struct Files {
    kernel: File,
    initramfs: Option<File>,
}

impl Files {
    /// Opens the files of a configuration.
    ///
    /// # Errors
    /// When one can't be opened.
    pub fn open(config: &VmConfig) -> Result<Self, BootError> {
        let kernel =
            File::open(&config.kernel).map_err(|error| kernel_error(config, KernelError::Read(error)))?;
        let initramfs = |path: &PathBuf| {
            File::open(path).map_err(|source| BootError::Initramfs { path: path.clone(), source })
        };
        Ok(Self { kernel, initramfs: config.initramfs.as_ref().map(initramfs).transpose()? })
    }
}

fn kernel_error(config: &VmConfig, source: KernelError) -> BootError {
    BootError::Kernel { path: config.kernel.clone(), source }
}

/// Loads kernel and initramfs and writes all that they need; `cmdline` is the complete command line.
///
/// # Errors
/// When a file is not what it should be, or the memory is too small.
pub fn prepare(
    mem: &GuestMemoryMmap,
    config: &VmConfig,
    files: Files,
    cmdline: &str,
) -> Result<Entry, BootError> {
    let low_memory_end = layout::memory_ranges(config.mem_size_mib)[0].1;
    let kernel =
        kernel::load(mem, files.kernel, low_memory_end).map_err(|source| kernel_error(config, source))?;
    let initramfs = match (&config.initramfs, files.initramfs) {
        (Some(path), Some(file)) => Some(load_initramfs(mem, path, file, kernel.end, low_memory_end)?),
        _ => None,
    };

    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    mem.write_slice(&text, GuestAddress(layout::CMDLINE))?;
    mem.write_slice(&mptable::table(config.vcpus), GuestAddress(layout::MP_TABLE))?;
    mem.write_slice(&gdt::table(), GuestAddress(layout::GDT))?;
    let page_tables = paging::write(mem)?;
    params::write(mem, config.mem_size_mib, cmdline.len(), initramfs)?;
    Ok(Entry { address: kernel.entry, page_tables })
}

/// A piece of the guest's low memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    len: u32,
}

/// Reads the initramfs to the end of the low memory, where no kernel puts anything early.
fn load_initramfs(
    mem: &GuestMemoryMmap,
    path: &Path,
    mut file: File,
    kernel_end: u64,
    memory_end: u64,
) -> Result<Range, BootError> {
    let read = |source| BootError::Initramfs { path: path.into(), source };
    let len = file.metadata().map_err(read)?.len();
    let too_small = BootError::TooSmall { initramfs_mib: len.div_ceil(1 << 20) };
    let Some(start) = memory_end.checked_sub(len).map(|start| start & !0xfff) else { return Err(too_small) };
    let (Ok(start32), Ok(len32)) = (u32::try_from(start), u32::try_from(len)) else { return Err(too_small) };
    if start < kernel_end {
        return Err(too_small);
    }
    if len == 0 {
        return Err(read(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file is empty")));
    }
    let count = usize::try_from(len).unwrap_or(usize::MAX);
    mem.read_exact_volatile_from(GuestAddress(start), &mut file, count).map_err(|error| match error {
        GuestMemoryError::IOError(error) => read(error),
        other => BootError::Memory(other),
    })?;
    Ok(Range { start: start32, len: len32 })
}

#[cfg(test)]
mod tests;
