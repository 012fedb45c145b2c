//! QEMU as a child that never outlives its parent.

use std::{
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStderr, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getpid, getppid},
};

use super::machine::Machine;

const PROGRAM: &str = "qemu-system-x86_64";

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

/// Fails unless QEMU is installed.
pub(crate) fn check() -> Result<()> {
    let found = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{PROGRAM} --version failed ({status})"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{PROGRAM} is not installed; run `make setup`, or install Debian's package qemu-system-x86")
        }
        Err(error) => Err(error).with_context(|| format!("cannot run {PROGRAM}")),
    }
}

impl Qemu {
    /// Starts the machine. Must be called by a thread that lives as long as the process, since QEMU dies with it.
    pub(crate) fn start(machine: &Machine, inherited: &[&dyn AsRawFd]) -> Result<(Self, ChildStderr)> {
        let inherited: Vec<RawFd> = inherited.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
        let parent = getpid();
        let mut command = Command::new(PROGRAM);
        command.args(machine.arguments()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // SAFETY: between fork and exec `prepare` only makes system calls, and neither allocates nor locks.
        unsafe { command.pre_exec(move || prepare(parent, &inherited)) };
        let mut child = command.spawn().with_context(|| format!("cannot start {PROGRAM}"))?;
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
