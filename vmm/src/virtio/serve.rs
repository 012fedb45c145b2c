//! The event loop of a device with one queue: one request after the other, in order.

use std::{io, os::fd::AsRawFd};

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{
    ActivateError, Activation, ActiveQueue, Interrupt,
    segments::{SegmentError, Segments},
};

/// Most requests between two looks at whether to stop. Their completion is signalled together.
const BATCH: usize = 64;
const KICK: u64 = 0;
const STOP: u64 = 1;

/// A device must stop.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The driver broke the ring.
    #[error("the driver broke the queue: {0}")]
    Queue(#[from] virtio_queue::Error),
    /// The driver broke a descriptor chain.
    #[error("the driver made a bad request: {0}")]
    Chain(#[from] SegmentError),
    /// A request without room for its result.
    #[error("the driver made a request without room for its result")]
    NoRoom,
    /// An operating system call failed.
    #[error("the event loop failed: {0}")]
    Io(#[from] io::Error),
}

/// A device's only queue, in use.
#[derive(Debug)]
pub(super) struct Server {
    mem: GuestMemoryMmap,
    active: ActiveQueue,
    interrupt: Interrupt,
    epoll: Epoll,
}

impl Server {
    /// Takes over a device's only queue.
    ///
    /// # Errors
    /// When there is another number of queues, or no epoll descriptor to be had.
    pub(super) fn new(activation: Activation) -> Result<Self, ActivateError> {
        let Activation { mem, queues, interrupt, features } = activation;
        let [mut active] = ActiveQueue::all(queues)?;
        active.queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        let epoll = Epoll::new()
            .map_err(|source| ActivateError::Os { what: "cannot set up the event loop", source })?;
        Ok(Self { mem, active, interrupt, epoll })
    }

    /// The device's interrupt.
    pub(super) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Hands each request to `handle`, which returns how many bytes it wrote, until `stop` becomes readable.
    ///
    /// # Errors
    /// When the driver broke the rules: the device is of no use until it is reset.
    pub(super) fn run(
        mut self,
        stop: &EventFd,
        mut handle: impl FnMut(Segments<'_>) -> Result<u32, ServeError>,
    ) -> Result<(), ServeError> {
        for (fd, token) in [(self.active.kick.as_raw_fd(), KICK), (stop.as_raw_fd(), STOP)] {
            self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))?;
        }
        loop {
            let more = self.serve_batch(&mut handle)?;
            let mut events = [EpollEvent::default(); 2];
            let count = match self.epoll.wait(if more { 0 } else { -1 }, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return Ok(());
                }
                // Fails when there is nothing to drain.
                let _ = self.active.kick.read();
            }
        }
    }

    /// Serves what is there, up to a limit. Returns whether there is more.
    pub(super) fn serve_batch(
        &mut self,
        handle: &mut impl FnMut(Segments<'_>) -> Result<u32, ServeError>,
    ) -> Result<bool, ServeError> {
        let (mem, queue) = (&self.mem, &mut self.active.queue);
        queue.disable_notification(mem)?;
        let mut served = 0;
        while served < BATCH {
            let Some(chain) = queue.iter(mem)?.next() else { break };
            let head = chain.head_index();
            let written = handle(Segments::collect(mem, chain)?)?;
            queue.add_used(mem, head, written)?;
            served += 1;
        }
        if served > 0 && queue.needs_notification(mem)? {
            self.interrupt.signal_used();
        }
        Ok(served == BATCH || queue.enable_notification(mem)?)
    }
}
