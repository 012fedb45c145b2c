//! QEMU as a child that never outlives its parent.

use std::{
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStderr, Stdio},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getpid, getppid},
};

use super::{emulator::Emulator, machine::Machine};

/// A running QEMU, ended with its owner.
#[derive(Debug)]
pub(crate) struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only when it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    /// Starts the machine. Must be called by a thread that lives as long as the process, since QEMU dies with it.
    pub(crate) fn start(
        emulator: &Emulator,
        machine: &Machine,
        inherited: &[&dyn AsRawFd],
    ) -> Result<(Self, ChildStderr)> {
        let inherited: Vec<RawFd> = inherited.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        let parent = getpid();
        let mut command = emulator.command();
        command.args(machine.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: between fork and exec `prepare` only makes system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(move || prepare(parent, &inherited)) };
        let mut child = command.spawn().context("cannot start QEMU")?;
        let stderr = child.stderr.take();
        let qemu = Self(child);
        Ok((qemu, stderr.context("QEMU's stderr is not a pipe")?))
    }
}

fn prepare(parent: Pid, inherited: &[RawFd]) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // The parent ended before the line above could take effect.
        return Err(io::ErrorKind::Interrupted.into());
    }
    // A Ctrl-C is the lab's business, which then ends QEMU.
    nix::unistd::setsid()?;
    SigSet::empty().thread_set_mask()?;
    for descriptor in inherited {
        // SAFETY: the caller of `start` holds these descriptors open.
        let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(*descriptor) };
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    Ok(())
}
