//! The jail: the shared directory as root, and no more rights than a file server needs.
//!
//! The order, and why it is this one:
//!
//! 1. The directory becomes the working directory, while its path still means something.
//! 2. A child in new mount, network, IPC, UTS and PID namespaces, and in its cgroup: joining that later would make the
//!    host's kernel wait for all its CPUs. The parent stays outside and waits. It dies by any signal, and the child with it:
//!    there is nothing to save, since what the guest wrote is the host's kernel's already.
//! 3. The child makes the directory, with what is mounted in it, its root, and leaves the old one. Nothing in it can be
//!    opened as a device. Mounts that the host makes in the directory later appear in it, as the host made them: whoever
//!    makes them adds `nodev` and `nosuid`.
//! 4. Groups and capabilities go; as root it could undo what came before. What stays is what it takes to give files to
//!    other users. Not `CAP_DAC_READ_SEARCH`: with it files can be opened by number, all of the host's file system and not
//!    only those below the directory. So the server remembers each file that the guest knows by a descriptor.
//! 5. no_new_privs. System calls are filtered when all else is ready.

use std::{
    ffi::CStr,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    fs::CWD,
    mount::{
        MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount,
        open_tree, unmount,
    },
    process::{
        Pid, Resource, Rlimit, Signal, WaitOptions, chdir, fchdir, getrlimit, pivot_root,
        set_parent_process_death_signal, setrlimit, waitpid,
    },
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups},
};

/// Most descriptors. Each file that the guest knows needs one.
const MAX_FILES: u64 = 1_000_000;
/// So many fit into its table from the start.
const RESERVED_FILES: i32 = 1024;
/// A directory that every system has, to be covered by the new root in this mount namespace alone.
const MOUNT_POINT: &CStr = c"/dev";
/// Highest number that a capability may have.
const MAX_CAPABILITY: libc::c_ulong = 63;
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID;
/// linux/sched.h; it does not fit into the type of the flags above.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The jail can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JailError {
    /// The directory can't be served.
    #[error("cannot serve {path}")]
    Root {
        /// The directory.
        path: PathBuf,
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
    /// The jailed process did not end by itself.
    #[error("the server was killed by signal {0}{hint}", hint = hint(*.0))]
    Killed(i32),
}

fn hint(signal: i32) -> &'static str {
    if signal == libc::SIGSYS { ": it made a forbidden system call, see the audit log" } else { "" }
}

fn os<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> JailError {
    move |source| JailError::Os { what, hint: "", source: source.into() }
}

fn check(result: libc::c_long, what: &'static str) -> Result<(), JailError> {
    if result < 0 { Err(os(what)(io::Error::last_os_error())) } else { Ok(()) }
}

/// Allows as many descriptors as the host does, up to [`MAX_FILES`]; where it allows no more than now, that is not an
/// error. Returns how many.
pub(crate) fn raise_file_limit() -> Result<u64, JailError> {
    let most = fs::read_to_string("/proc/sys/fs/nr_open").map_err(os("read fs.nr_open"))?;
    let most = most.trim().parse().map_or(MAX_FILES, |most: u64| most.min(MAX_FILES));
    let set = |limit| setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(limit) });
    if set(most).is_ok() {
        return Ok(most);
    }
    // Root in a container may not.
    let now = getrlimit(Resource::Nofile).maximum.unwrap_or(most).min(most);
    set(now).map_err(os("raise the limit of open files"))?;
    Ok(now)
}

/// Makes the table of descriptors larger at once, in the child, which has its own. While a process has several threads, the
/// host's kernel waits for a grace period, some 10 ms, each time the table has to grow (expand_fdtable in fs/file.c): first
/// beyond 64, then beyond each double of that.
pub(crate) fn reserve_descriptors(any: &impl AsFd) {
    // Not worth a failure.
    drop(rustix::io::fcntl_dupfd_cloexec(any, RESERVED_FILES - 1));
}

