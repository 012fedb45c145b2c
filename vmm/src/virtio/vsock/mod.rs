//! virtio-vsock (virtio 1.2, section 5.10): streams between guest and host, whose host side is unix sockets.
//!
//! - A host process connects to the device's socket, writes `CONNECT <port>\n` and, once a guest process accepts, reads
//!   `OK <port of the host>\n`; from then on the stream is that of the guest's process. A refused connection is closed.
//! - A guest process that connects to port P of the host (context id 2) reaches the unix socket `<socket>_P`; it is
//!   refused if nobody listens there.
//!
//! The socket exists from [`Vsock::new`] on, so that nobody has to poll for it: whoever connects before the guest's
//! driver is ready waits, and is refused afterwards if nobody listens in the guest. When the driver resets the device,
//! all connections end.
//!
//! Nothing is lost or reordered in either direction, nor can anybody make the device hold more than a bounded amount:
//! data for the guest stays in the unix socket until the guest has credit and a buffer for it, and the guest has as much
//! credit as the device is ready to hold for a host process that reads slowly. Only the end of the VM or a reset of the
//! device drops what is held: whoever wants everything waits for the end of the stream. A guest that takes no packets is
//! not listened to. Half-closed connections work both ways.
//!
//! | threat | answer |
//! |---|---|
//! | packets that are cut short, from or to others, of unknown kinds, or with absurd lengths | the header is copied once and checked; what has a sender is answered by a reset, the rest dropped ([`packet`]) |
//! | more data than there is credit for | the connection is reset ([`connection`]) |
//! | connections without end, or answers that nobody takes | bounded in number; the guest is not listened to meanwhile ([`muxer`]) |
//! | a socket of the host that reads slowly | 128 KiB are held for it, and no more are credited |
//! | other sockets of the host | ports only lead to `<socket>_<port>`; in the jail nothing else is in reach |

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use virtio_bindings::{
    virtio_ids::VIRTIO_ID_VSOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::QueueT;

use super::{ActivateError, Activation, ActiveQueue, VirtioDevice, Worker};
use crate::jail::seccomp::Role;

mod chain;
mod connection;
mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod header;
mod host;
mod metrics;
mod muxer;
mod packet;
#[cfg(test)]
mod tests;

pub use host::VsockError;
pub use metrics::VsockCounters;

use engine::Engine;

/// Sizes of the queues: packets for the guest, packets of the guest, events. Events tell of a changed context id, which
/// does not happen.
const QUEUE_SIZES: [u16; 3] = [256; 3];

/// A vsock device.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: u32,
    /// What the paths of the host's ports begin with.
    ports: PathBuf,
    listener: std::os::unix::net::UnixListener,
    counters: Arc<VsockCounters>,
    worker: Option<Worker>,
}

impl Vsock {
    /// A device for the guest with context id `guest_cid`, and its listening socket, which only this user may connect to.
    /// A socket at that path that nobody listens on any more is replaced. `ports` is what the paths of the host's ports
    /// begin with, where the device will run: the socket's own path, or what that is inside of a jail.
    ///
    /// # Errors
    /// When the context id is reserved, or the socket can't be made.
    pub fn new(guest_cid: u32, socket: &Path, ports: PathBuf) -> Result<Self, VsockError> {
        if guest_cid <= 2 || guest_cid == u32::MAX {
            return Err(VsockError::Cid(guest_cid));
        }
        let listener = host::listen(socket)?;
        Ok(Self { guest_cid, ports, listener, counters: Arc::default(), worker: None })
    }
}

impl Vsock {
    /// What the device counts.
    pub fn counters(&self) -> Arc<VsockCounters> {
        self.counters.clone()
    }
}

impl Drop for Vsock {
    fn drop(&mut self) {
        self.reset();
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.guest_cid).to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = config.get(start..).unwrap_or_default().iter();
        data.fill_with(|| rest.next().copied().unwrap_or(0));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { mem, queues, interrupt, features } = activation;
        let [mut rx, mut tx, _events] = ActiveQueue::all(queues)?;
        let event_idx = features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        rx.queue.set_event_idx(event_idx);
        tx.queue.set_event_idx(event_idx);
        let os = |what| move |source| ActivateError::Os { what, source };
        let listener = self.listener.try_clone().map_err(os("cannot share the vsock listening socket"))?;
        let host = (listener, self.ports.clone());
        let engine = Engine::new(mem, rx, tx, interrupt.clone(), self.guest_cid, host, self.counters.clone())
            .map_err(os("cannot set up the vsock event loop"))?;
        let worker = Worker::spawn("vsock", Role::Vsock, interrupt, move |stop| engine.run(&stop))
            .map_err(os("cannot start the vsock thread"))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}
