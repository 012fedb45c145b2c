//! What the half outside tells the half that measures.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::result::Mode;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Suite {
    /// Starts and ends, and those of peers.
    Boot,
    /// husk's own prepared ones, quick to do, and the peers that they are judged by.
    Gate,
    /// Disk, network and streams.
    Io,
    /// Many pods at once.
    Scale(Scale),
    /// containerd's runtimes: husk's and runc's.
    Ctr,
    /// A directory shared with a guest: husk's server and the peer's.
    Fs,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Gate => "gate",
            Self::Io => "io",
            Self::Scale(_) => "scale",
            Self::Ctr => "ctr",
            Self::Fs => "fs",
        }
    }
}

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scale {
    /// Idle pods.
    pub(crate) pods: u32,
    /// Pods that are started at once.
    pub(crate) storm: u32,
    /// Starts and ends, one after the other.
    pub(crate) cycles: u32,
}

impl Scale {
    /// What the lab's machine needs for so many pods at once, each of which takes some 50 MiB, in MiB.
    pub(crate) fn lab_memory_mib(self) -> u32 {
        6144.max(2048 + 60 * self.pods.max(self.storm))
    }
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) suite: Suite,
    pub(crate) mode: Mode,
    pub(crate) rounds: u32,
    pub(crate) warmups: u32,
    pub(crate) cpus: Vec<usize>,
    pub(crate) files: Files,
    pub(crate) peers: Peers,
}

/// What is measured with. What the suite has no use for is left empty.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Files {
    pub(crate) husk: PathBuf,
    pub(crate) vmm: PathBuf,
    pub(crate) filesystem: PathBuf,
    /// `husk-supervisor`.
    pub(crate) supervisor: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Initramfs whose init says that it runs, and waits.
    pub(crate) mark: PathBuf,
    /// Initramfs whose init ends the machine.
    pub(crate) reboot: PathBuf,
    /// OCI image layout.
    pub(crate) images: PathBuf,
    /// Storage of the registry with the same images, and the script that serves it.
    pub(crate) registry: PathBuf,
    pub(crate) registry_script: PathBuf,
    /// Disk image of the guest that measures disk and network.
    pub(crate) io_root: Option<PathBuf>,
    /// containerd's runtime.
    pub(crate) shim: PathBuf,
    /// An image as `ctr` imports it.
    pub(crate) archive: PathBuf,
    /// Images with compressed layers, to be unpacked.
    pub(crate) packed: Vec<PathBuf>,
    /// Initramfs whose init works on a shared directory.
    pub(crate) share_guest: PathBuf,
}

/// Programs of others.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Peers {
    pub(crate) qemu: Option<PathBuf>,
    pub(crate) oci_runtimes: Vec<PathBuf>,
    pub(crate) containerd: Option<PathBuf>,
    /// Further runtimes of containerd's, by name.
    pub(crate) runtimes: Vec<String>,
    pub(crate) virtiofsd: Option<PathBuf>,
    pub(crate) umoci: Option<PathBuf>,
    pub(crate) firecracker: Option<PathBuf>,
    pub(crate) cloud_hypervisor: Option<PathBuf>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan(mode: Mode, warmups: u32) -> Plan {
        Plan {
            suite: Suite::Boot,
            mode,
            rounds: 1,
            warmups,
            cpus: Vec::new(),
            files: Files::default(),
            peers: Peers::default(),
        }
    }
}
