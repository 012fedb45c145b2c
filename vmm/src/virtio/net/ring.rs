//! A queue whose buffers are given back several at a time.
//!
//! A frame may be spread over several buffers, and the driver must not see some of them used and others not yet (virtio
//! 1.2, section 5.1.6.4.1), which `Queue::add_used` can't do.

use std::{
    num::Wrapping,
    sync::atomic::{Ordering, fence},
};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

/// Bytes before the entries of a ring: flags and index.
const RING_HEADER_LEN: u64 = 4;
/// Where a ring's index is.
const INDEX_AT: u64 = 2;
/// Bytes of an entry of the available ring.
const AVAIL_ENTRY_LEN: u64 = 2;
/// Bytes of an entry of the used ring.
const USED_ENTRY_LEN: u64 = 8;

/// A descriptor chain over the guest's memory.
pub(super) type Chain<'m> = DescriptorChain<&'m GuestMemoryMmap>;

/// A queue in use.
#[derive(Debug)]
pub(super) struct Ring {
    queue: Queue,
    /// Whether the driver has been asked to notify. It does so without being asked at the beginning.
    kick_wanted: bool,
    /// The used index when it was last decided whether to interrupt.
    decided: Wrapping<u16>,
}

impl Ring {
    /// Takes over a queue.
    pub(super) fn new(mut queue: Queue, event_idx: bool) -> Self {
        queue.set_event_idx(event_idx);
        let decided = Wrapping(queue.next_used());
        Self { queue, kick_wanted: true, decided }
    }

    /// Number of descriptors.
    pub(super) fn size(&self) -> usize {
        self.queue.size().into()
    }

    /// The driver's next chain.
    pub(super) fn pop<'m>(&mut self, mem: &'m GuestMemoryMmap) -> Result<Option<Chain<'m>>, Error> {
        let chain = self.queue.iter(mem)?.next();
        if chain.is_some() && self.kick_wanted {
            self.queue.disable_notification(mem)?;
            self.kick_wanted = false;
        }
        Ok(chain)
    }

    /// Puts the last chain that was taken back.
    pub(super) fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Asks the driver to notify. True if it has made a chain available meanwhile, and may so have missed the wish.
    pub(super) fn want_kick(&mut self, mem: &GuestMemoryMmap) -> Result<bool, Error> {
        self.kick_wanted = true;
        self.queue.enable_notification(mem)
    }

    /// Gives chains back, by their heads and the number of bytes written, all in the same moment.
    pub(super) fn publish(&mut self, mem: &GuestMemoryMmap, used: &[(u16, u32)]) -> Result<(), Error> {
        let ring = GuestAddress(self.queue.used_ring());
        let mut next = Wrapping(self.queue.next_used());
        for (head, len) in used {
            if *head >= self.queue.size() {
                return Err(Error::InvalidDescriptorIndex);
            }
            let entry = u64::from(next.0 % self.queue.size());
            let address = at(ring, RING_HEADER_LEN + entry * USED_ENTRY_LEN)?;
            // `id` and `len`, 32 bits each (section 2.7.8).
            let element = u64::from(*head) | u64::from(*len) << 32;
            mem.write_obj(element.to_le(), address).map_err(Error::GuestMemory)?;
            next += 1;
        }
        mem.store(next.0.to_le(), at(ring, INDEX_AT)?, Ordering::Release).map_err(Error::GuestMemory)?;
        self.queue.set_next_used(next.0);
        Ok(())
    }

    /// Whether the driver wants an interrupt for what has been given back since this was last asked (sections 2.7.7 and
    /// 2.7.10).
    pub(super) fn take_interrupt(&mut self, mem: &GuestMemoryMmap) -> Result<bool, Error> {
        let now = Wrapping(self.queue.next_used());
        let before = std::mem::replace(&mut self.decided, now);
        if now == before {
            return Ok(false);
        }
        // The new index must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let ring = GuestAddress(self.queue.avail_ring());
        let load = |offset| {
            let value = mem.load(at(ring, offset)?, Ordering::Relaxed).map_err(Error::GuestMemory)?;
            Ok::<_, Error>(u16::from_le(value))
        };
        if self.queue.event_idx_enabled() {
            let wanted = RING_HEADER_LEN + u64::from(self.queue.size()) * AVAIL_ENTRY_LEN;
            let used_event = Wrapping(load(wanted)?);
            Ok(now - used_event - Wrapping(1) < now - before)
        } else {
            Ok(u32::from(load(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
        }
    }
}

fn at(ring: GuestAddress, offset: u64) -> Result<GuestAddress, Error> {
    ring.checked_add(offset).ok_or(Error::AddressOverflow)
}
