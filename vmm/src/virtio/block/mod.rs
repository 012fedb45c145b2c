//! virtio-blk (virtio 1.2, section 5.2): disks, read-write or read-only, and places for disks that come later.
//!
//! | threat | answer |
//! |---|---|
//! | a request beyond the disk's end, or that wraps around | refused ([`request`]) |
//! | a write to a read-only disk | refused by the device, and the file is open for reading only |
//! | descriptors outside of the guest's memory, loops, long chains | the device stops until it is reset |
//! | the guest changes a buffer during the transfer | data is never looked at; header and range are copied before they are checked |
//! | a reset, or the disk's removal, while requests are in flight | both wait for them; each owns its memory and its file until then ([`ring`]) |
//! | floods of requests, the same descriptors again and again | at most 256 in flight per queue, taken in batches; rate limits |
//! | writes that fill the host's file system | they wait, and their queue with them, until there is room ([`room`]); none is lost, no thread waits with them, and the log has a bound |
//! | a disk of zeros that costs the host gigabytes of writing | zeros are bounded per request, and count as bytes for the rate limit |
//! | a ring whose memory is corrupted into asking the kernel for more than I/O | the kernel takes four operations from it and no others |

use std::{
    io,
    sync::{Arc, Mutex},
};

use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
        VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vmm_sys_util::{epoll::Epoll, timerfd::TimerFd};

use super::{ActivateError, Activation, VirtioDevice, Worker};
use crate::{
    config::{DiskConfig, WhenFull},
    jail::seccomp::Role,
    rate_limit::RateLimit,
};

mod buffers;
mod config_space;
mod disk;
mod disks;
mod engine;
mod events;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod job;
mod kind;
mod metrics;
mod queue;
mod request;
mod ring;
mod room;
mod slot;
#[cfg(test)]
mod tests;

pub use disk::{DiskError, Source};
pub use disks::{Disks, DisksError};
pub use metrics::DiskCounters;

use disk::Disk;
use engine::Engine;
use events::QueueThread;
use slot::Slot;

const QUEUE_SIZE: u16 = 256;

/// A disk device.
#[derive(Debug)]
pub struct Block {
    name: String,
    slot: Arc<Slot>,
    state: State,
    /// One per queue, used again after a reset.
    engines: Vec<Arc<Mutex<Engine>>>,
    workers: Vec<Worker>,
}

/// What the device is, apart from its disk and its threads.
#[derive(Debug, Clone)]
struct State {
    /// Features offered, fixed when the VM is made.
    features: u64,
    /// Maximum size of each queue.
    queue_sizes: Vec<u16>,
}

impl Block {
    /// Opens a disk.
    ///
    /// # Errors
    /// When it can't be opened, or its length is no good.
    pub fn new(config: &DiskConfig) -> Result<Self, DiskError> {
        let disk = Disk::open(Source::Path(config.path.clone()), config.read_only)?;
        let slot = Slot::new(&config.id, Some(disk), config.limit, config.when_full)?;
        Ok(Self::with_slot(slot, &config.id, config.read_only, config.queues))
    }

    /// A place for a disk that comes later: until then, a disk of no size.
    ///
    /// # Errors
    /// When no descriptors can be had.
    pub fn spare(name: &str) -> Result<Self, DiskError> {
        let slot = Slot::new(name, None, RateLimit::default(), WhenFull::default())?;
        Ok(Self::with_slot(slot, name, false, 1))
    }

    fn with_slot(slot: Slot, name: &str, read_only: bool, queues: u8) -> Self {
        let mut features = 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC;
        if queues > 1 {
            features |= 1 << VIRTIO_BLK_F_MQ;
        }
        features |= if read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        Self {
            name: name.to_owned(),
            slot: Arc::new(slot),
            state: State { features, queue_sizes: vec![QUEUE_SIZE; queues.into()] },
            engines: (0..queues).map(|_| Arc::new(Mutex::new(Engine::InPlace))).collect(),
            workers: Vec::new(),
        }
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        self.state.features
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.state.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        config_space::read(self.slot.sectors(), self.state.queue_sizes.len(), offset, data);
    }

    fn config_generation(&self) -> u32 {
        self.slot.generation()
    }

    /// Makes the rings: the kernel ties them to a process.
    fn prepare(&mut self) {
        self.engines.fill_with(|| Arc::new(Mutex::new(Engine::new())));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let os = |what| move |source| ActivateError::Os { what, source };
        let Activation { mem, queues, interrupt, features } = activation;
        if queues.iter().all(Option::is_none) {
            return Err(ActivateError::QueueCount { expected: self.engines.len(), found: 0 });
        }
        let mem = Arc::new(mem);
        // A driver may use fewer queues than there are.
        for (index, (active, engine)) in queues.into_iter().zip(&self.engines).enumerate() {
            let Some(active) = active else { continue };
            let thread = QueueThread {
                mem: mem.clone(),
                active,
                interrupt: interrupt.clone(),
                slot: self.slot.clone(),
                features,
                epoll: Epoll::new().map_err(os("cannot set up the event loop"))?,
                timer: TimerFd::new().map_err(io::Error::from).map_err(os("cannot make a timer"))?,
            };
            let name = if index == 0 { self.name.clone() } else { format!("{}/{index}", self.name) };
            let engine = engine.clone();
            let worker =
                Worker::spawn(&name, Role::Block, interrupt.clone(), move |stop| thread.run(&stop, &engine));
            self.workers.push(worker.map_err(os("cannot start the disk's thread"))?);
        }
        self.slot.set_interrupt(Some(interrupt));
        Ok(())
    }

    fn reset(&mut self) {
        self.slot.set_interrupt(None);
        self.workers.clear();
    }
}
