//! The jail: the shared directory as root, and no more rights than a file server needs.
//!
//! The pieces, and the order in which they are used, are [`husk_jail`]'s; `docs/threat-model.md` has the
//! table. What is the file server's own, and why:
//!
//! - The parent dies by any signal, and the child with it: there is nothing to save, since what the guest
//!   wrote is the host's kernel's already.
//! - Mounts that the host makes in the directory later appear in it, as the host made them: the program that
//!   makes them adds `nodev` and `nosuid`.
//! - It stays root, with the capabilities that it takes to give files to other users. Not
//!   `CAP_DAC_READ_SEARCH`: with it files can be opened by number, all of the host's file system and not only
//!   those below the directory. So the server remembers each file that the guest knows by a descriptor.
//! - No limit of threads: it would not bind root. The last filter of system calls does, and the cgroup.
//! - No Landlock: it would have to allow what a guest may do with files, which is everything, and would look
//!   at each path for that. Other walls stand where it would: no mounts can be made, and no sockets.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use husk_jail::{
    JailError, Outside, Plan,
    rights::{self, CapabilitySet, Resource},
    root,
};
use rustix::process::{chdir, getrlimit};

/// Most descriptors. Each file that the guest knows needs one.
const MAX_FILES: u64 = 1_000_000;
/// So many fit into its table from the start.
pub(crate) const RESERVED_FILES: i32 = 1024;
const ROOT: u32 = 0;
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// The directory can't be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {path}")]
pub(crate) struct RootError {
    path: PathBuf,
    source: io::Error,
}

/// Enters the directory to be served, while its path still means something.
pub(crate) fn choose_root(path: &Path) -> Result<(), RootError> {
    chdir(path).map_err(|source| RootError { path: path.into(), source: source.into() })
}

/// Allows as many descriptors as the host does, up to [`MAX_FILES`]; where it allows no more than now, that
/// is not an error. Returns how many.
pub(crate) fn raise_file_limit() -> Result<u64, JailError> {
    let most = fs::read_to_string("/proc/sys/fs/nr_open").map_err(JailError::os("read fs.nr_open"))?;
    let most = most.trim().parse().map_or(MAX_FILES, |most: u64| most.min(MAX_FILES));
    if rights::limit(Resource::Nofile, most).is_ok() {
        return Ok(most);
    }
    // Root in a container may not.
    let now = getrlimit(Resource::Nofile).maximum.unwrap_or(most).min(most);
    rights::limit(Resource::Nofile, now)?;
    Ok(now)
}

/// Makes the child, in which it returns nothing, in the cgroup whose directory is named. This process must
/// have no other thread.
pub(crate) fn split(cgroup: Option<&Path>) -> Result<Option<Outside>, JailError> {
    husk_jail::split(&Plan { cgroup, user_namespace: false, passed_on: &[] })
}

/// What the server needs and could not open in its jail.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// `/proc/self/fd`, as a file system of its own, above which there is nothing.
    pub(crate) own_fds: File,
}

/// Does all the rest, apart from the filters: the working directory becomes the root.
///
/// # Errors
/// Says which step failed. The process must not go on then.
pub(crate) fn enter(read_only: bool) -> Result<Descriptors, JailError> {
    let own_fds = root::working_directory(read_only, c"/proc/self/fd")?;
    rights::give_up(Some(ROOT), KEPT)?;
    Ok(Descriptors { own_fds: own_fds.into() })
}
