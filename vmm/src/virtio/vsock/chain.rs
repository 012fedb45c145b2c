//! Queues and descriptor chains: a chain is a stream of bytes in guest memory, whatever its layout.

use std::{collections::VecDeque, io, os::unix::net::UnixStream};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{
    GuestMemory, GuestMemoryMmap, Permissions, ReadVolatile, VolatileMemoryError, VolatileSlice,
    WriteVolatile,
};

use super::header::{HEADER_LEN, MAX_PAYLOAD_LEN};

/// Most bytes of a chain that are looked at: the biggest packet.
const MAX_CHAIN_LEN: usize = HEADER_LEN + MAX_PAYLOAD_LEN;
/// Most descriptors of a chain that are looked at: no driver may chain more than the queue's size (virtio 1.2,
/// section 2.7.5.3.1).
const MAX_DESCRIPTORS: usize = 256;

/// A descriptor chain over the guest's memory.
pub(super) type Chain<'m> = DescriptorChain<&'m GuestMemoryMmap>;

/// A range of bytes that lies in pieces in guest memory.
#[derive(Debug, Default)]
pub(super) struct Buffers<'m> {
    /// No piece is empty.
    pieces: VecDeque<VolatileSlice<'m>>,
    len: usize,
}

impl<'m> Buffers<'m> {
    /// The device-readable bytes of a chain; `None` if one of its descriptors lies outside guest memory.
    pub(super) fn readable(mem: &'m GuestMemoryMmap, chain: Chain<'m>) -> Option<Self> {
        Self::gather(mem, chain, Permissions::Read)
    }

    /// The device-writable bytes of a chain; `None` if one of its descriptors lies outside guest memory.
    pub(super) fn writable(mem: &'m GuestMemoryMmap, chain: Chain<'m>) -> Option<Self> {
        Self::gather(mem, chain, Permissions::Write)
    }

    fn gather(mem: &'m GuestMemoryMmap, chain: Chain<'m>, access: Permissions) -> Option<Self> {
        let mut all = Self::default();
        for descriptor in chain.take(MAX_DESCRIPTORS) {
            if descriptor.is_write_only() != (access == Permissions::Write) {
                continue;
            }
            let wanted = usize::try_from(descriptor.len()).ok()?.min(MAX_CHAIN_LEN - all.len);
            for piece in GuestMemory::get_slices(mem, descriptor.addr(), wanted, access).ok()? {
                all.push(piece.ok()?);
            }
        }
        Some(all)
    }

    fn push(&mut self, piece: VolatileSlice<'m>) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cuts the first `count` bytes off and returns them; `None` if there are fewer.
    pub(super) fn split_to(&mut self, count: usize) -> Option<Self> {
        if count > self.len {
            return None;
        }
        let mut head = Self::default();
        while head.len < count {
            let piece = self.pieces.pop_front()?;
            let wanted = count - head.len;
            if piece.len() > wanted {
                let (taken, left) = piece.split_at(wanted).ok()?;
                self.pieces.push_front(left);
                head.push(taken);
            } else {
                head.push(piece);
            }
        }
        self.len -= count;
        Some(head)
    }

    /// Copies the bytes out, as many as `to` holds.
    pub(super) fn copy_to(&self, mut to: &mut [u8]) {
        for piece in &self.pieces {
            let copied = piece.copy_to(to);
            to = to.get_mut(copied..).unwrap_or_default();
        }
    }

    /// Overwrites the bytes from `from`, as many as there are in both.
    pub(super) fn copy_from(&self, mut from: &[u8]) {
        for piece in &self.pieces {
            let count = piece.len().min(from.len());
            let (now, later) = from.split_at(count);
            piece.copy_from(now);
            from = later;
        }
    }

    /// Fills the first `limit` bytes from a socket, or as many as it gives now. Zero means the end of the stream, unless
    /// there is no room.
    ///
    /// # Errors
    /// `WouldBlock` when the socket has nothing now; else what the socket said.
    pub(super) fn receive(&self, mut from: &UnixStream, limit: usize) -> io::Result<usize> {
        let mut total = 0;
        for piece in &self.pieces {
            let wanted = piece.len().min(limit - total);
            if wanted == 0 {
                break;
            }
            let mut part = piece.subslice(0, wanted).map_err(io_error)?;
            match from.read_volatile(&mut part).map_err(io_error) {
                Ok(count) => {
                    total += count;
                    if count < wanted {
                        break;
                    }
                }
                // An error comes again when the socket is read next.
                Err(error) if total == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(total)
    }

    /// Sends the bytes to a socket, as many as it takes now, and cuts those off.
    ///
    /// # Errors
    /// What the socket said, other than that it is full.
    pub(super) fn send(&mut self, mut to: &UnixStream) -> io::Result<usize> {
        let mut total = 0;
        while let Some(piece) = self.pieces.front() {
            let (count, len) = match to.write_volatile(piece).map_err(io_error) {
                Ok(count) => (count, piece.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            total += count;
            self.split_to(count);
            if count < len {
                break;
            }
        }
        Ok(total)
    }
}

fn io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

/// A queue in use, and whether its driver is owed an interrupt.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    used: bool,
}

impl Ring {
    /// Takes over an active queue.
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, used: false }
    }

    /// Takes the next chain of the driver. When there is none, the driver's next one comes with a notification;
    /// until then there are none.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn pop<'m>(
        &mut self,
        mem: &'m GuestMemoryMmap,
    ) -> Result<Option<Chain<'m>>, virtio_queue::Error> {
        if let Some(chain) = self.queue.iter(mem)?.next() {
            return Ok(Some(chain));
        }
        if !self.queue.enable_notification(mem)? {
            return Ok(None);
        }
        self.queue.disable_notification(mem)?;
        Ok(self.queue.iter(mem)?.next())
    }

    /// Puts the chain popped last back.
    pub(super) fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back to the driver, with `len` bytes written to it.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn push_used(
        &mut self,
        mem: &GuestMemoryMmap,
        head: u16,
        len: usize,
    ) -> Result<(), virtio_queue::Error> {
        let len = u32::try_from(len).map_err(|_| virtio_queue::Error::DescriptorChainOverflow)?;
        self.used = true;
        self.queue.add_used(mem, head, len)
    }

    /// Whether to interrupt the driver for the chains given back since this was asked last.
    ///
    /// # Errors
    /// When the driver broke the ring.
    pub(super) fn take_interrupt(&mut self, mem: &GuestMemoryMmap) -> Result<bool, virtio_queue::Error> {
        Ok(std::mem::take(&mut self.used) && self.queue.needs_notification(mem)?)
    }
}
