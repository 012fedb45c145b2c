//! A child that does not outlive whoever waits for it.

use std::{
    fs,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::measure::ms_since;

/// How long what a killed child had started may take to end, in milliseconds.
const END_MS: u16 = 10_000;

/// A running child; killed when dropped, upon which all that it had started is to end by itself.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // As long as one of them runs, a tap may be taken.
        let below: Vec<OwnedFd> =
            processes(self.id()).into_iter().skip(1).filter_map(|pid| pidfd(pid).ok()).collect();
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
        for process in below {
            let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::from(END_MS));
        }
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {name}"))?))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        self.0.wait().context("cannot wait for a child")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), signal).context("cannot signal a child")
    }

    /// A descriptor that is readable once the child has ended.
    pub(crate) fn pidfd(&self) -> Result<OwnedFd> {
        pidfd(self.id())
    }
}

/// A descriptor that is readable once the process has ended (pidfd_open(2)).
fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes a process id and flags, and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    ensure!(fd >= 0, "cannot watch process {pid}: {}", std::io::Error::last_os_error());
    let fd = i32::try_from(fd)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs a command from start to end, which must be a success, and tells how long it took.
pub(crate) fn timed(command: &mut Command) -> Result<(f64, Output)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let total_ms = ms_since(start);
    ensure!(
        output.status.success(),
        "{name} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok((total_ms, output))
}

/// A process and all below it, parents first.
pub(crate) fn processes(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let children = |task: PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
        let lists: Vec<String> = tasks(*pid).into_iter().map(children).collect();
        all.extend(
            lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    all
}

/// The directories of a process's threads; none when it is gone.
pub(crate) fn tasks(pid: u32) -> Vec<PathBuf> {
    let listed = fs::read_dir(format!("/proc/{pid}/task"));
    listed.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
