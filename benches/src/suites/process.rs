//! A child that does not outlive whoever waits for it.

use std::{
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command, ExitStatus, Output},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::measure::ms_since;

/// A running child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
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

    /// A descriptor that is readable once the child has ended (pidfd_open(2)).
    pub(crate) fn pidfd(&self) -> Result<OwnedFd> {
        // SAFETY: pidfd_open takes a process id and flags, and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(self.0.id()), 0) };
        ensure!(fd >= 0, "cannot watch a child: {}", std::io::Error::last_os_error());
        let fd = i32::try_from(fd)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
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
