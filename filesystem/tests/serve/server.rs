//! The program as a process.

use std::{
    fs,
    io::{PipeWriter, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{net::UnixListener, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::{
    mount::{MountPropagationFlags, mount_change},
    process::geteuid,
};
use tempfile::TempDir;

/// Whether the test can be run; says so if not.
pub(crate) fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Gives this thread, and what it starts, mounts of their own, which see each other's changes.
pub(crate) fn own_mounts() {
    // SAFETY: changes only what this thread sees of mounts, and its working directory's place in them.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).unwrap();
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    process: Child,
    _dir: TempDir,
    pub(crate) socket: PathBuf,
}

impl Server {
    pub(crate) fn start(root: &Path, options: &[&str]) -> Self {
        Self::spawn(root, options, &[])
    }

    pub(crate) fn start_with_lifeline(root: &Path) -> (Self, PipeWriter) {
        let (there, here) = std::io::pipe().unwrap();
        let number = there.as_raw_fd();
        (Self::spawn(root, &["--lifeline", &number.to_string()], &[number]), here)
    }

    /// With these inherited descriptors, which `options` may name, and a secret in its environment.
    pub(crate) fn spawn(root: &Path, options: &[&str], inherited: &[RawFd]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_husk-fs"));
        command.arg("--root").arg(root).arg("--listen").arg(listener.as_raw_fd().to_string()).args(options);
        command.env("HUSK_SECRET", "hidden").stderr(Stdio::piped());
        let inherited: Vec<_> = inherited.iter().copied().chain([listener.as_raw_fd()]).collect();
        // SAFETY: the child makes nothing but system calls.
        unsafe {
            command.pre_exec(move || {
                inherited.iter().for_each(|fd| _ = libc::fcntl(*fd, libc::F_SETFD, 0));
                Ok(())
            })
        };
        Self { process: command.spawn().unwrap(), _dir: dir, socket }
    }

    /// The process outside of the jail, and the one in it.
    pub(crate) fn both(&self) -> [u32; 2] {
        [self.process.id(), self.jailed()]
    }

    /// The process in the jail.
    pub(crate) fn jailed(&self) -> u32 {
        let pid = self.process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    /// Waits for an orderly end.
    pub(crate) fn ends_by_itself(mut self) {
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }
}

impl Server {
    /// Waits for its end by an error that begins like this.
    pub(crate) fn ends_with_error(mut self, message: &str) {
        let mut text = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(self.process.wait().unwrap().code(), Some(1));
        assert!(text.starts_with(message), "{text}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
