//! Runs container work in a forked child, so that libcontainer's blocking waits, panics and changes of the process's
//! state never reach PID 1.
//!
//! The agent has one thread while it runs containers, so the child may run any code after fork(2).

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
    },
    unistd::{ForkResult, Pid, fork, pipe2},
};
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, reaper::Reaper};

/// What a helper achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The new process, which PID 1 inherits.
    pub(crate) pid: i32,
    /// The user that it runs as.
    pub(crate) uid: u32,
}

/// The helper's way to report. Only the first report counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reporter(RawFd);

impl Reporter {
    /// Reports a failure; used where returning it would lose its kind.
    pub(crate) fn fail(self, failure: &Failure) {
        self.send(&Err(failure.clone()));
    }

    fn send(self, report: &Result<Made, Failure>) {
        let Ok(mut line) = serde_json::to_vec(report) else { return };
        line.push(b'\n');
        // SAFETY: the descriptor stays open in every process that got a `Reporter`, and ManuallyDrop keeps it so.
        let mut pipe = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(self.0) });
        // Nobody to tell when this fails: PID 1 then says that the helper ended without a word.
        let _ = pipe.write_all(&line);
    }
}

/// Runs `work` in a child and returns what it reported. Of the agent's descriptors, the child keeps 0 to 2 and `keep`.
pub(crate) async fn run(
    reaper: &Reaper,
    keep: Vec<RawFd>,
    work: impl FnOnce(Reporter) -> Result<Made, Failure>,
) -> Result<Made, Failure> {
    let failed = |what| move |e: nix::Error| Failure::io(what, &e.into());
    let (reports, pipe) =
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("cannot make a pipe for a helper"))?;
    // SAFETY: this process has one thread, see above; the child leaves through `_exit` and returns nowhere.
    let ended = match unsafe { fork() }.map_err(failed("cannot fork a helper"))? {
        ForkResult::Parent { child } => {
            // With it go the child's ends of pipes.
            drop(work);
            reaper.register(child)
        }
        ForkResult::Child => child(&pipe, keep, work),
    };
    drop(pipe);
    let code = ended.await.unwrap_or_default();
    first_report(reports).unwrap_or_else(|| {
        Err(Failure::internal(format!("a helper process ended without a report, with status {code}")))
    })
}

/// Runs `work` in a child, for at most `limit`, and returns what it has written to the file that it gets. For work that may
/// have to wait for a container's processes, which PID 1 must not.
pub(super) async fn ask(
    reaper: &Reaper,
    limit: Duration,
    work: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<Vec<u8>, Failure> {
    let failed = |e: &io::Error| Failure::io("cannot use a helper", e);
    let mut answer =
        File::from(memfd_create("answer", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(&e.into()))?);
    // SAFETY: as in `run`.
    let child = match unsafe { fork() }.map_err(|e| failed(&e.into()))? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            begin_child(vec![answer.as_raw_fd()]);
            let code = i32::from(work(&mut answer).is_err());
            // SAFETY: as in `child`.
            unsafe { libc::_exit(code) }
        }
    };
    drop(work);
    match tokio::time::timeout(limit, reaper.register(child)).await {
        Ok(Ok(0)) => {}
        Ok(ended) => {
            let code = ended.unwrap_or_default();
            return Err(Failure::internal(format!("a helper process ended with status {code}")));
        }
        Err(_) => {
            // It may just have ended.
            let _ = kill(child, Signal::SIGKILL);
            let seconds = limit.as_secs();
            return Err(Failure::internal(format!("a helper process did not end within {seconds} s")));
        }
    }
    let mut bytes = Vec::new();
    answer.rewind().and_then(|()| answer.read_to_end(&mut bytes)).map_err(|e| failed(&e))?;
    Ok(bytes)
}

fn child(pipe: &OwnedFd, mut keep: Vec<RawFd>, work: impl FnOnce(Reporter) -> Result<Made, Failure>) -> ! {
    keep.push(pipe.as_raw_fd());
    begin_child(keep);
    let reporter = Reporter(pipe.as_raw_fd());
    reporter.send(&work(reporter));
    // SAFETY: ends the process without running anything else of it; takes no pointers.
    unsafe { libc::_exit(0) }
}

/// Rids a new child of what it must not have of PID 1's: all descriptors but 0 to 2 and `keep`, and blocked signals.
fn begin_child(keep: Vec<RawFd>) {
    close_others(keep);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Closes every descriptor above 2 that is not in `keep`.
fn close_others(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().filter_map(|fd| u32::try_from(fd).ok()).chain([u32::MAX]) {
        if first < fd {
            // SAFETY: nothing in this process uses these descriptors any more: its only thread is here, it leaves
            // through `_exit`, and it was given the list of those that it will use.
            unsafe { libc::close_range(first, fd - 1, 0) };
        }
        first = first.max(fd.saturating_add(1));
    }
}

/// The first report in the pipe. Does not wait: other holders of the write end may live on.
fn first_report(reports: OwnedFd) -> Option<Result<Made, Failure>> {
    let mut bytes = Vec::new();
    // Ends at end of file or, as an error that does not matter, where it would block.
    let _ = File::from(reports).read_to_end(&mut bytes);
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

/// The process id in a report.
impl Made {
    pub(crate) fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }
}
