//! The balloon's event loop: its queues, and the host's wish for statistics.

use std::{io, os::fd::AsRawFd, sync::Arc};

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EventFd,
};

use super::{Shared, release::Releaser, request};
use crate::virtio::{Activation, ActiveQueue, Interrupt, segments::Segments, serve::ServeError};

/// Most requests of a queue between two looks at whether to stop.
const BATCH: usize = 16;
const STOP: u64 = u64::MAX;
const WANTED: u64 = u64::MAX - 1;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Pages for the balloon.
    Inflate,
    /// Pages out of the balloon.
    Deflate,
    /// Statistics.
    Stats,
    /// Free pages.
    Reporting,
}

/// The balloon in operation.
#[derive(Debug)]
pub(super) struct Engine {
    mem: GuestMemoryMmap,
    queues: Vec<(Role, ActiveQueue)>,
    interrupt: Interrupt,
    epoll: Epoll,
    releaser: Releaser,
    shared: Arc<Shared>,
    /// The head of the buffer that goes back to the driver when the host wants new statistics.
    stats_head: Option<u16>,
}

impl Engine {
    /// Takes over the queues, whose roles are these.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub(super) fn new(
        activation: Activation,
        roles: &[Role],
        releaser: Releaser,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let Activation { mem, queues, interrupt, features } = activation;
        let epoll = Epoll::new()?;
        let mut queues: Vec<_> = roles.iter().copied().zip(queues.into_iter().flatten()).collect();
        for (token, (_, active)) in (0..).zip(&mut queues) {
            active.queue.set_event_idx(features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0);
            watch(&epoll, &active.kick, token)?;
        }
        watch(&epoll, &shared.stats_wanted, WANTED)?;
        Ok(Self { mem, queues, interrupt, epoll, releaser, shared, stats_head: None })
    }

    /// Works until `stop` becomes readable.
    ///
    /// # Errors
    /// When the driver broke the rules: the device is of no use until it is reset.
    pub(super) fn run(mut self, stop: &EventFd) -> Result<(), ServeError> {
        watch(&self.epoll, stop, STOP)?;
        loop {
            let more = self.serve()?;
            let mut events = [EpollEvent::default(); 6];
            let count = match self.epoll.wait(if more { 0 } else { -1 }, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            for event in &events[..count] {
                // Reading fails when there is nothing to drain.
                match event.data() {
                    STOP => return Ok(()),
                    WANTED => {
                        let _ = self.shared.stats_wanted.read();
                        self.ask_for_stats()?;
                    }
                    token => {
                        let active = usize::try_from(token).ok().and_then(|index| self.queues.get(index));
                        let _ = active.map(|(_, active)| active.kick.read());
                    }
                }
            }
        }
    }

    /// Serves what is there, up to a limit per queue. Returns whether there is more.
    pub(super) fn serve(&mut self) -> Result<bool, ServeError> {
        let mut more = false;
        for (role, active) in &mut self.queues {
            let (mem, queue) = (&self.mem, &mut active.queue);
            queue.disable_notification(mem)?;
            let (mut seen, mut used) = (0, false);
            while seen < BATCH {
                let Some(chain) = queue.iter(mem)?.next() else { break };
                let head = chain.head_index();
                let segments = Segments::collect(mem, chain)?;
                let counters = &self.shared.counters;
                let done = match role {
                    Role::Inflate => {
                        request::inflate(mem, self.releaser, counters, &segments.readable);
                        Some(head)
                    }
                    Role::Deflate => {
                        request::deflate(counters, &segments.readable);
                        Some(head)
                    }
                    Role::Reporting => {
                        request::report(self.releaser, counters, &segments.writable);
                        Some(head)
                    }
                    Role::Stats => {
                        self.shared.lock().stats = Some(request::statistics(counters, &segments.readable));
                        // There is to be one buffer at a time. Of a driver that gives more, the newest is kept.
                        self.stats_head.replace(head)
                    }
                };
                if let Some(head) = done {
                    queue.add_used(mem, head, 0)?;
                    used = true;
                }
                seen += 1;
            }
            if used && queue.needs_notification(mem)? {
                self.interrupt.signal_used();
            }
            more |= seen == BATCH || queue.enable_notification(mem)?;
        }
        Ok(more)
    }

    /// Gives the driver its statistics buffer back, upon which it fills it anew (section 5.5.6.3).
    pub(super) fn ask_for_stats(&mut self) -> Result<(), ServeError> {
        let active = self.queues.iter_mut().find(|(role, _)| *role == Role::Stats);
        if let (Some((_, active)), Some(head)) = (active, self.stats_head.take()) {
            active.queue.add_used(&self.mem, head, 0)?;
            if active.queue.needs_notification(&self.mem)? {
                self.interrupt.signal_used();
            }
        }
        Ok(())
    }
}

fn watch(epoll: &Epoll, fd: &EventFd, token: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, token))
}
