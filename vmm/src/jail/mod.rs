//! The jail: what the VMM gives up before it looks at anything that a guest or an image's maker could have made.
//!
//! The order, and why it is this one (`docs/threat-model.md` has the table):
//!
//! 1. Everything that has a path is opened: after that no path means anything.
//! 2. A child is made in new user (without root), mount, network, IPC, UTS and PID namespaces, and in its cgroup: joining
//!    that later would make the host's kernel wait for all its CPUs. The parent stays outside: it waits, passes signals
//!    on, and removes sockets at the end.
//! 3. The child hides all other cgroups.
//! 4. It makes an empty, read-only root of a tmpfs, with nothing in it but the directory of the vsock sockets.
//! 5. Limits, then its own user id, and no capabilities: as root it could undo what came before.
//! 6. Landlock and no_new_privs, which need no rights; seccomp last, per thread, since it forbids all of the above.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

mod filters;
mod landlock;
mod outside;
mod privileges;
mod root;
mod rule;
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
    /// The cgroup is not there.
    #[error("cannot open the cgroup {path}")]
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

/// What clone3(2) takes (linux/sched.h), in the form of Linux 5.7.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 1 << 33;
const CLONE_NEWUSER: u64 = 1 << 28;
/// CLONE_NEWNS, NEWUTS, NEWIPC, NEWPID and NEWNET.
const NAMESPACES: u64 = 1 << 17 | 1 << 26 | 1 << 27 | 1 << 29 | 1 << 30;
const SIGCHLD: u64 = 17;

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
    let cgroup = config
        .cgroup
        .as_ref()
        .map(|path| File::open(path).map_err(|source| JailError::Cgroup { path: path.clone(), source }));
    let cgroup = cgroup.transpose()?;
    let args = CloneArgs {
        flags: NAMESPACES
            | if config.uid.is_none() { CLONE_NEWUSER } else { 0 }
            | if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 },
        exit_signal: SIGCHLD,
        cgroup: cgroup.as_ref().map_or(0, |cgroup| u64::from(cgroup.as_raw_fd().cast_unsigned())),
        ..CloneArgs::default()
    };
    // Before there is a child whose end could be missed.
    let signals = outside::watch_signals()?;
    // SAFETY: the arguments live on; no stack and no thread-local storage are given, so that this is a fork, and no other
    // thread exists whose locks the child could inherit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => {
            outside::forget_signals(&signals)?;
            Ok(None)
        }
        Ok(pid) if pid > 0 => Ok(Some(Outside::new(pid, signals))),
        _ => Err(JailError::Os {
            what: "create namespaces, or join the cgroup,",
            hint: ": run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces)",
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

fn c_path(path: &Path) -> Result<CString, JailError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| os("use a path")(error.into()))
}
