//! Frames for the guest (virtio 1.2, section 5.1.6.4).
//!
//! How long a frame is, is known only when it has been read. So enough of the guest's buffers for the longest one are
//! collected before, and a frame is read straight into them; those that it does not need stay collected for the next.
//! When the guest has given fewer, the rest of a frame goes to memory of the device's own, and is copied once the guest
//! gives more. A frame shows in the guest's ring when it is complete and its rate limit admits it.
//!
//! Whoever saves the queue's state counts the collected buffers as still available.

use std::{collections::VecDeque, io, sync::Arc};

use vm_memory::{GuestMemoryMmap, Permissions};

use super::{
    BATCH, Blocked, HEADER_LEN, MAX_LEN, NetCounters,
    pieces::{Extent, MAX_CHAIN_PIECES, Pieces},
    ring::Ring,
    tap::Tap,
    throttle::Throttle,
};
use crate::virtio::{Interrupt, serve::ServeError};

/// Where in the header the number of a frame's buffers is.
const NUM_BUFFERS_AT: usize = 10;
/// Most pieces of one read: IOV_MAX, less one for what does not fit.
const MAX_READ_PIECES: usize = 1023;

/// A buffer of the guest's that has been taken from the queue.
#[derive(Debug)]
struct Buffer {
    head: u16,
    extent: Extent,
}

/// A frame that has been read but not given to the guest. Lengths include the header.
#[derive(Debug, Clone, Copy)]
struct Frame {
    len: usize,
    /// How much of it is in the guest's buffers; the rest is in `spill`.
    in_place: usize,
    admitted: bool,
}

/// A receive queue.
#[derive(Debug)]
pub(super) struct Receiver<'m> {
    mem: &'m GuestMemoryMmap,
    ring: Ring,
    interrupt: Interrupt,
    throttle: Throttle,
    counters: Arc<NetCounters>,
    /// Most buffers of a frame.
    max_buffers: usize,
    buffers: VecDeque<Buffer>,
    /// The buffers' bytes.
    pieces: Pieces<'m>,
    /// How many these are.
    room: usize,
    /// How many descriptors the buffers have.
    descriptors: usize,
    frame: Option<Frame>,
    spill: Vec<u8>,
    used: Vec<(u16, u32)>,
    blocked: Option<Blocked>,
}

impl<'m> Receiver<'m> {
    /// A queue that gives frames to the guest, each in one buffer unless they are `mergeable`.
    pub(super) fn new(
        mem: &'m GuestMemoryMmap,
        ring: Ring,
        mergeable: bool,
        interrupt: Interrupt,
        throttle: Throttle,
        counters: Arc<NetCounters>,
    ) -> Self {
        Self {
            mem,
            max_buffers: if mergeable { ring.size() } else { 1 },
            ring,
            interrupt,
            throttle,
            counters,
            buffers: VecDeque::new(),
            pieces: Pieces::default(),
            room: 0,
            descriptors: 0,
            frame: None,
            spill: vec![0; MAX_LEN + 1],
            used: Vec::new(),
            blocked: None,
        }
    }

    /// What it waited for may be there.
    pub(super) fn wake(&mut self, cause: Blocked) {
        self.blocked.take_if(|blocked| *blocked == cause);
    }

    /// Gives frames to the guest, up to a limit. Returns whether there may be more to do now.
    ///
    /// # Errors
    /// When the driver broke the queue.
    pub(super) fn serve(&mut self, tap: &Tap) -> Result<bool, ServeError> {
        let mut left = BATCH;
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
        if self.frame.is_none() {
            self.collect(MAX_LEN, MAX_READ_PIECES - MAX_CHAIN_PIECES)?;
            if self.buffers.is_empty() {
                return self.wait_for_buffers();
            }
            self.read(tap);
        }
        match self.frame {
            Some(frame) => self.deliver(frame),
            None => Ok(()),
        }
    }

