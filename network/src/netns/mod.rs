//! Network namespaces: opened, entered by a thread of their own, pinned by a name.

mod named;

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};

pub use named::{create, remove, repair};

/// `NSFS_MAGIC` of linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// ioctl_ns(2): which `CLONE_NEW*` a namespace is of.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Result of this module's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network namespace could not be made, opened, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, or it can't be opened.
    #[error("cannot open the network namespace {}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not a network namespace", path.display())]
    NotNetns {
        /// Its path.
        path: PathBuf,
    },
    /// It can't be entered.
    #[error("cannot enter the network namespace {}", path.display())]
    Enter {
        /// Its path.
        path: PathBuf,
        /// Why; not permitted without CAP_SYS_ADMIN.
        #[source]
        source: io::Error,
    },
    /// It can't be made.
    #[error("cannot make the network namespace {}", path.display())]
    Create {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can't be removed.
    #[error("cannot remove the network namespace {}", path.display())]
    Remove {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What ran inside it panicked.
    #[error("a thread in the network namespace {} panicked", path.display())]
    Panicked {
        /// Its path.
        path: PathBuf,
    },
}

/// An open network namespace. It lives at least as long as this value, whatever becomes of its path.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace that a path names: `/run/netns/x`, `/proc/1/ns/net`, ...
    ///
    /// # Errors
    /// [`Error::Open`], or [`Error::NotNetns`] when it is something else.
    pub fn open(path: &Path) -> Result<Self> {
        // O_NONBLOCK: a FIFO must not hold us up.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(|source| Error::Open { path: path.into(), source })?;
        Self::from_fd(file.into(), path)
    }

    /// Takes a descriptor of a namespace; `path` is what errors call it.
    ///
    /// # Errors
    /// [`Error::NotNetns`] when it is something else.
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Result<Self> {
        if is_netns(fd.as_fd()) {
            Ok(Self { fd, path: path.into() })
        } else {
            Err(Error::NotNetns { path: path.into() })
        }
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` inside the namespace, on a thread of its own that ends before this returns. Sockets and taps that it makes
    /// stay of that namespace wherever they are used.
    ///
    /// # Errors
    /// When no thread can be had, when it may not enter, or when `f` panics.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let enter = |source| Error::Enter { path: self.path.clone(), source };
        thread::scope(|scope| {
            let inside = thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || {
                    setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                    Ok(f())
                })
                .map_err(enter)?;
            inside.join().map_err(|_| Error::Panicked { path: self.path.clone() })?.map_err(enter)
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_netns(fd: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    // The file system first: an ioctl's number means something else to other files.
    if !fstatfs(fd).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC) {
        return false;
    }
    // SAFETY: the descriptor is open, and this ioctl takes no argument.
    unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

#[cfg(test)]
mod tests;
