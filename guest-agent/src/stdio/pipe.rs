//! A descriptor that is read and written without blocking.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd,
};
use tokio::io::unix::AsyncFd;

/// A pipe's (read end, write end), both blocking, closed on exec.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// The agent's end of a pipe, or a terminal's master.
#[derive(Debug)]
pub(crate) struct NonBlocking(AsyncFd<OwnedFd>);

impl NonBlocking {
    /// Takes over `fd` and makes it non-blocking. Must be called in a Tokio runtime.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the OwnedFd's descriptor stays the same and open until it is dropped.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Reads at once; `WouldBlock` when there is nothing.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| unistd::read(self.0.get_ref(), buffer))
    }

    /// Reads what comes next. 0: end of file.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| retry(|| unistd::read(fd.get_ref(), buffer))) {
                return result;
            }
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|fd| retry(|| unistd::write(fd.get_ref(), bytes))) {
                bytes = bytes.get(result?..).unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Returns when whoever holds the other end of this pipe's write end has closed it.
    pub(super) async fn closed(&self) {
        loop {
            match self.0.ready(tokio::io::Interest::ERROR).await {
                Ok(ready) if ready.ready().is_error() => return,
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }
}

impl AsFd for NonBlocking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl AsRawFd for NonBlocking {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}
