//! A guest in plain memory, and a socket whose other end stands for the tap.

use std::{os::unix::net::UnixDatagram, sync::Arc};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::super::{NetCounters, Throttle, ring::Ring, rx::Receiver, tap::Tap, tx::Transmitter};
use crate::{
    rate_limit::{RateLimit, RateLimiter},
    virtio::Interrupt,
};

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;
/// Where the queue's rings are.
const RINGS: u64 = 0x1000;
/// Where free memory begins.
pub(super) const DATA: u64 = 0x10_0000;
/// Where two regions touch, which are apart on the host.
pub(super) const SEAM: u64 = 0x20_0000;
/// Memory that random buffers leave alone.
pub(super) const SPARE: u64 = 0x40_0000;
pub(super) const END: u64 = 0x200_0000;
pub(super) const HEADER: usize = 12;

pub(super) fn memory() -> GuestMemoryMmap {
    let region = |start, end: u64| (GuestAddress(start), usize::try_from(end - start).unwrap());
    GuestMemoryMmap::from_ranges(&[region(0, SEAM), region(SEAM, END)]).unwrap()
}

pub(super) fn bytes(mem: &GuestMemoryMmap, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

/// Bytes that differ from place to place, and by `seed`.
pub(super) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(77)).to_le_bytes()[0]).collect()
}

/// A driver's side of a queue.
#[derive(Debug)]
pub(super) struct Driver<'m> {
    pub(super) mem: &'m GuestMemoryMmap,
    base: u64,
    size: u16,
    available: u16,
    seen: u16,
    free: Vec<u16>,
    /// The descriptors of each chain, by its head.
    pub(super) chains: Vec<Vec<(u64, u32)>>,
    indices: Vec<Vec<u16>>,
}

impl<'m> Driver<'m> {
    pub(super) fn new(mem: &'m GuestMemoryMmap, size: u16) -> Self {
        Self::at(mem, RINGS, size)
    }

    pub(super) fn at(mem: &'m GuestMemoryMmap, base: u64, size: u16) -> Self {
        let free = (0..size).rev().collect();
        let all = usize::from(size);
        Self {
            mem,
            base,
            size,
            available: 0,
            seen: 0,
            free,
            chains: vec![vec![]; all],
            indices: vec![vec![]; all],
        }
    }

    fn available_at(&self) -> u64 {
        self.base + 0x1000
    }

    fn used_at(&self) -> u64 {
        self.base + 0x2000
    }

