//! A driver's side of a queue, in plain memory.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A descriptor: address, length, flags.
pub(super) type Chain = (u64, u32, u16);

pub(super) const MEM_LEN: usize = 0x20_0000;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x3000;
const USED: u64 = 0x4000;
/// 32 headers of 16 bytes and more, 32 status bytes, and 32 areas of data.
pub(super) const HEADER: u64 = 0x1_0000;
pub(super) const STATUS: u64 = 0x1_1000;
pub(super) const DATA: u64 = 0x2_0000;
pub(super) const DATA_LEN: u64 = 0x8000;
pub(super) const WRITE: u16 = 2;
/// A status that no device gives.
pub(super) const NONE: u8 = 0xee;
const SIZE: u16 = 256;

pub(super) struct Driver {
    pub(super) mem: Arc<GuestMemoryMmap>,
    /// All addresses are counted from here.
    base: u64,
    next_descriptor: u16,
    avail: u16,
    /// What of the available ring the device has seen, and of the used ring the driver.
    seen: u16,
    used: u16,
}

impl Driver {
    pub(super) fn new() -> Self {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEM_LEN)]).unwrap();
        mem.write_slice(&[NONE; 32], GuestAddress(STATUS)).unwrap();
        Self { mem: Arc::new(mem), base: 0, next_descriptor: 0, avail: 0, seen: 0, used: 0 }
    }

    /// The driver of the `index`th queue, in the memory of the first one's.
    pub(super) fn beside(first: &Self, index: u64) -> Self {
        Self {
            mem: first.mem.clone(),
            base: index * 0x4_0000,
            next_descriptor: 0,
            avail: 0,
            seen: 0,
            used: 0,
        }
    }

    fn at(&self, address: u64) -> GuestAddress {
        GuestAddress(self.base.wrapping_add(address))
    }

    /// The device's side, from where it was.
    pub(super) fn queue(&self) -> Queue {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.try_set_desc_table_address(self.at(DESCRIPTORS)).unwrap();
        queue.try_set_avail_ring_address(self.at(AVAIL)).unwrap();
        queue.try_set_used_ring_address(self.at(USED)).unwrap();
        queue.set_next_avail(self.seen);
        queue.set_next_used(self.used);
        queue.set_ready(true);
        assert!(queue.is_valid(&*self.mem));
        queue
    }

    /// The device has seen all up to here.
    pub(super) fn forget_up_to(&mut self, next_avail: u16) {
        self.seen = next_avail;
    }

    /// Makes a chain available; returns its head.
    pub(super) fn add(&mut self, chain: &[Chain]) -> u16 {
        let head = self.next_descriptor;
        for (index, (address, len, flags)) in chain.iter().enumerate() {
            let own = self.next_descriptor;
            self.next_descriptor = (own + 1) % SIZE;
            let chained = u16::from(index + 1 < chain.len());
            let at = self.at(DESCRIPTORS + 16 * u64::from(own));
            let mut bytes = self.at(*address).0.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend((flags | chained).to_le_bytes());
            bytes.extend(self.next_descriptor.to_le_bytes());
            self.mem.write_slice(&bytes, at).unwrap();
        }
        let entry = AVAIL + 4 + 2 * u64::from(self.avail % SIZE);
        self.mem.write_obj(head, self.at(entry)).unwrap();
        self.avail = self.avail.wrapping_add(1);
        self.mem.store(self.avail, self.at(AVAIL + 2), std::sync::atomic::Ordering::Release).unwrap();
        head
    }

    /// What the device has returned since the last time: heads, and lengths written.
    pub(super) fn take_used(&mut self) -> Vec<(u16, u32)> {
        let end: u16 = self.mem.load(self.at(USED + 2), std::sync::atomic::Ordering::Acquire).unwrap();
        let mut all = Vec::new();
        while self.used != end {
            let at = USED + 4 + 8 * u64::from(self.used % SIZE);
            let head: u32 = self.mem.read_obj(self.at(at)).unwrap();
            let written = self.mem.read_obj(self.at(at + 4)).unwrap();
            all.push((u16::try_from(head).unwrap(), written));
            self.used = self.used.wrapping_add(1);
        }
        all
    }

    /// Writes the `index`th header.
    pub(super) fn put_header(&self, index: u64, kind: u32, sector: u64) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 4]);
        bytes.extend(sector.to_le_bytes());
        self.put(HEADER + 16 * index, &bytes);
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.mem.write_slice(bytes, self.at(at)).unwrap();
    }

    pub(super) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read_slice(&mut bytes, self.at(at)).unwrap();
        bytes
    }

    /// The `index`th status.
    pub(super) fn status(&self, index: u64) -> u32 {
        self.bytes(STATUS + index, 1)[0].into()
    }
}
