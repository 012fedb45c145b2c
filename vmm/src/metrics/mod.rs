//! Counters, cheap enough to be always on. Each device's own are in its folder; here is what they are made of, all of a
//! VM's together, and the two forms in which they are read: JSON, which is [`Counters`] serialized, and
//! [Prometheus text](prometheus).

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::virtio::{block::DiskCounters, net::NetCounters};

pub mod prometheus;
mod value;

pub use value::{Counter, Histogram};

/// What a vCPU counts: its exits to the VMM, by kind.
#[derive(Debug, Default, Serialize)]
pub struct VcpuCounters {
    /// Exits for an access to a device's registers.
    pub mmio_exits: Counter,
    /// Exits for an access to an I/O port.
    pub pio_exits: Counter,
    /// Other exits, signals included.
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
}
