//! The VM's own cgroup: whatever happens in it, it takes no more of the host than was agreed.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use crate::{Error, Result, privilege, sizing};

/// Where the host has its cgroups.
pub const ROOT: &str = "/sys/fs/cgroup";
const OURS: &str = "/sys/fs/cgroup/husk";
/// vCPUs, devices, and the kernel's workers for them.
const MAX_THREADS: u32 = 512;
/// How long processes that were killed may take to be gone.
const END_TIMEOUT_MS: i32 = 5000;

/// Whether the host has cgroups of version 2 alone.
pub fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// A cgroup. Dropping it kills what is left in it, and removes it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup of sandbox `id`, whose guest has `mem_size_mib`. `None` where this user may not: then the limits are
    /// those of whoever runs husk.
    ///
    /// # Errors
    /// When it is there and can't be limited.
    pub fn create(id: &str, mem_size_mib: u32) -> Result<Option<Self>> {
        let path = path(id);
        if !privilege::is_root() || !is_unified() {
            return Ok(None);
        }
        // A container's root cgroup has processes of its own, and then no controllers to give.
        if delegate(ROOT).is_err() || make_dir(OURS).is_err() || delegate(OURS).is_err() {
            return Ok(None);
        }
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let cgroup = Self { path };
        cgroup.set("memory.max", &sizing::host_bytes(mem_size_mib).to_string())?;
        cgroup.set("pids.max", &MAX_THREADS.to_string())?;
        Ok(Some(cgroup))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let file = self.path.join(file);
        fs::write(&file, value).map_err(Error::io("write", &file))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What can't be removed now is found when the sandbox's directory is swept.
        let _ = remove(&self.path);
    }
}

/// Removes what a dead sandbox left.
pub fn sweep(id: &str) {
    // It may never have been there; and what lives on is tried again next time.
    let _ = remove(&path(id));
}

fn path(id: &str) -> PathBuf {
    Path::new(OURS).join(id)
}

fn make_dir(path: &str) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Lets a cgroup's children have limits.
fn delegate(parent: &str) -> io::Result<()> {
    let file = Path::new(parent).join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    let has = |controller| enabled.split_whitespace().any(|enabled| enabled == controller);
    if has("memory") && has("pids") { Ok(()) } else { fs::write(file, "+memory +pids") }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        other => return other,
    }
    let events = File::open(path.join("cgroup.events"))?;
    fs::write(path.join("cgroup.kill"), "1")?;
    let mut changed = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    while fs::read_to_string(path.join("cgroup.events"))?.contains("populated 1") {
        // SAFETY: there is one structure, which lives on.
        if unsafe { libc::poll(&raw mut changed, 1, END_TIMEOUT_MS) } == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    fs::remove_dir(path)
}
