//! What PID 1 does once, before it serves: mounts, descriptors, limits, loopback.

mod mounts;
mod network;

use std::{fs, io, os::fd::AsFd};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};

/// A step of the machine's set-up failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("cannot make the initramfs a mount that can be pivoted from ({step}): {source}")]
    Root { step: &'static str, source: nix::Error },
    #[error("cannot mount {fstype} on {target}: {source}")]
    Mount { fstype: &'static str, target: &'static str, source: nix::Error },
    #[error("cannot use {path}: {source}")]
    File { path: &'static str, source: io::Error },
    #[error("cannot bring the loopback interface up: {0}")]
    Loopback(#[source] io::Error),
    #[error("cannot raise the limits of processes: {0}")]
    Limit(#[source] nix::Error),
}

/// Open files that a process may have, as container runtimes give them; the kernel's `fs.nr_open`.
const MAX_FILES: u64 = 1 << 20;

/// Kernel settings that containers expect, or that make the guest faster. A kernel without one of them is fine.
const SETTINGS: [(&str, &str); 5] = [
    // Grace periods are short with so few CPUs; mounts, namespaces and cgroups wait for them.
    ("/sys/kernel/rcu_expedited", "1"),
    // ping and low ports without capabilities, as in Docker.
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    // What databases, build tools and IDEs ask hosts for.
    ("/proc/sys/vm/max_map_count", "262144"),
    ("/proc/sys/fs/inotify/max_user_watches", "1048576"),
];

/// Brings the machine from the kernel's hand-over to where containers can run.
pub(crate) fn set_up() -> Result<(), InitError> {
    mounts::pivotable_root()?;
    mounts::mount_all()?;
    silence_stdio()?;
    for (path, value) in SETTINGS {
        let _ = fs::write(path, value);
    }
    mounts::enable_controllers()?;
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FILES, MAX_FILES).map_err(InitError::Limit)?;
    // The kernel's own follows from the memory, and counts per user, over all containers. Theirs are limits of cgroups.
    setrlimit(Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY).map_err(InitError::Limit)?;
    network::loopback_up().map_err(InitError::Loopback)
}

/// Points descriptors 0 to 2 at `/dev/null`: nothing may reach the console by accident, and no later descriptor may
/// take these numbers.
fn silence_stdio() -> Result<(), InitError> {
    let path = "/dev/null";
    let failed = |source: io::Error| InitError::File { path, source };
    let null = fs::OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    dup2_stdin(null.as_fd()).map_err(|e| failed(e.into()))?;
    dup2_stdout(null.as_fd()).map_err(|e| failed(e.into()))?;
    dup2_stderr(null.as_fd()).map_err(|e| failed(e.into()))?;
    if std::os::fd::AsRawFd::as_raw_fd(&null) <= libc::STDERR_FILENO {
        // It took one of the three numbers itself, which must stay open, also for the programs of containers.
        fcntl(&null, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| failed(e.into()))?;
        std::mem::forget(null);
    }
    Ok(())
}
