//! A queue of a tap of the host, as a file: each read and each write is a frame behind a virtio-net header.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    sync::atomic::{AtomicBool, Ordering},
};

use super::{HEADER_LEN, pieces::Pieces};
use crate::config::TapConfig;

/// `ifreq` flags of TUNSETQUEUE, which libc does not have.
const IFF_ATTACH_QUEUE: i32 = 0x0200;
const IFF_DETACH_QUEUE: i32 = 0x0400;
/// What each tap must be: Ethernet frames with virtio-net headers and nothing else.
const KIND: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A tap can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The host has no taps, or this user may not use them.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] io::Error),
    /// The tap can't be had.
    #[error("cannot attach to the tap {name}{}", if *.several { ", which must be one of multi_queue" } else { "" })]
    Attach {
        /// Its name.
        name: String,
        /// Whether several queues were wanted.
        several: bool,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An inherited descriptor can't be used at all.
    #[error("the descriptor {fd} cannot be used as a tap")]
    Descriptor {
        /// The descriptor.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An inherited descriptor is set up in another way.
    #[error("the tap {name} of descriptor {fd} is not one of IFF_TAP, IFF_NO_PI and IFF_VNET_HDR{}",
        if *.several { " with IFF_MULTI_QUEUE" } else { "" })]
    Kind {
        /// The descriptor.
        fd: RawFd,
        /// The tap's name.
        name: String,
        /// Whether several queues were wanted.
        several: bool,
    },
    /// Inherited descriptors of more than one tap.
    #[error("the descriptors of one interface belong to the taps {0} and {1}")]
    Different(String, String),
    /// The tap refuses a setting.
    #[error("cannot set the tap's {what}")]
    Set {
        /// What was set.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A queue of a tap.
#[derive(Debug)]
pub(super) struct Tap {
    file: File,
    /// Whether the tap gives frames to this queue.
    attached: AtomicBool,
}

/// Opens or takes over as many queues of a tap as there are queue pairs. Only the first gets frames.
///
/// # Errors
/// When the tap is not to be had, or is another than it should be.
pub(super) fn open(config: &TapConfig, queue_pairs: u8) -> Result<Vec<Tap>, TapError> {
    let several = queue_pairs > 1;
    let taps: Vec<Tap> = match config {
        TapConfig::Name(name) => {
            (0..queue_pairs).map(|_| Tap::attach(name, several)).collect::<Result<_, _>>()?
        }
        TapConfig::Fds(fds) => {
            let found: Vec<_> = fds.iter().map(|fd| Tap::inherit(*fd, several)).collect::<Result<_, _>>()?;
            if let Some(two) = found.windows(2).find(|two| two[0].1 != two[1].1) {
                return Err(TapError::Different(two[0].1.clone(), two[1].1.clone()));
            }
            found.into_iter().map(|(tap, _)| tap).collect()
        }
    };
    for (index, tap) in taps.iter().enumerate() {
        let set = |what| move |source| TapError::Set { what, source };
        tap.set_header_len().map_err(set("header length"))?;
        tap.set_attached(index == 0).map_err(set("number of queues"))?;
    }
    Ok(taps)
}

impl Tap {
    #[cfg(any(test, fuzzing))]
    pub(super) fn from_socket(socket: std::os::fd::OwnedFd) -> Self {
        Self { file: socket.into(), attached: AtomicBool::new(true) }
    }

    fn attach(name: &str, several: bool) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(TapError::Open)?;
        let mut request = request(KIND | if several { libc::IFF_MULTI_QUEUE } else { 0 });
        // The last byte stays zero.
        for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: the request is complete and lives on; the kernel reads and writes no more than it.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        let attach = |source| TapError::Attach { name: name.into(), several, source };
        checked(result).map_err(attach)?;
        Ok(Self { file, attached: AtomicBool::new(true) })
    }

    /// A duplicate of an inherited descriptor, and the tap's name.
    fn inherit(fd: RawFd, several: bool) -> Result<(Self, String), TapError> {
        let unusable = |source| TapError::Descriptor { fd, source };
        // SAFETY: the number was named for this by whoever started the process. Should nothing be open under it, then it
        // can't be duplicated; should it be anything else than a tap, then nothing but a refused ioctl is done with it.
        let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
        let file: File = inherited.try_clone_to_owned().map_err(unusable)?.into();
        let mut request = request(0);
        // SAFETY: the request is complete and lives on; the kernel writes no more than it.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        checked(result).map_err(unusable)?;
        // SAFETY: the kernel has filled in the flags.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned());
        let name = String::from_utf8_lossy(&name.collect::<Vec<_>>()).into_owned();
        if flags & KIND != KIND || several != (flags & libc::IFF_MULTI_QUEUE != 0) {
            return Err(TapError::Kind { fd, name, several });
        }
        // SAFETY: changes a flag of an open file and touches no memory.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_RDWR | libc::O_NONBLOCK) };
        checked(result).map_err(unusable)?;
        let attached = AtomicBool::new(flags & IFF_DETACH_QUEUE == 0);
        Ok((Self { file, attached }, name))
    }

    fn set_header_len(&self) -> io::Result<()> {
        let len = libc::c_int::try_from(HEADER_LEN).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel reads an int, which lives on.
        checked(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const len) })
    }

    /// Tells the whole tap by TUN_F_* which frames it may give unfinished: without checksum, or unsegmented.
    ///
    /// # Errors
    /// When the host's kernel does not know one of them.
    pub(super) fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        // SAFETY: the argument is a number; the call touches no memory of this process.
        checked(unsafe {
            libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads))
        })
    }

    /// Has the tap give frames to this queue, or no more. Frames that wait in it then are lost.
    ///
    /// # Errors
    /// When the host's kernel refuses.
    pub(super) fn set_attached(&self, attached: bool) -> io::Result<()> {
        if self.attached.load(Ordering::Relaxed) == attached {
            return Ok(());
        }
        let request = request(if attached { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE });
        // SAFETY: the request is complete and lives on; the kernel only reads it.
        checked(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETQUEUE, &raw const request) })?;
        self.attached.store(attached, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a frame into guest memory, and what does not fit there into `spill`. Returns how many bytes it has.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none.
    pub(super) fn read(&self, pieces: &Pieces<'_>, spill: &mut [u8]) -> io::Result<usize> {
        let guards: Vec<_> = pieces.iter().map(|piece| piece.ptr_guard_mut()).collect();
        let mut vectors: Vec<_> = guards
            .iter()
            .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
            .collect();
        vectors.push(libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
        let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        retry(|| {
            // SAFETY: all vectors but the last point into guest memory, which stays mapped while the slices live and to
            // which no Rust reference exists; the last one is this call's own. The kernel is free to write there.
            unsafe { libc::readv(self.file.as_raw_fd(), vectors.as_ptr(), count) }
        })
    }

    /// Writes a frame from guest memory.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the tap takes none now.
    pub(super) fn write(&self, pieces: &Pieces<'_>) -> io::Result<usize> {
        let guards: Vec<_> = pieces.iter().map(|piece| piece.ptr_guard()).collect();
        let vectors: Vec<_> = guards
            .iter()
            .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast_mut().cast(), iov_len: guard.len() })
            .collect();
        let count = i32::try_from(vectors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        retry(|| {
            // SAFETY: the vectors point into guest memory, which stays mapped while the slices live; the kernel only
            // reads there.
            unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), count) }
        })
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// A request with these flags and no name.
fn request(flags: i32) -> libc::ifreq {
    // SAFETY: all of it is numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // All flags that are used fit.
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    request
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a call again as long as a signal interrupts it.
fn retry(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(moved) => return Ok(moved),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}
