//! A process's terminal, as seen from its master side.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::{Uid, fchown},
};

use super::pipe::NonBlocking;

/// The socket at which the agent is handed a new terminal's master. Its file goes away with it.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens at `path`, which must be short.
    pub(crate) fn listen(path: PathBuf) -> io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the terminal that was sent, and gives it to the user `owner`. The sender must have ended.
    pub(crate) fn receive(self, owner: u32) -> io::Result<Tty> {
        let (socket, _) = self.listener.accept()?;
        let mut name = [0; 64];
        let mut name = [IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut name, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control
                && let Some(&fd) = fds.first()
            {
                // SAFETY: the kernel has just put this descriptor into our table, and nobody else knows of it.
                let master = unsafe { OwnedFd::from_raw_fd(fd) };
                return Tty::new(master, owner);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "no terminal came with the message"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A terminal's master.
#[derive(Debug)]
pub(crate) struct Tty(Arc<NonBlocking>);

impl Tty {
    fn new(master: OwnedFd, owner: u32) -> io::Result<Self> {
        // SAFETY: the ioctl takes flags by value and returns a new descriptor or -1.
        let slave = unsafe {
            libc::ioctl(
                master.as_raw_fd(),
                libc::TIOCGPTPEER,
                libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
            )
        };
        if slave < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        fchown(&slave, Some(Uid::from_raw(owner)), None)?;
        Ok(Self(Arc::new(NonBlocking::new(master)?)))
    }

    pub(super) fn master(&self) -> Arc<NonBlocking> {
        Arc::clone(&self.0)
    }

    /// Sets the window size. The foreground processes get SIGWINCH.
    pub(crate) fn resize(&self, size: WindowSize) -> io::Result<()> {
        size.set(self.0.as_ref())
    }
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WindowSize {
    rows: u16,
    columns: u16,
}

impl WindowSize {
    /// None: not a size.
    pub(crate) fn new(rows: u32, columns: u32) -> Option<Self> {
        let size = Self { rows: u16::try_from(rows).ok()?, columns: u16::try_from(columns).ok()? };
        (rows > 0 && columns > 0).then_some(size)
    }

    /// Sets the size of a terminal, through either end of it.
    pub(crate) fn set(self, terminal: &impl AsRawFd) -> io::Result<()> {
        let size = libc::winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: `size` is a valid winsize that lives through the call; a descriptor that is no terminal is an error.
        if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_positive_and_small() {
        assert!(WindowSize::new(24, 80).is_some() && WindowSize::new(65535, 1).is_some());
        for (rows, columns) in [(0, 80), (24, 0), (65536, 1), (1, 65536)] {
            assert_eq!(WindowSize::new(rows, columns), None);
        }
    }
}
