//! The jail: what the VMM gives up before it looks at anything that a guest or an image's maker could have made.
//!
//! The order, and why it is this one (`docs/threat-model.md` has the table):
//!
//! 1. Everything that has a path is opened: after that no path means anything.
//! 2. A child is made in new user (without root), mount, network, IPC, UTS and PID namespaces. The parent stays outside:
//!    it waits, passes signals on, and removes sockets at the end.
//! 3. The child joins its cgroup and hides all others, while it still sees `/sys/fs/cgroup`.
//! 4. It makes an empty, read-only root of a tmpfs, with nothing in it but the directory of the vsock sockets.
//! 5. Limits, then its own user id, and no capabilities: as root it could undo what came before.
//! 6. Landlock and no_new_privs, which need no rights; seccomp last, per thread, since it forbids all of the above.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

mod filters;
mod landlock;
mod outside;
mod privileges;
mod root;
pub mod seccomp;

pub use outside::Outside;
pub use root::VISIBLE_DIR;

/// How the VMM is locked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailConfig {
    /// The user and group id to run as, one per VM and not 0; the VMM must be started by root. Without it a user
    /// namespace takes all rights away, and the user stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The directory of the VM's own cgroup (version 2), which exists and whose limits are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// What happens to a thread that makes a system call that is not on its list.
    #[serde(default)]
    pub seccomp: SeccompMode,
}

/// What happens at a forbidden system call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompMode {
    /// The whole process is killed.
    #[default]
    Kill,
    /// It is carried out and noted in the kernel's audit log. For debugging.
    Log,
}

/// The jail can't be made.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The host's kernel refused something.
    #[error("cannot {what} for the jail{hint}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What to do, with punctuation before it; or nothing.
        hint: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cgroup can't be joined.
    #[error("cannot join the cgroup {path}")]
    Cgroup {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A filter of system calls can't be made.
    #[error("cannot build the filter of system calls")]
    Filter(#[from] seccompiler::Error),
}

fn os(what: &'static str) -> impl Fn(io::Error) -> JailError {
    move |source| JailError::Os { what, hint: "", source }
}

fn check(result: libc::c_int, what: &'static str) -> Result<(), JailError> {
    if result < 0 { Err(os(what)(io::Error::last_os_error())) } else { Ok(()) }
}

/// Makes the child, in which it returns nothing: there, all else is still to be done by [`enter`]. This process must have
/// no other thread.
///
/// # Errors
/// When the host's kernel refuses the namespaces.
pub fn split(config: &JailConfig) -> Result<Option<Outside>, JailError> {
    let mut flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWPID
        | libc::SIGCHLD;
    if config.uid.is_none() {
        flags |= libc::CLONE_NEWUSER;
    }
    // Before there is a child whose end could be missed.
    let signals = outside::watch_signals()?;
    // SAFETY: no stack and no thread-local storage are given, so that this is a fork; no other thread exists whose locks
    // the child could inherit.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(0) => {
            outside::forget_signals(&signals)?;
            Ok(None)
        }
        Ok(pid) if pid > 0 => Ok(Some(Outside::new(pid, signals))),
        _ => Err(JailError::Os {
            what: "create namespaces",
            hint: ": run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
            source: io::Error::last_os_error(),
        }),
    }
}

/// Does all the rest, apart from seccomp: that comes when each thread is ready. `visible` is the one directory that stays
/// in reach, as [`VISIBLE_DIR`].
///
/// # Errors
/// Says which step failed. The process must not go on then.
pub fn enter(config: &JailConfig, visible: Option<&Path>, user: User) -> Result<(), JailError> {
    if config.uid.is_none() {
        privileges::map_user(user)?;
    }
    if let Some(cgroup) = &config.cgroup {
        join_cgroup(cgroup)?;
    }
    // SAFETY: changes only which cgroups this process sees.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }, "hide other cgroups")?;
    root::change(visible)?;
    privileges::limit()?;
    privileges::drop_all(config.uid)?;
    landlock::forbid_all()?;
    seccomp::enable(config.seccomp);
    Ok(())
}

/// Who runs the VMM, as seen outside of any user namespace.
#[derive(Debug, Clone, Copy)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The user of this process.
    pub fn current() -> Self {
        // SAFETY: both calls only return a number, and never fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self { uid, gid }
    }
}

fn join_cgroup(path: &Path) -> Result<(), JailError> {
    std::fs::write(path.join("cgroup.procs"), "0")
        .map_err(|source| JailError::Cgroup { path: path.into(), source })
}

fn c_path(path: &Path) -> Result<CString, JailError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| os("use a path")(error.into()))
}
