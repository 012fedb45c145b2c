//! Where things are in the guest. All short: some hold unix sockets, whose paths are limited to 107 bytes.

use std::path::PathBuf;

/// cgroup v2.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup";
/// The parent of all containers' cgroups, ...
pub(crate) const CONTAINERS_CGROUP: &str = "/sys/fs/cgroup/husk";
/// ... and the same as cgroup paths in an OCI spec are written.
pub(crate) const CONTAINERS_CGROUP_SPEC: &str = "/husk";
/// Everything the agent mounts for containers is below this.
pub(crate) const RUN: &str = "/run/husk";
/// Files for /etc that the host gave.
pub(crate) const ETC: &str = "/run/husk/etc";
/// libcontainer's state, a directory per container.
pub(crate) const STATE: &str = "/run/husk/s";

/// Mount point of a disk, by its serial.
pub(crate) fn disk(serial: &str) -> PathBuf {
    PathBuf::from(format!("{RUN}/d/{serial}"))
}

/// The OCI bundle of a container: config.json, the root's mount point, a console socket.
pub(crate) fn bundle(container_id: &str) -> PathBuf {
    PathBuf::from(format!("{RUN}/c/{container_id}"))
}

/// A socket at which a new terminal arrives, by a number of its own: ids are too long for sockets.
pub(crate) fn console(number: u64) -> PathBuf {
    PathBuf::from(format!("{RUN}/tty{number}"))
}

/// The cgroup of a container.
pub(crate) fn cgroup(container_id: &str) -> PathBuf {
    PathBuf::from(format!("{CONTAINERS_CGROUP}/{container_id}"))
}

/// The socket at which a created container's process waits to be let go.
pub(crate) fn notify_socket(container_id: &str) -> PathBuf {
    PathBuf::from(format!("{STATE}/{container_id}/{}", libcontainer::notify_socket::NOTIFY_FILE))
}