/// In which process one is.
#[derive(Debug)]
pub(crate) enum Side {
    /// In the parent.
    Outside(Child),
    /// In the child, where all else is still to be done by [`enter`].
    Inside,
}

/// The jailed process.
#[derive(Debug)]
pub(crate) struct Child(Pid);

impl Child {
    /// Waits for its end.
    pub(crate) fn wait(&self) -> Result<ExitCode, JailError> {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => {
                    return match (status.exit_status(), status.terminating_signal()) {
                        (_, Some(signal)) => Err(JailError::Killed(signal)),
                        (code, None) => {
                            Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
                        }
                    };
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(os("wait")(error)),
            }
        }
    }
}

/// Makes the child, in the namespaces and in the cgroup whose directory is named. This process must have no other thread.
pub(crate) fn split(root: &Path, cgroup: Option<&Path>) -> Result<Side, JailError> {
    chdir(root).map_err(|source| JailError::Root { path: root.into(), source: source.into() })?;
    let open =
        |path: &Path| File::open(path).map_err(|source| JailError::Cgroup { path: path.into(), source });
    let cgroup = cgroup.map(open).transpose()?;
    // SAFETY: all zero is a valid value: nothing is wanted.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(NAMESPACES.unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    if let Some(cgroup) = &cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the arguments live on; no stack and no thread-local storage are given, so that this is a fork, and no other
    // thread exists whose locks the child could inherit.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if pid < 0 {
        let (what, source) = ("create namespaces, or join the cgroup,", io::Error::last_os_error());
        return Err(JailError::Os { what, hint: ": run as root", source });
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(pid.map_or(Side::Inside, |pid| Side::Outside(Child(pid))))
}

/// What the server needs and could not open in its jail.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// `/proc/self/fd`, as a file system of its own, above which there is nothing.
    pub(crate) own_fds: File,
}

/// Does all the rest, apart from the filters.
///
/// # Errors
/// Says which step failed. The process must not go on then.
pub(crate) fn enter(read_only: bool) -> Result<Descriptors, JailError> {
    let changes = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    // No mount made from here on is seen elsewhere, but those of the host are seen here.
    mount_change(c"/", changes).map_err(os("separate mounts"))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let own_fds = open_tree(CWD, c"/proc/self/fd", clone).map_err(os("open /proc/self/fd"))?;
    let everything = clone | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    let root = open_tree(CWD, c"", everything).map_err(os("take the directory with its mounts"))?;
    make_harmless(&root, read_only)?;
    change_root(&root)?;
    drop(root);
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, no_core).map_err(os("forbid core dumps"))?;
    drop_rights()?;
    Ok(Descriptors { own_fds: own_fds.into() })
}

/// No device of the tree can be opened, no program of it run; and nothing changed, if so wanted.
fn make_harmless(root: &OwnedFd, read_only: bool) -> Result<(), JailError> {
    let mut attr_set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if read_only {
        attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: path and attributes live on, and the latter have the length that is said.
    let result = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, root.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    check(result, "protect the directory's mounts (it needs Linux 5.12)")
}

fn change_root(root: &OwnedFd) -> Result<(), JailError> {
    move_mount(root.as_fd(), c"", CWD, MOUNT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(os("mount the directory"))?;
    fchdir(root).map_err(os("enter the directory"))?;
    // The old root goes on top of the new one, and then away (pivot_root(2), notes).
    pivot_root(c".", c".").map_err(os("change the root"))?;
    unmount(c".", UnmountFlags::DETACH).map_err(os("leave the old root"))?;
    chdir(c"/").map_err(os("enter the root"))
}

/// Keeps only the capabilities of a file server.
fn drop_rights() -> Result<(), JailError> {
    set_thread_groups(&[]).map_err(os("leave its groups"))?;
    for capability in 0..=MAX_CAPABILITY {
        // SAFETY: touches no memory. It fails for numbers that this kernel does not know.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let kept = CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(os("drop its capabilities"))?;
    // Last: a change of rights would clear it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(os("watch its parent"))?;
    set_no_new_privs(true).map_err(os("refuse new rights"))
}