    /// Takes buffers until there is room for `wanted` bytes, or there are more than `max_pieces` pieces.
    fn collect(&mut self, wanted: usize, max_pieces: usize) -> Result<(), ServeError> {
        while self.room < wanted && self.buffers.len() < self.max_buffers && self.pieces.count() <= max_pieces
        {
            let Some(chain) = self.ring.pop(self.mem)? else { break };
            let head = chain.head_index();
            let extent = self.pieces.append(self.mem, chain, Permissions::Write)?;
            if extent.bytes == 0 {
                return Err(ServeError::NoRoom);
            }
            self.room += extent.bytes;
            self.descriptors += extent.descriptors;
            self.buffers.push_back(Buffer { head, extent });
        }
        Ok(())
    }

    /// Whether the driver can give one more buffer for a frame, of as many descriptors as the last: it may have none left.
    fn may_grow(&self) -> bool {
        let next = self.buffers.back().map_or(1, |last| last.extent.descriptors);
        self.buffers.len() < self.max_buffers && self.descriptors + next <= self.ring.size()
    }

    fn wait_for_buffers(&mut self) -> Result<(), ServeError> {
        if !self.ring.want_kick(self.mem)? {
            self.blocked = Some(Blocked::Ring);
        }
        Ok(())
    }

    fn read(&mut self, tap: &Tap) {
        match tap.read(&self.pieces, &mut self.spill) {
            Ok(len) if (HEADER_LEN + 1..=MAX_LEN).contains(&len) => {
                self.frame = Some(Frame { len, in_place: len.min(self.room), admitted: false });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.blocked = Some(Blocked::Tap),
            Ok(0) | Err(_) => {
                self.counters.rx_errors.add(1);
                self.blocked = Some(Blocked::Tap);
            }
            Ok(_) => self.counters.rx_dropped.add(1),
        }
    }

    fn deliver(&mut self, mut frame: Frame) -> Result<(), ServeError> {
        if !frame.admitted && !self.throttle.admit(frame.len - HEADER_LEN)? {
            self.counters.rx_throttled.add(1);
            self.blocked = Some(Blocked::Tokens);
            return Ok(());
        }
        frame.admitted = true;
        self.frame = Some(frame);
        self.collect(frame.len, usize::MAX)?;
        if self.room < frame.len {
            if self.may_grow() {
                return self.wait_for_buffers();
            }
            self.frame = None;
            self.counters.rx_dropped.add(1);
            return Ok(());
        }
        self.frame = None;
        self.pieces.write_at(frame.in_place, &self.spill[..frame.len - frame.in_place]);
        self.give(frame.len)
    }

    /// Gives the first `len` bytes to the guest, for which there is room.
    fn give(&mut self, len: usize) -> Result<(), ServeError> {
        self.used.clear();
        let (mut left, mut pieces) = (len, 0);
        while left > 0 {
            let Some(buffer) = self.buffers.pop_front() else { break };
            let part = buffer.extent.bytes.min(left);
            left -= part;
            pieces += buffer.extent.pieces;
            self.descriptors -= buffer.extent.descriptors;
            self.room -= buffer.extent.bytes;
            self.used.push((buffer.head, u32::try_from(part).unwrap_or(u32::MAX)));
        }
        // The tap leaves this field alone.
        let num_buffers = u16::try_from(self.used.len()).unwrap_or(u16::MAX);
        self.pieces.write_at(NUM_BUFFERS_AT, &num_buffers.to_le_bytes());
        self.pieces.drop_front(pieces);
        self.ring.publish(self.mem, &self.used)?;
        self.counters.rx_frames.add(1);
        self.counters.rx_bytes.add((len - HEADER_LEN) as u64);
        Ok(())
    }

    /// The descriptors that end a wait for [`Blocked::Tokens`].
    pub(super) fn token_events(&self) -> [std::os::fd::RawFd; 2] {
        self.throttle.events()
    }
}
