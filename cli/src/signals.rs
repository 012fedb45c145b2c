//! The signals that husk passes on to a container, as they arrive, instead of what they would do to husk.

use std::io;

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Those that stay what they are for husk: its own faults, its children, a reader that has left, and the shell's job control.
const KEPT: [Signal; 15] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGCHLD,
    Signal::SIGCONT,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGURG,
    Signal::SIGKILL,
];

/// Signals, read from a descriptor.
#[derive(Debug)]
pub(crate) struct Signals(AsyncFd<SignalFd>);

impl Signals {
    /// From now on, signals do nothing to husk but arrive here.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        let mut set = SigSet::all();
        KEPT.into_iter().for_each(|signal| set.remove(signal));
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the descriptor is owned by what is registered, and closed after it is taken out.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// The number of the next one.
    pub(crate) async fn next(&self) -> i32 {
        loop {
            let read = self.0.async_io(Interest::READABLE, |fd| {
                let signal = fd.read_signal()?;
                signal.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            match read.await {
                Ok(signal) => return i32::try_from(signal.ssi_signo).unwrap_or_default(),
                // A descriptor that can't be read brings no signal.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Returns when one comes by which users end programs.
    pub(crate) async fn asks_to_end(&self) {
        while !matches!(self.next().await, libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM) {}
    }

    /// The exit code for the next one that would have ended husk.
    pub(crate) async fn fatal(&self) -> u8 {
        loop {
            let number = self.next().await;
            if number != libc::SIGWINCH {
                return u8::try_from(128 + number).unwrap_or(u8::MAX);
            }
        }
    }
}
