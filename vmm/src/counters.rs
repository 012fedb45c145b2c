//! All counters of a VM: the vCPUs', and those that each device has in its folder.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{
    metrics::Counter,
    virtio::{
        balloon::BalloonCounters, block::DiskCounters, fs::FsCounters, net::NetCounters, rng::RngCounters,
        vsock::VsockCounters,
    },
};

/// What a vCPU counts: its exits to the VMM, by kind.
#[derive(Debug, Default, Serialize)]
pub struct VcpuCounters {
    /// Exits for a read of a device's register.
    pub mmio_read_exits: Counter,
    /// Exits for a write to a device's register; most notifications need none.
    pub mmio_write_exits: Counter,
    /// Exits for a read of an I/O port.
    pub pio_read_exits: Counter,
    /// Exits for a write to an I/O port.
    pub pio_write_exits: Counter,
    /// Exits because the VMM asked for one by a signal, to pause or to end.
    pub kick_exits: Counter,
    /// Exits of other kinds that the guest goes on after.
    pub other_exits: Counter,
}

/// All counters of a VM.
#[derive(Debug, Default, Serialize)]
pub struct Counters {
    /// The vCPUs', by number.
    pub vcpus: Vec<Arc<VcpuCounters>>,
    /// The disks', by id.
    pub disks: BTreeMap<String, Arc<DiskCounters>>,
    /// The network interfaces', by id.
    pub nets: BTreeMap<String, Arc<NetCounters>>,
    /// The file systems', by tag.
    pub filesystems: BTreeMap<String, Arc<FsCounters>>,
    /// The vsock device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Arc<VsockCounters>>,
    /// The random numbers'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rng: Option<Arc<RngCounters>>,
    /// The balloon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Arc<BalloonCounters>>,
}
