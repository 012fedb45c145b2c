//! The parent of the jailed process: waits for it, and passes signals on.

use std::{mem::MaybeUninit, process::ExitCode, ptr};

use rustix::process::{Pid, Resource, WaitOptions, waitpid};

use crate::{JailError, rights::limit};

/// Signals that are blocked to be waited for, and those that were blocked before.
pub(crate) struct Signals {
    watched: libc::sigset_t,
    before: libc::sigset_t,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Blocks the signals that [`Outside::wait`] waits for: a child's end, and those to be passed on.
    pub(crate) fn block(passed_on: &[libc::c_int]) -> Result<Self, JailError> {
        // SAFETY: the usual effect, whatever the one that started this process had: of a child whose end is ignored nothing
        // is told.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let mut watched = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that it is given, and never fails.
        let mut watched = unsafe {
            libc::sigemptyset(watched.as_mut_ptr());
            watched.assume_init()
        };
        for signal in passed_on.iter().copied().chain([libc::SIGCHLD]) {
            // SAFETY: the set is valid; a signal that does not exist is an error and changes nothing.
            unsafe { libc::sigaddset(&raw mut watched, signal) };
        }
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets live on; the second is written when the call succeeds.
        let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const watched, before.as_mut_ptr()) };
        JailError::check(result.into(), "block signals")?;
        // SAFETY: written by the call, which has succeeded.
        Ok(Self { watched, before: unsafe { before.assume_init() } })
    }

    /// Blocks what was blocked before, and nothing else.
    pub(crate) fn restore(&self) -> Result<(), JailError> {
        // SAFETY: the set is valid; the old one is not asked for.
        let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
        JailError::check(result.into(), "unblock signals")
    }
}

/// The jailed child, seen from its parent.
#[derive(Debug)]
pub struct Outside {
    pid: Pid,
    signals: Signals,
}

impl Outside {
    pub(crate) fn new(pid: Pid, signals: Signals) -> Self {
        Self { pid, signals }
    }

    /// Waits for the child's end, and ends as it did: with its exit code, or by the same signal. A signal is
    /// reported on standard error, after the program's name.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn wait(self, program: &str) -> Result<ExitCode, JailError> {
        let status = loop {
            // SAFETY: the set is valid; details of the signal are not asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.signals.watched, ptr::null_mut()) };
            if signal > 0 && signal != libc::SIGCHLD {
                // SAFETY: the child has not been waited for, so the number is still its own.
                unsafe { libc::kill(self.pid.as_raw_nonzero().get(), signal) };
                continue;
            }
            match waitpid(Some(self.pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => break status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(JailError::os("wait")(error)),
            }
        };
        if let Some(signal) = status.terminating_signal() {
            let hint = if signal == libc::SIGSYS {
                ": it made a forbidden system call, see the audit log"
            } else {
                ""
            };
            eprintln!("{program}: the jailed process was killed by signal {signal}{hint}");
            self.end_by(signal)?;
        }
        let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }

    /// Ends this process by a signal, so that the one that waits for it sees what ended the child. No core of
    /// it is dumped.
    fn end_by(&self, signal: libc::c_int) -> Result<(), JailError> {
        limit(Resource::Core, 0)?;
        // SAFETY: the signal gets back its usual effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        self.signals.restore()?;
        // SAFETY: touches no memory.
        unsafe { libc::raise(signal) };
        Ok(())
    }
}
