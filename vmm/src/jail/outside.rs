//! The parent of the jailed process: waits for it, and passes signals on.

use std::{io, mem::MaybeUninit, process::ExitCode, ptr};

use super::{JailError, check, os};

/// Signals that are the VMM's to handle.
const PASSED_ON: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocked signals, and those that were blocked before.
pub(super) struct Signals {
    watched: libc::sigset_t,
    before: libc::sigset_t,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

/// Blocks the signals that [`Outside::wait`] waits for.
pub(super) fn watch_signals() -> Result<Signals, JailError> {
    let mut watched = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, and never fails.
    let mut watched = unsafe {
        libc::sigemptyset(watched.as_mut_ptr());
        watched.assume_init()
    };
    for signal in PASSED_ON.into_iter().chain([libc::SIGCHLD]) {
        // SAFETY: the set is valid, and the signal exists.
        unsafe { libc::sigaddset(&raw mut watched, signal) };
    }
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets live on; the second is written when the call succeeds.
    let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const watched, before.as_mut_ptr()) };
    check(result, "block signals")?;
    // SAFETY: written by the call, which has succeeded.
    Ok(Signals { watched, before: unsafe { before.assume_init() } })
}

/// Gives the child the signals that its parent had.
pub(super) fn forget_signals(signals: &Signals) -> Result<(), JailError> {
    // SAFETY: the set is valid; the old one is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const signals.before, ptr::null_mut()) };
    check(result, "unblock signals")
}

/// The jailed child, seen from its parent.
#[derive(Debug)]
pub struct Outside {
    pid: libc::pid_t,
    signals: Signals,
}

impl Outside {
    pub(super) fn new(pid: libc::pid_t, signals: Signals) -> Self {
        Self { pid, signals }
    }

    /// Waits for the child's end, and ends as it did: with its exit code, or by the same signal.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn wait(self) -> Result<ExitCode, JailError> {
        let mut status = 0;
        loop {
            // SAFETY: the set is valid; details of the signal are not asked for.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.signals.watched, ptr::null_mut()) };
            if PASSED_ON.contains(&signal) {
                // SAFETY: the child has not been waited for, so the number is still its own.
                unsafe { libc::kill(self.pid, signal) };
                continue;
            }
            // SAFETY: the pointer is to an integer that lives on.
            match unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } {
                0 => {}
                -1 => return Err(os("wait")(io::Error::last_os_error())),
                _ => break,
            }
        }
        if libc::WIFSIGNALED(status) {
            let signal = libc::WTERMSIG(status);
            if signal == libc::SIGSYS {
                eprintln!(
                    "husk-vmm: a thread made a forbidden system call and the VM was killed: see the audit log"
                );
            }
            self.end_by(signal);
        }
        Ok(ExitCode::from(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(1)))
    }

    /// Ends this process by a signal, so that whoever waits for it sees what ended the child. No core of it is dumped.
    fn end_by(&self, signal: libc::c_int) {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit lives on; the signal gets back its usual effect, and its set is valid.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
            libc::signal(signal, libc::SIG_DFL);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.signals.before, ptr::null_mut());
            libc::raise(signal);
        }
    }
}
