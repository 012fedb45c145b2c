//! The file behind a disk. Its format is always raw.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use vm_memory::VolatileSlice;

use crate::{
    config::{DiskConfig, MAX_DISK_ID_LEN},
    virtio::segments::Buffer,
};

const ZEROS: [u8; 512] = [0; 512];
/// Bytes of a sector, the unit of all requests.
pub(super) const SECTOR: u64 = ZEROS.len() as u64;

/// A disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file can't be opened.
    #[error("cannot open the disk {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("the disk {0} is empty")]
    Empty(PathBuf),
    /// A writable disk whose last sector is not complete.
    #[error("the disk {path} has {len} bytes: a writable disk needs a multiple of {SECTOR}")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
}

/// An open disk.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    len: u64,
    read_only: bool,
    id: [u8; MAX_DISK_ID_LEN],
}

impl Disk {
    /// Opens a disk, for reading only if it is read-only.
    ///
    /// # Errors
    /// When it can't be opened, or its length is no good.
    pub(super) fn open(config: &DiskConfig) -> Result<Self, DiskError> {
        let path: &Path = &config.path;
        let open = |source| DiskError::Open { path: path.into(), source };
        let mut file = OpenOptions::new().read(true).write(!config.read_only).open(path).map_err(open)?;
        if file.metadata().map_err(open)?.is_dir() {
            return Err(open(io::ErrorKind::IsADirectory.into()));
        }
        // A block device's length is known only this way.
        let len = file.seek(SeekFrom::End(0)).map_err(open)?;
        if len == 0 {
            return Err(DiskError::Empty(path.into()));
        }
        if !config.read_only && !len.is_multiple_of(SECTOR) {
            return Err(DiskError::Length { path: path.into(), len });
        }
        let mut id = [0; MAX_DISK_ID_LEN];
        for (to, from) in id.iter_mut().zip(config.id.bytes()) {
            *to = from;
        }
        Ok(Self { file, len, read_only: config.read_only, id })
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    /// Capacity in sectors, an incomplete last one included.
    pub(super) fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR)
    }

    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn id(&self) -> &[u8] {
        &self.id
    }

    /// Fills `buffer` from the disk, with zeros after the end of the file's incomplete last sector.
    ///
    /// # Errors
    /// When the file can't be read, or has become shorter.
    pub(super) fn read(&self, mut buffer: Buffer<'_>, mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() && offset < self.len {
            let count = self.transfer(buffer.pieces(), offset, Direction::Read)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += count as u64;
            buffer = buffer.split_off(count);
        }
        for piece in buffer.pieces() {
            piece.copy_from(&ZEROS[..piece.len().min(ZEROS.len())]);
        }
        Ok(())
    }

    /// Writes `buffer` to the disk.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn write(&self, mut buffer: Buffer<'_>, mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = self.transfer(buffer.pieces(), offset, Direction::Write)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += count as u64;
            buffer = buffer.split_off(count);
        }
        Ok(())
    }

    /// Makes sure that what was written stays.
    ///
    /// # Errors
    /// When the host can't say so.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    /// One system call, straight between file and guest memory. Returns how many bytes it moved.
    fn transfer(&self, pieces: &[VolatileSlice<'_>], offset: u64, direction: Direction) -> io::Result<usize> {
        let guards: Vec<_> = pieces.iter().map(|piece| piece.ptr_guard_mut()).collect();
        let vectors: Vec<_> = guards
            .iter()
            .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
            .collect();
        let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (fd, vectors) = (self.file.as_raw_fd(), vectors.as_ptr());
        loop {
            let moved = match direction {
                // SAFETY: the vectors point into guest memory, which stays mapped while the slices live and to which no
                // Rust reference exists; the kernel is free to write there.
                Direction::Read => unsafe { libc::preadv(fd, vectors, count, offset) },
                // SAFETY: as above, and the kernel only reads.
                Direction::Write => unsafe { libc::pwritev(fd, vectors, count, offset) },
            };
            match usize::try_from(moved) {
                Ok(moved) => return Ok(moved),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Read,
    Write,
}
