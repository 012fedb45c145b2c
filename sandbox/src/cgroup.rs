//! The VM's own cgroup: whatever happens in it, it takes no more of the host than was agreed.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Error, Result, privilege, sizing};

/// Where the host has its cgroups.
pub const ROOT: &str = "/sys/fs/cgroup";
const OURS: &str = "/sys/fs/cgroup/husk";
/// vCPUs, devices, and the kernel's workers for them.
const MAX_THREADS: u32 = 512;
/// How long processes that were killed may take to be gone.
const END_WITHIN: Duration = Duration::from_secs(5);
/// The same where other starts wait for it.
const SWEEP_WITHIN: Duration = Duration::from_millis(500);

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
        let _ = remove(&self.path, END_WITHIN);
    }
}

/// Removes what a dead sandbox left, if it has left anything.
///
/// # Errors
/// When something lives on in it; it has been killed, and may be gone the next time.
pub fn sweep(id: &str) -> io::Result<()> {
    match remove(&path(id), SWEEP_WITHIN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
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

/// Kills what is in a cgroup, and removes it when that has ended.
fn remove(path: &Path, within: Duration) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        other => return other,
    }
    let mut events = File::open(path.join("cgroup.events"))?;
    fs::write(path.join("cgroup.kill"), "1")?;
    let end = Instant::now() + within;
    // The kernel tells of changes since this file was read the last time (cgroup-v2.rst, "cgroup.events").
    while read_again(&mut events)?.contains("populated 1") {
        let left = end.saturating_duration_since(Instant::now());
        let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let mut changed = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: there is one structure, which lives on.
        if left_ms == 0 || unsafe { libc::poll(&raw mut changed, 1, left_ms) } == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    fs::remove_dir(path)
}

fn read_again(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}
