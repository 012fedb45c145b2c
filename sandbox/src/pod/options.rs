//! What a front end asks of a pod, and what it is told.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use oci_spec::runtime::Spec;
use tokio::sync::Notify;

use crate::{Result, network::NetworkPlan, paths::Assets, stdio::Streams};

/// husk's own pieces that a pod needs.
#[derive(Debug, Clone)]
pub struct PodAssets {
    /// Those of every VM.
    pub vm: Assets,
    /// The file system server's binary, `husk-fs`.
    pub filesystem: PathBuf,
}

impl PodAssets {
    /// Finds the pieces beside the running program, as [`Assets::find`] does.
    ///
    /// # Errors
    /// When one is missing: which, and where it was looked for.
    pub fn find(kernel: Option<&Path>) -> Result<Self> {
        Ok(Self { vm: Assets::find(kernel)?, filesystem: Assets::find_filesystem()? })
    }
}

/// What kind of pod to start.
#[derive(Debug)]
pub struct PodOptions {
    /// Number of virtual CPUs, 1 to 32.
    pub vcpus: u8,
    /// The VM's memory in MiB.
    pub mem_size_mib: u32,
    /// What its network is.
    pub network: PodNetwork,
    /// The pod's host name.
    pub hostname: String,
    /// Roots of containers that the VM has from its start. Others join it later.
    pub roots: Vec<ImageRoot>,
    /// Directories of the host can be shared with the guest. Takes root.
    pub shares: bool,
    /// The directory of a cgroup (version 2) in which the VM's processes are put. Its limits are whoever made it to set, and
    /// it stays when the pod is gone. `None`: one of husk's own.
    pub cgroup: Option<PathBuf>,
    /// How long the VM may take to boot, and its agent to answer.
    pub timeout: Duration,
    /// Wakes when the pod is not wanted any more while it still starts.
    pub give_up: Arc<Notify>,
}

/// Where a pod's network comes from.
#[derive(Debug, Clone)]
pub enum PodNetwork {
    /// The interfaces of a network namespace become the pod's.
    Namespace {
        /// The namespace.
        path: PathBuf,
        /// The file that becomes containers' `/etc/resolv.conf`, if it is known. Where it names 127.0.0.11, now or when an
        /// interface comes, the name server at this address in that namespace is reached at this address in the VM, as
        /// Docker's; port 53 of 0.0.0.0 is taken there then.
        resolv_conf: Option<PathBuf>,
    },
    /// Networks of husk's own, of CNI's, or none.
    Planned(NetworkPlan),
}

/// A root made of an image's unpacked disk, and a disk for what is written over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRoot {
    /// The container's id.
    pub container_id: String,
    /// The unpacked image, which is only read.
    pub base: PathBuf,
    /// The disk of the container's own.
    pub scratch: PathBuf,
}

/// A container to make.
#[derive(Debug, Clone)]
pub struct ContainerRequest {
    /// A name that no other container of the pod has: 1 to 76 letters, digits, `_`, `-` and `.`, not beginning with a dot.
    pub id: String,
    /// Its OCI runtime spec, as for the host: paths of bind mounts' sources are the host's. What can't apply in a guest is
    /// left out (see [`super::spec`]).
    pub spec: Spec,
    /// Its root file system.
    pub rootfs: RootfsSource,
    /// Its PID namespace.
    pub pids: PidNamespace,
    /// Which streams its first process has.
    pub stdio: StdioFlags,
    /// What the pod adds to it: for containers whose spec was made by husk.
    pub own: Option<OwnSpec>,
}

/// What a container's spec leaves to the pod and its guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnSpec {
    /// `user`, `uid`, `user:group`, ..., looked up in the container's own files; empty: the spec's.
    pub user: String,
    /// Paths that stay writable when the root is read-only.
    pub volumes: Vec<String>,
    /// The first process is an init, which starts the program, passes signals on to it, and reaps.
    pub init: bool,
}

/// Where a container's root file system comes from.
#[derive(Debug, Clone)]
pub enum RootfsSource {
    /// A directory of the host, with all that is mounted below it. The container writes into it.
    Directory(PathBuf),
    /// Mounts to be made one over the other, as a snapshotter names them. They are made where only the pod's file system
    /// server sees them, and are gone when the container or the pod is.
    Mounts(Vec<FsMount>),
    /// A block device or a disk image, which the host does not mount.
    Disk(DiskSource),
    /// An unpacked image under a disk of the container's own.
    Image(ImageRoot),
}

/// One mount, as of mount(8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsMount {
    /// `overlay`, `bind`, ...
    pub fs_type: String,
    /// What to mount.
    pub source: String,
    /// Flags and the file system's own options.
    pub options: Vec<String>,
}

/// A disk with a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskSource {
    /// The block device or image file.
    pub path: PathBuf,
    /// What is on it: a file system that the guest's kernel knows (`ext4`, `erofs`).
    pub fs_type: String,
    /// Flags and the file system's own options, as of mount(8); `loop` means nothing here.
    pub options: Vec<String>,
    /// The guest can't write to the device.
    pub read_only: bool,
}

/// Which PID namespace a container's processes are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// One of its own.
    #[default]
    Own,
    /// One that all containers of the pod share that ask for it.
    Pod,
    /// That of the container with this id, which has started.
    OfContainer(String),
}

/// Which streams a process has; others are `/dev/null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StdioFlags {
    /// Standard input. It ends when the host shuts its stream down for writing.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; never with a terminal.
    pub stderr: bool,
    /// The process has a terminal, whose input and output are `stdin` and `stdout`.
    pub terminal: bool,
}

/// A process that was made.
#[derive(Debug)]
pub struct Created {
    /// Its number in the VM, which means nothing on the host.
    pub pid: u32,
    /// The streams that were asked for.
    pub streams: Streams,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + n when ended by signal n.
    pub code: u32,
    /// A process of the container was killed for lack of memory.
    pub oom_killed: bool,
    /// When the host learned of it.
    pub at: SystemTime,
}

/// Something that happened in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The kernel killed a process of this container for lack of memory.
    Oom {
        /// The container's id.
        container_id: String,
    },
}
