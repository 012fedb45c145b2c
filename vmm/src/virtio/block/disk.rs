//! The file behind a disk. Its format is always raw.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use super::{
    buffers::{Buffers, ZEROS},
    kind::Kind,
};

/// Bytes of a sector, the unit of all requests.
pub(super) const SECTOR: u64 = ZEROS.len() as u64;
/// Bytes of a piece in which zeros are written to files that can't be told to be zero.
const ZERO_PIECE: usize = 64 << 10;

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
    /// It is neither a file nor a block device.
    #[error("the disk {0} is neither a regular file nor a block device")]
    Kind(PathBuf),
    /// A descriptor that was passed is open in another way than its disk needs.
    #[error("the descriptor passed for the disk must be open for {0}")]
    Mode(&'static str),
    /// A writable disk whose last sector is not complete.
    #[error("the disk {path} has {len} bytes: a writable disk needs a multiple of {SECTOR}")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
    /// The host's kernel refused something else.
    #[error("cannot set up a disk")]
    Os(#[from] io::Error),
}

/// Where a disk's content is.
#[derive(Debug)]
pub enum Source {
    /// A file to open.
    Path(PathBuf),
    /// A file that somebody else has opened.
    Open(OwnedFd),
}

/// An open disk.
#[derive(Debug)]
pub(super) struct Disk {
    // Closed before the sender is dropped: fields are dropped in this order.
    file: File,
    len: u64,
    read_only: bool,
    /// Whether the file system can tell that a read would wait.
    tells_waits: AtomicBool,
    /// Whether a flush has failed.
    lost_writes: AtomicBool,
    /// What failed, and with which error of the host's.
    seen_errors: Mutex<BTreeSet<(&'static str, Option<i32>)>>,
    _closed: Sender<Infallible>,
}

/// Becomes disconnected when a disk's file has been closed.
pub(super) type Closed = Receiver<Infallible>;

impl Disk {
    /// Opens a disk, for reading only if it is read-only.
    ///
    /// # Errors
    /// When it can't be opened, or is not usable as a disk.
    pub(super) fn open(source: Source, read_only: bool) -> Result<(Self, Closed), DiskError> {
        let (path, file) = match source {
            Source::Path(path) => {
                let file = open_path(&path, read_only)?;
                (path, file)
            }
            Source::Open(fd) => {
                let file = File::from(fd);
                check_mode(&file, read_only)?;
                (PathBuf::from("(passed)"), file)
            }
        };
        Self::new(file, path, read_only)
    }

    fn new(mut file: File, path: PathBuf, read_only: bool) -> Result<(Self, Closed), DiskError> {
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::Kind(path));
        }
        // A block device's length is known only this way.
        let len = file.seek(SeekFrom::End(0))?;
        if len == 0 {
            return Err(DiskError::Empty(path));
        }
        if !read_only && !len.is_multiple_of(SECTOR) {
            return Err(DiskError::Length { path, len });
        }
        let (closed, receiver) = channel();
        let tells_waits = AtomicBool::new(true);
        let (lost_writes, seen_errors) = Default::default();
        Ok((Self { file, len, read_only, tells_waits, lost_writes, seen_errors, _closed: closed }, receiver))
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        self.file = file;
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Capacity in sectors, an incomplete last one included.
    pub(super) fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR)
    }

    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Fills `buffers` from the disk, with zeros after the end of the file's incomplete last sector.
    ///
    /// # Errors
    /// When the file can't be read, or has become shorter.
    pub(super) fn read(&self, buffers: &mut Buffers, mut offset: u64) -> io::Result<()> {
        while !buffers.is_done() && offset < self.len {
            let count = self.transfer(buffers, offset, Transfer::Read)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += count as u64;
            buffers.advance(count);
        }
        buffers.fill_with_zeros();
        Ok(())
    }

    /// Reads what can be read without waiting for a device, and returns how much that is; `None` if the file system can't
    /// tell.
    pub(super) fn read_cached(&self, buffers: &mut Buffers, offset: u64) -> Option<usize> {
        if !self.tells_waits.load(Ordering::Relaxed) {
            return None;
        }
        match self.transfer(buffers, offset, Transfer::ReadCached) {
            Ok(count) => {
                buffers.advance(count);
                Some(count)
            }
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.tells_waits.store(false, Ordering::Relaxed);
                None
            }
            // It would wait. Whatever else it is, the read that follows meets it again.
            Err(_) => Some(0),
        }
    }

    /// Writes `buffers` to the disk; `durable`: it is on stable storage when this returns. `buffers` and `offset` move on by
    /// what was written, so that the rest can be written later.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn write(&self, buffers: &mut Buffers, offset: &mut u64, durable: bool) -> io::Result<()> {
        while !buffers.is_done() {
            let count = self.transfer(buffers, *offset, Transfer::Write { durable })?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *offset += count as u64;
            buffers.advance(count);
        }
        Ok(())
    }

    /// Makes sure that what was written stays.
    ///
    /// # Errors
    /// When the host can't say so.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flushed(self.file.sync_data())
    }

    /// Takes note of how a flush ended. The kernel tells of a write that it lost only once, and then takes the page for
    /// clean. So after one failure no flush succeeds any more, and none is tried again, whatever its reason was: the error
    /// has no number.
    pub(super) fn flushed(&self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = result {
            self.lost_writes.store(true, Ordering::Relaxed);
            return Err(io::Error::other(format!("the host may have lost what was written: {error}")));
        }
        if self.lost_writes.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier flush failed"));
        }
        Ok(())
    }

    /// Whether the host's file has not ended a request of this kind with this error before.
    pub(super) fn is_new_error(&self, kind: Kind, error: &io::Error) -> bool {
        let mut seen = self.seen_errors.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((kind.verb(), error.raw_os_error()))
    }

    /// Gives a range back to the host, if it takes it: the driver expects nothing of what it reads there.
    ///
    /// # Errors
    /// When the host has a reason other than that it can't.
    pub(super) fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate(offset, len, DISCARD).map(drop)
    }

    /// Makes a range read as zeros, and gives it back to the host if `unmap`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(super) fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if self.allocate(offset, len, zero_mode(unmap))? {
            return Ok(());
        }
        let zeros = [0_u8; ZERO_PIECE];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let count = usize::try_from(end - at).unwrap_or(ZERO_PIECE).min(ZERO_PIECE);
            std::os::unix::fs::FileExt::write_all_at(&self.file, &zeros[..count], at)?;
            at += count as u64;
        }
        Ok(())
    }

    /// Returns whether the host can do it.
    fn allocate(&self, offset: u64, len: u64, mode: i32) -> io::Result<bool> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = i64::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: touches no memory; the descriptor is open.
        let result = retry(|| unsafe { libc::fallocate(self.file.as_raw_fd(), mode, offset, len) } as isize);
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One system call, straight between file and guest memory. Returns how many bytes it moved.
    fn transfer(&self, buffers: &Buffers, offset: u64, transfer: Transfer) -> io::Result<usize> {
        let vectors = buffers.data();
        let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let (fd, vectors) = (self.file.as_raw_fd(), vectors.as_ptr());
        retry(|| match transfer {
            // SAFETY: the vectors point into guest memory, which stays mapped while the buffers live and to which no
            // Rust reference exists; the kernel is free to write there.
            Transfer::Read => unsafe { libc::preadv(fd, vectors, count, offset) },
            // SAFETY: as above.
            Transfer::ReadCached => unsafe { libc::preadv2(fd, vectors, count, offset, libc::RWF_NOWAIT) },
            // SAFETY: as above, and the kernel only reads.
            Transfer::Write { durable: false } => unsafe { libc::pwritev(fd, vectors, count, offset) },
            // SAFETY: as above, and the kernel only reads.
            Transfer::Write { durable: true } => unsafe {
                libc::pwritev2(fd, vectors, count, offset, libc::RWF_DSYNC)
            },
        })
    }
}

