//! The jail: what the VMM gives up before it looks at anything that a guest or an image's maker could have
//! made.
//!
//! The pieces, and the order in which they are used, are [`husk_jail`]'s; `docs/threat-model.md` has the
//! table. Here is what the VMM needs: its signals, the directory of the vsock sockets, its limits, and [which
//! system calls](seccomp) each kind of thread makes.

use std::path::{Path, PathBuf};

use husk_jail::{
    Plan, landlock,
    rights::{self, CapabilitySet, Resource},
    root,
};
use serde::{Deserialize, Serialize};

mod filters;
pub mod seccomp;

pub use husk_jail::{JailError, Outside, seccomp::SeccompMode};

/// The directory of the vsock sockets, as the jailed VMM sees it.
pub const VISIBLE_DIR: &str = "/vsock";
/// The same, as a name in the root.
const VISIBLE_NAME: &str = "vsock";
/// Signals that are the VMM's to handle.
const PASSED_ON: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
/// Descriptors: connections, queues, disks, and what KVM needs.
const MAX_FDS: u64 = 4096;
/// Threads of the VM's user id: vCPUs, devices, and the kernel's workers for disks.
const MAX_THREADS: u64 = 512;

/// How the VMM is locked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JailConfig {
    /// The user and group id to run as, one per VM and not 0; the VMM must be started by root. Without it a
    /// user namespace takes all rights away, and the user stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The directory of the VM's own cgroup (version 2), which exists and whose limits are set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// What happens to a thread that makes a system call that is not on its list.
    #[serde(default)]
    pub seccomp: SeccompMode,
}

/// Makes the child, in which it returns nothing: there, all else is still to be done by [`enter`]. This
/// process must have no other thread.
///
/// # Errors
/// When the host's kernel refuses the namespaces.
pub fn split(config: &JailConfig) -> Result<Option<Outside>, JailError> {
    let cgroup = config.cgroup.as_deref();
    husk_jail::split(&Plan { cgroup, user_namespace: config.uid.is_none(), passed_on: &PASSED_ON })
}

/// Does all the rest, apart from seccomp: that comes when each thread is ready. `visible` is the one
/// directory that stays in reach, as [`VISIBLE_DIR`].
///
/// # Errors
/// Says which step failed. The process must not go on then.
pub fn enter(config: &JailConfig, visible: Option<&Path>) -> Result<(), JailError> {
    root::empty(visible.map(|dir| (dir, VISIBLE_NAME)))?;
    rights::limit(Resource::Nofile, MAX_FDS)?;
    rights::limit(Resource::Nproc, MAX_THREADS)?;
    rights::give_up(config.uid, CapabilitySet::empty())?;
    landlock::forbid_all()?;
    seccomp::enable(config.seccomp);
    Ok(())
}
