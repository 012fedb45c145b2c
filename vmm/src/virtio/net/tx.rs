//! Frames of the guest (virtio 1.2, section 5.1.6.2): each is a chain that goes to the tap in one write.

use std::{io, sync::Arc};

use vm_memory::{GuestMemoryMmap, Permissions};

use super::{
    BATCH, Blocked, HEADER_LEN, MAX_LEN, NetCounters, pieces::Pieces, ring::Ring, tap::Tap,
    throttle::Throttle,
};
use crate::virtio::{Interrupt, serve::ServeError};

/// A transmit queue.
#[derive(Debug)]
pub(super) struct Transmitter<'m> {
    mem: &'m GuestMemoryMmap,
    ring: Ring,
    interrupt: Interrupt,
    throttle: Throttle,
    counters: Arc<NetCounters>,
    pieces: Pieces<'m>,
    /// The rate limit has admitted the next frame, which the tap did not take.
    admitted: bool,
    blocked: Option<Blocked>,
    /// How many frames were taken when it last served.
    taken: usize,
}

impl<'m> Transmitter<'m> {
    /// A queue that gives the guest's frames to the tap.
    pub(super) fn new(
        mem: &'m GuestMemoryMmap,
        ring: Ring,
        interrupt: Interrupt,
        throttle: Throttle,
        counters: Arc<NetCounters>,
    ) -> Self {
        let pieces = Pieces::default();
        Self { mem, ring, interrupt, throttle, counters, pieces, admitted: false, blocked: None, taken: 0 }
    }

    /// What it waited for may be there.
    pub(super) fn wake(&mut self, cause: Blocked) {
        self.blocked.take_if(|blocked| *blocked == cause);
    }

    /// How many frames [`serve`](Self::serve) took when it was called last.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// Sends the guest's frames, up to a limit. Returns whether there may be more to do now.
    ///
    /// # Errors
    /// When the driver broke the queue.
    pub(super) fn serve(&mut self, tap: &Tap) -> Result<bool, ServeError> {
        let mut left = BATCH;
        self.taken = 0;
        while left > 0 && self.blocked.is_none() {
            self.step(tap)?;
            left -= 1;
        }
        if self.ring.take_interrupt(self.mem)? {
            self.interrupt.signal_used();
        }
        Ok(self.blocked.is_none())
    }

    fn step(&mut self, tap: &Tap) -> Result<(), ServeError> {
        let Some(chain) = self.ring.pop(self.mem)? else {
            if !self.ring.want_kick(self.mem)? {
                self.blocked = Some(Blocked::Ring);
            }
            return Ok(());
        };
        let head = chain.head_index();
        self.pieces.clear();
        let len = self.pieces.append(self.mem, chain, Permissions::Read)?.bytes;
        if let Some(cause) = self.send(tap, len)? {
            // What it says next time may differ. Nobody relies on that it does not.
            self.ring.undo_pop();
            self.blocked = Some(cause);
            return Ok(());
        }
        self.admitted = false;
        self.taken += 1;
        Ok(self.ring.publish(self.mem, &[(head, 0)])?)
    }

    /// Sends a frame, or drops it if it is none. Returns what it must wait for, if it must.
    fn send(&mut self, tap: &Tap, len: usize) -> Result<Option<Blocked>, ServeError> {
        let counters = &self.counters;
        if !(HEADER_LEN + 1..=MAX_LEN).contains(&len) {
            counters.tx_dropped.add(1);
            return Ok(None);
        }
        if !self.admitted && !self.throttle.admit(len - HEADER_LEN)? {
            counters.tx_throttled.add(1);
            return Ok(Some(Blocked::Tokens));
        }
        match tap.write(&self.pieces) {
            Ok(_) => {
                counters.tx_frames.add(1);
                counters.tx_bytes.add((len - HEADER_LEN) as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.admitted = true;
                return Ok(Some(Blocked::Tap));
            }
            Err(_) => counters.tx_errors.add(1),
        }
        Ok(None)
    }

    /// The descriptors that end a wait for [`Blocked::Tokens`].
    pub(super) fn token_events(&self) -> [std::os::fd::RawFd; 2] {
        self.throttle.events()
    }
}