/// Mode of fallocate for a discard.
pub(super) const DISCARD: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Mode of fallocate for zeros: without `unmap` the space stays allocated (virtio 1.2, section 5.2.6.2).
pub(super) fn zero_mode(unmap: bool) -> i32 {
    if unmap { DISCARD } else { libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE }
}

#[derive(Debug, Clone, Copy)]
enum Transfer {
    Read,
    ReadCached,
    Write { durable: bool },
}

/// Repeats a system call that a signal interrupts.
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(result) => return Ok(result),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

fn open_path(path: &Path, read_only: bool) -> Result<File, DiskError> {
    let open = |source| DiskError::Open { path: path.into(), source };
    // Looked at before it is opened: the opening of a pipe waits for its other end.
    let kind = std::fs::metadata(path).map_err(open)?.file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::Kind(path.into()));
    }
    OpenOptions::new().read(true).write(!read_only).open(path).map_err(open)
}

/// A descriptor that somebody else has opened must allow what the disk needs and write where it is told to.
fn check_mode(file: &File, read_only: bool) -> Result<(), DiskError> {
    // SAFETY: touches no memory; the descriptor is open.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error().into());
    }
    let mode = flags & libc::O_ACCMODE;
    if flags & (libc::O_APPEND | libc::O_PATH) != 0 {
        return Err(DiskError::Mode("ordinary reading and writing, not O_APPEND or O_PATH"));
    }
    match (mode, read_only) {
        (libc::O_RDWR, _) | (libc::O_RDONLY, true) => Ok(()),
        (_, true) => Err(DiskError::Mode("reading")),
        (_, false) => Err(DiskError::Mode("reading and writing")),
    }
}
