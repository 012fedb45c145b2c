//! Reaps every child of PID 1, registered or not, and tells who waits.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::{
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tokio::{io::unix::AsyncFd, sync::oneshot};

/// Statuses kept for processes that nobody asked for yet. A container's first process can end before the helper that
/// made it has reported its pid; everything older than that is an orphan's.
const MAX_EARLY: usize = 1024;

/// How a process ended, as a shell would say it: its exit code, or 128 + n for signal n.
pub(crate) type ExitCode = u32;

/// The registry of awaited processes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    awaited: HashMap<Pid, oneshot::Sender<ExitCode>>,
    early: VecDeque<(Pid, ExitCode)>,
}

impl Reaper {
    /// Blocks SIGCHLD and starts the task that reaps. Call once, in a Tokio runtime, before the first fork.
    pub(crate) fn start() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the SignalFd owns its descriptor, which stays the same and open until it is dropped.
        let signals = unsafe { AsyncFd::register(signals) }?;
        let reaper = Self::default();
        let task = reaper.clone();
        tokio::spawn(async move {
            while let Ok(mut ready) = signals.readable().await {
                while let Ok(Some(_)) = signals.get_ref().read_signal() {}
                ready.clear_ready();
                task.reap();
            }
        });
        Ok(reaper)
    }

    /// A receiver of the exit code of `pid`, which must be a child that no one else waits for.
    pub(crate) fn register(&self, pid: Pid) -> oneshot::Receiver<ExitCode> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        if let Some(at) = inner.early.iter().position(|(early, _)| *early == pid) {
            if let Some((_, code)) = inner.early.remove(at) {
                let _ = sender.send(code);
            }
        } else {
            inner.awaited.insert(pid, sender);
        }
        receiver
    }

    fn reap(&self) {
        loop {
            let mut status = 0;
            // SAFETY: `status` is valid to write to. (nix's waitpid loses children that a real-time signal ended.)
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            self.ended(Pid::from_raw(pid), exit_code(status));
        }
    }

    fn ended(&self, pid: Pid, code: ExitCode) {
        let mut inner = self.lock();
        if let Some(sender) = inner.awaited.remove(&pid) {
            let _ = sender.send(code);
            return;
        }
        inner.early.retain(|(early, _)| *early != pid);
        if inner.early.len() == MAX_EARLY {
            inner.early.pop_front();
        }
        inner.early.push_back((pid, code));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The exit code for a status of wait(2).
fn exit_code(status: libc::c_int) -> ExitCode {
    let code =
        if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    code.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        for (status, code) in [(0, 0), (42 << 8, 42), (9, 137), (libc::SIGRTMIN() | 0x80, 128 + 34)] {
            assert_eq!(exit_code(status), code, "{status:#x}");
        }
    }

    #[test]
    fn keeps_the_status_of_a_process_that_ended_before_it_was_registered() {
        let reaper = Reaper::default();
        let pid = Pid::from_raw(7);
        reaper.ended(pid, 1);
        reaper.ended(pid, 3);
        assert_eq!(reaper.register(pid).try_recv(), Ok(3));
        let mut again = reaper.register(pid);
        assert!(again.try_recv().is_err());
        reaper.ended(pid, 137);
        assert_eq!(again.try_recv(), Ok(137));
    }

    #[test]
    fn forgets_the_oldest_orphans() {
        let reaper = Reaper::default();
        for raw in 0..=i32::try_from(MAX_EARLY).unwrap() {
            reaper.ended(Pid::from_raw(raw + 2), 0);
        }
        assert_eq!(reaper.lock().early.len(), MAX_EARLY);
        assert!(reaper.register(Pid::from_raw(2)).try_recv().is_err());
    }
}
