//! A queue's event loop: what wakes its thread.

use std::{
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
};

use virtio_bindings::{virtio_blk::VIRTIO_BLK_F_FLUSH, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use virtio_queue::QueueT;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
    timerfd::TimerFd,
};

use super::{
    engine::Engine,
    queue::{BlockQueue, Next, Pass},
    slot::Slot,
};
use crate::{
    time::monotonic_ns,
    virtio::{ActiveQueue, Interrupt, serve::ServeError, turns::Turns},
};

const WAKE: u64 = 0;
const STOP: u64 = 1;
const RETRY_MS: i32 = 1;

/// All that a queue's thread works with, open before it starts.
#[derive(Debug)]
pub(super) struct QueueThread {
    pub(super) mem: Arc<GuestMemoryMmap>,
    pub(super) active: ActiveQueue,
    pub(super) interrupt: Interrupt,
    pub(super) slot: Arc<Slot>,
    /// The features that the driver accepted.
    pub(super) features: u64,
    pub(super) epoll: Epoll,
    pub(super) timer: TimerFd,
}

impl QueueThread {
    /// Serves the queue until `stop` becomes readable, and returns when nothing is in flight any more.
    ///
    /// # Errors
    /// When the driver broke the rules.
    pub(super) fn run(mut self, stop: &EventFd, engine: &Mutex<Engine>) -> Result<(), ServeError> {
        // One thread at a time has it; it is whole whatever happened to the one before.
        let engine = &mut *engine.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch(stop, engine)?;
        self.active.queue.set_event_idx(self.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
        let durable = self.features & (1 << VIRTIO_BLK_F_FLUSH) == 0;
        let mut queue = BlockQueue::new(self.mem, self.active.queue, self.slot, engine, durable);
        let mut turns = Turns::default();
        loop {
            let Pass { next, notify, taken } = queue.pass(monotonic_ns())?;
            if notify {
                self.interrupt.signal_used();
            }
            turns.found(taken);
            let timeout = match next {
                Next::Wait => -1,
                Next::GoOn => 0,
                Next::Retry => RETRY_MS,
                Next::Throttled(wait) | Next::NoRoom(wait) => {
                    self.timer.reset(wait, None).map_err(io::Error::from)?;
                    -1
                }
            };
            let mut events = [EpollEvent::default(); 6];
            let count = match self.epoll.wait(timeout, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            if events[..count].iter().any(|event| event.data() == STOP) {
                return Ok(());
            }
        }
    }

    fn watch(&self, stop: &EventFd, engine: &Engine) -> io::Result<()> {
        // An edge is reported for each write to an eventfd and for each expiry, so that nothing has to be read; the
        // limiter's and the room's descriptors are watched by all queues' threads, of which none may take it from the others. A ring is
        // readable as long as there is something in it, and each pass takes it all.
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let mut watched = vec![
            (self.active.kick.as_raw_fd(), edge, WAKE),
            (self.timer.as_raw_fd(), edge, WAKE),
            (self.slot.limiter.changed().as_raw_fd(), edge, WAKE),
            (self.slot.room.ask_fd().as_raw_fd(), edge, WAKE),
            (stop.as_raw_fd(), EventSet::IN, STOP),
        ];
        watched.extend(engine.fd().map(|fd| (fd, EventSet::IN, WAKE)));
        for (fd, events, token) in watched {
            self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token))?;
        }
        Ok(())
    }
}
