//! The control queue (virtio 1.2, section 5.1.6.5): how many queue pairs the driver uses, and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use vm_memory::GuestMemoryMmap;

use super::{BATCH, Blocked, NetCounters, ring::Ring, tap::Tap};
use crate::virtio::{Interrupt, segments::Segments, serve::ServeError};

/// A command: class, command, and the one argument that exists.
const COMMAND_LEN: usize = 4;

/// Decides which queues the tap gives frames to.
#[derive(Debug, Clone)]
pub(super) struct Steering {
    /// A queue of the tap for each pair.
    pub(super) taps: Arc<[Tap]>,
    /// How many pairs the driver uses.
    pub(super) in_use: Arc<AtomicU16>,
}

impl Steering {
    /// Uses the first `pairs` pairs.
    ///
    /// # Errors
    /// When the host's kernel refuses; then some may be used and others not.
    pub(super) fn use_pairs(&self, pairs: u16) -> std::io::Result<()> {
        for (index, tap) in self.taps.iter().enumerate() {
            tap.set_attached(index < pairs.into())?;
        }
        self.in_use.store(pairs, Ordering::Relaxed);
        Ok(())
    }
}

/// The control queue, in use.
#[derive(Debug)]
pub(super) struct Control<'m> {
    mem: &'m GuestMemoryMmap,
    ring: Ring,
    interrupt: Interrupt,
    counters: Arc<NetCounters>,
    steering: Steering,
    /// How many pairs the driver has set up.
    usable: u16,
    blocked: Option<Blocked>,
}

impl<'m> Control<'m> {
    /// A queue whose commands can have up to `usable` pairs used.
    pub(super) fn new(
        mem: &'m GuestMemoryMmap,
        ring: Ring,
        interrupt: Interrupt,
        counters: Arc<NetCounters>,
        steering: Steering,
        usable: u16,
    ) -> Self {
        Self { mem, ring, interrupt, counters, steering, usable, blocked: None }
    }

    /// What it waited for may be there.
    pub(super) fn wake(&mut self) {
        self.blocked = None;
    }

    /// Carries out commands, up to a limit. Returns whether there may be more to do now.
    ///
    /// # Errors
    /// When the driver broke the queue.
    pub(super) fn serve(&mut self) -> Result<bool, ServeError> {
        let mut left = BATCH;
        while left > 0 && self.blocked.is_none() {
            match self.ring.pop(self.mem)? {
                Some(chain) => {
                    let head = chain.head_index();
                    let written = self.execute(Segments::collect(self.mem, chain)?)?;
                    self.ring.publish(self.mem, &[(head, written)])?;
                }
                None if self.ring.want_kick(self.mem)? => {}
                None => self.blocked = Some(Blocked::Ring),
            }
            left -= 1;
        }
        if self.ring.take_interrupt(self.mem)? {
            self.interrupt.signal_used();
        }
        Ok(self.blocked.is_none())
    }

    /// Carries out a command and returns how many bytes were written.
    fn execute(&self, segments: Segments<'_>) -> Result<u32, ServeError> {
        if segments.writable.is_empty() {
            return Err(ServeError::NoRoom);
        }
        let mut command = [0; COMMAND_LEN];
        let complete = segments.readable.copy_to(&mut command) == COMMAND_LEN;
        let [class, command, low, high] = command;
        let pairs = u16::from_le_bytes([low, high]);
        let known = u32::from(class) == VIRTIO_NET_CTRL_MQ
            && u32::from(command) == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
            && (1..=self.usable).contains(&pairs);
        let done = complete && known && self.steering.use_pairs(pairs).is_ok();
        if !done {
            self.counters.control_errors.add(1);
        }
        let answer = if done { VIRTIO_NET_OK } else { VIRTIO_NET_ERR };
        segments.writable.copy_from(&[u8::try_from(answer).unwrap_or(u8::MAX)]);
        Ok(1)
    }
}