    pub(super) fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.base)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.available_at())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.used_at())).unwrap();
        queue.set_ready(true);
        assert!(queue.is_valid(self.mem));
        queue
    }

    pub(super) fn put_descriptor(&self, index: u16, descriptor: (u64, u32, u16), next: u16) {
        let (address, len, flags) = descriptor;
        let at = self.base + 16 * u64::from(index);
        self.mem.write_obj(address, GuestAddress(at)).unwrap();
        self.mem.write_obj(len, GuestAddress(at + 8)).unwrap();
        self.mem.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.mem.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// Makes a head available, whatever it is.
    pub(super) fn make_available(&mut self, head: u16) {
        let entry = u64::from(self.available % self.size);
        self.mem.write_obj(head, GuestAddress(self.available_at() + 4 + 2 * entry)).unwrap();
        self.available = self.available.wrapping_add(1);
        self.mem.write_obj(self.available, GuestAddress(self.available_at() + 2)).unwrap();
    }

    pub(super) fn room(&self) -> usize {
        self.free.len()
    }

    /// Makes a chain of such descriptors available; returns its head.
    pub(super) fn offer(&mut self, descriptors: &[(u64, u32, u16)]) -> u16 {
        let indices: Vec<u16> = descriptors.iter().map(|_| self.free.pop().unwrap()).collect();
        for (number, (address, len, flags)) in descriptors.iter().enumerate() {
            let next = indices.get(number + 1).copied();
            let flags = flags | if next.is_some() { NEXT } else { 0 };
            self.put_descriptor(indices[number], (*address, *len, flags), next.unwrap_or(0));
        }
        let head = indices[0];
        self.chains[usize::from(head)] =
            descriptors.iter().map(|(address, len, _)| (*address, *len)).collect();
        self.indices[usize::from(head)] = indices;
        self.make_available(head);
        head
    }

    pub(super) fn used_index(&self) -> u16 {
        self.mem.read_obj(GuestAddress(self.used_at() + 2)).unwrap()
    }

    /// What has been given back since this was last called, as heads and lengths.
    pub(super) fn used(&mut self) -> Vec<(u16, u32)> {
        let mut used = Vec::new();
        while self.seen != self.used_index() {
            let at = self.used_at() + 4 + 8 * u64::from(self.seen % self.size);
            let head = u16::try_from(self.mem.read_obj::<u32>(GuestAddress(at)).unwrap()).unwrap();
            used.push((head, self.mem.read_obj(GuestAddress(at + 4)).unwrap()));
            self.free.append(&mut self.indices[usize::from(head)]);
            self.seen = self.seen.wrapping_add(1);
        }
        used
    }

    /// The first `len` bytes of a chain.
    pub(super) fn content(&self, head: u16, len: u32) -> Vec<u8> {
        let chain = &self.chains[usize::from(head)];
        let mut all = Vec::new();
        for (address, len) in chain {
            all.extend_from_slice(&bytes(self.mem, *address, *len as usize));
        }
        all.truncate(len as usize);
        all
    }

    /// The frames received since this was last called, put together by the number of buffers in their headers.
    pub(super) fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let used = self.used();
        let mut rest = used.iter();
        while let Some((head, len)) = rest.next() {
            let mut frame = self.content(*head, *len);
            let more = rest.clone().take(HEADER).map(|(head, len)| self.content(*head, *len));
            let header: Vec<u8> = frame.iter().copied().chain(more.flatten()).take(HEADER).collect();
            let buffers = u16::from_le_bytes([header[10], header[11]]);
            for _ in 1..buffers {
                let (head, len) = rest.next().expect("a frame that is not complete");
                frame.extend(self.content(*head, *len));
            }
            frames.push(frame);
        }
        frames
    }

    /// Asks for an interrupt when the used index goes beyond `index`.
    pub(super) fn set_used_event(&self, index: u16) {
        let at = self.available_at() + 4 + 2 * u64::from(self.size);
        self.mem.write_obj(index, GuestAddress(at)).unwrap();
    }

    /// When the device wants to be notified: as the driver makes this index available.
    pub(super) fn avail_event(&self) -> u16 {
        self.mem.read_obj(GuestAddress(self.used_at() + 4 + 8 * u64::from(self.size))).unwrap()
    }

    pub(super) fn set_available_flags(&self, flags: u16) {
        self.mem.write_obj(flags, GuestAddress(self.available_at())).unwrap();
    }
}

/// A tap that is a socket, its other end, and what goes with a device.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) tap: Tap,
    pub(super) peer: UnixDatagram,
    pub(super) counters: Arc<NetCounters>,
    pub(super) interrupt: Interrupt,
    pub(super) limiter: RateLimiter,
}

impl Host {
    pub(super) fn new() -> Self {
        let (tap, peer) = UnixDatagram::pair().unwrap();
        for socket in [&tap, &peer] {
            socket.set_nonblocking(true).unwrap();
        }
        Self {
            tap: Tap::from_socket(tap.into()),
            peer,
            counters: Arc::default(),
            interrupt: Interrupt::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            limiter: RateLimiter::new(RateLimit::default(), 0).unwrap(),
        }
    }

    fn throttle(&self) -> Throttle {
        Throttle::new(self.limiter.clone()).unwrap()
    }

    pub(super) fn receiver<'m>(&self, driver: &Driver<'m>, mergeable: bool, event_idx: bool) -> Receiver<'m> {
        let ring = Ring::new(driver.queue(), event_idx);
        let (interrupt, counters) = (self.interrupt.clone(), self.counters.clone());
        Receiver::new(driver.mem, ring, mergeable, interrupt, self.throttle(), counters)
    }

    pub(super) fn transmitter<'m>(&self, driver: &Driver<'m>, event_idx: bool) -> Transmitter<'m> {
        let ring = Ring::new(driver.queue(), event_idx);
        let (interrupt, counters) = (self.interrupt.clone(), self.counters.clone());
        Transmitter::new(driver.mem, ring, interrupt, self.throttle(), counters)
    }

    /// Has a frame, with a header of sevens, for the guest. False: too many wait already.
    pub(super) fn send(&self, frame: &[u8]) -> bool {
        self.peer.send(&[&[7; HEADER], frame].concat()).is_ok()
    }

    /// The frames that the guest sent, with their headers.
    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 0x2_0000];
        while let Ok(len) = self.peer.recv(&mut buffer) {
            frames.push(buffer[..len].to_vec());
        }
        frames
    }

    /// Whether the device has interrupted since this was last asked.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupt.irqfd().read().is_ok()
    }
}

/// What the guest finds of a frame: the header with the number of buffers, and the frame.
pub(super) fn received(frame: &[u8], buffers: u16) -> Vec<u8> {
    [&[7; HEADER - 2][..], &buffers.to_le_bytes(), frame].concat()
}
