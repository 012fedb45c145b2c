//! The child that is locked up.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::Path,
};

use rustix::{
    process::{Gid, Pid, Uid, getegid, geteuid},
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{
    JailError,
    outside::{Outside, Signals},
};

const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID;
/// linux/sched.h; it does not fit into the type of the flags above.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// How the child is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The directory of the cgroup (version 2) that the child is made in. Joining it later would make the
    /// host's kernel wait for all its CPUs.
    pub cgroup: Option<&'a Path>,
    /// Without root: a user namespace takes all rights away, and the user stays the same.
    pub user_namespace: bool,
    /// The signals that the parent passes on to the child. Any other ends the parent by its usual effect, and
    /// the child with it once that has given up its [rights](crate::rights::give_up).
    pub passed_on: &'a [libc::c_int],
}

/// Makes a child in new mount, network, IPC, UTS and PID namespaces, which sees no cgroup but its own.
/// Returns nothing in the child. This process must have no other thread.
///
/// # Errors
/// When the host's kernel refuses the namespaces. In the child: when a step of its own fails; it must not go
/// on then.
pub fn split(plan: &Plan<'_>) -> Result<Option<Outside>, JailError> {
    let open =
        |path: &Path| File::open(path).map_err(|source| JailError::Cgroup { path: path.into(), source });
    let cgroup = plan.cgroup.map(open).transpose()?;
    let user = (geteuid(), getegid());
    // SAFETY: all zero is a valid value: nothing is wanted.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(NAMESPACES.unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if plan.user_namespace {
        args.flags |= u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    }
    if let Some(cgroup) = &cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // Before there is a child whose end could be missed.
    let signals = Signals::block(plan.passed_on)?;
    // SAFETY: the arguments live on; no stack and no thread-local storage are given, so that this is a fork,
    // and no other thread exists whose locks the child could inherit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid < 0 {
        let source = io::Error::last_os_error();
        let hint = match source.raw_os_error() {
            _ if plan.user_namespace => {
                ": run as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                 user.max_user_namespaces)"
            }
            Some(libc::EPERM) => ": run as root",
            Some(libc::ENOSPC) => {
                ": allow more namespaces (sysctl user.max_net_namespaces, user.max_mnt_namespaces)"
            }
            _ => "",
        };
        return Err(JailError::Os { what: "create namespaces, or join the cgroup,", hint, source });
    }
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        return Ok(Some(Outside::new(pid, signals)));
    }
    signals.restore()?;
    if plan.user_namespace {
        map_user(user)?;
    }
    // SAFETY: changes only which cgroups this process sees; not how threads see its descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.map_err(JailError::os("hide other cgroups"))?;
    Ok(None)
}

/// Makes this user known in a new user namespace, under the same number; no other is.
fn map_user((uid, gid): (Uid, Gid)) -> Result<(), JailError> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(JailError::os("map its user"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{0} {0} 1", uid.as_raw()))?;
    write("gid_map", format!("{0} {0} 1", gid.as_raw()))
}
