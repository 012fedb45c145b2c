//! virtio-blk (virtio 1.2, section 5.2): disks, read-write or read-only.
//!
//! | threat | answer |
//! |---|---|
//! | a request beyond the disk's end, or that wraps around | refused ([`request`]) |
//! | a write to a read-only disk | refused by the device, and the file is open for reading only |
//! | descriptors outside of the guest's memory, loops, long chains | the device stops until it is reset |
//! | the guest changes a buffer during the transfer | data is never looked at; the header is copied before it is checked |

use std::sync::Arc;

use virtio_bindings::{
    virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX},
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use super::{ActivateError, Activation, VirtioDevice, Worker, serve::Server};
use crate::{config::DiskConfig, jail::seccomp::Role};

mod disk;
mod metrics;
mod request;
#[cfg(test)]
mod tests;

pub use disk::DiskError;
pub use metrics::DiskCounters;

use disk::Disk;

const QUEUE_SIZE: u16 = 256;
const QUEUE_SIZES: [u16; 1] = [QUEUE_SIZE];
/// Most data segments of a request: a full queue, without header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// A disk.
#[derive(Debug)]
pub struct Block {
    name: String,
    disk: Arc<Disk>,
    counters: Arc<DiskCounters>,
    worker: Option<Worker>,
}

impl Block {
    /// Opens a disk.
    ///
    /// # Errors
    /// When it can't be opened, or its length is no good.
    pub fn new(config: &DiskConfig) -> Result<Self, DiskError> {
        let disk = Arc::new(Disk::open(config)?);
        Ok(Self { name: config.id.clone(), disk, counters: Arc::default(), worker: None })
    }

    /// What the disk counts.
    pub fn counters(&self) -> Arc<DiskCounters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let read_only = if self.disk.read_only() { 1 << VIRTIO_BLK_F_RO } else { 0 };
        read_only
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// Capacity, size_max (none) and seg_max (section 5.2.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 16];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[12..].copy_from_slice(&SEG_MAX.to_le_bytes());
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = config.get(start..).unwrap_or_default().iter();
        data.fill_with(|| rest.next().copied().unwrap_or(0));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let server = Server::new(activation)?;
        let (disk, counters) = (self.disk.clone(), self.counters.clone());
        let interrupt = server.interrupt();
        let run = move |stop| server.run(&stop, |segments| request::handle(&disk, &counters, segments));
        let worker = Worker::spawn(&self.name, Role::Block, interrupt, run)
            .map_err(|source| ActivateError::Os { what: "cannot start the disk's thread", source })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
