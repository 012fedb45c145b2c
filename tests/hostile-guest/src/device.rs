//! virtio devices over MMIO: their registers, and as much of a driver as attacks need (virtio 1.2, sections 2.7 and 4.2).

use crate::{
    cpu,
    mem::{self, RING_STEP, RINGS},
};

/// First device.
pub(crate) const MMIO_BASE: u64 = 0xd000_0000;
/// Registers of one device.
pub(crate) const MMIO_SIZE: u64 = 0x1000;
const MAX_DEVICES: usize = 32;
const MAX_QUEUES: u32 = 16;
/// Most descriptors that a queue gets here.
const MAX_QUEUE_SIZE: u32 = 256;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// Cycles after which something that should have happened has not.
const PATIENCE: u64 = 60_000_000_000;
/// Cycles in which something happens, if it ever does.
const MOMENT: u64 = 30_000_000;

pub(crate) const DEVICE_FEATURES: u64 = 0x10;
pub(crate) const DEVICE_FEATURES_SELECT: u64 = 0x14;
pub(crate) const DRIVER_FEATURES: u64 = 0x20;
pub(crate) const DRIVER_FEATURES_SELECT: u64 = 0x24;
pub(crate) const QUEUE_SELECT: u64 = 0x30;
pub(crate) const QUEUE_SIZE_MAX: u64 = 0x34;
pub(crate) const QUEUE_SIZE: u64 = 0x38;
pub(crate) const QUEUE_READY: u64 = 0x44;
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
pub(crate) const INTERRUPT_ACK: u64 = 0x64;
pub(crate) const STATUS: u64 = 0x70;
pub(crate) const QUEUE_DESCRIPTORS: u64 = 0x80;
pub(crate) const QUEUE_DRIVER: u64 = 0x90;
pub(crate) const QUEUE_DEVICE: u64 = 0xa0;
pub(crate) const CONFIG: u64 = 0x100;

pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
pub(crate) const FAILED: u32 = 128;

pub(crate) const NET: u32 = 1;
pub(crate) const BLOCK: u32 = 2;
pub(crate) const RNG: u32 = 4;
pub(crate) const BALLOON: u32 = 5;
pub(crate) const VSOCK: u32 = 19;

/// Descriptor flags.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    /// Address of its registers.
    pub(crate) base: u64,
    /// What it is (virtio 1.2, section 5).
    pub(crate) id: u32,
    number: u64,
}

/// All devices.
#[derive(Debug)]
pub(crate) struct Devices {
    list: [Option<Device>; MAX_DEVICES],
}

/// Looks at all places where there may be one.
pub(crate) fn find() -> Devices {
    let mut list = [None; MAX_DEVICES];
    for (number, place) in (0..).zip(&mut list) {
        let base = MMIO_BASE + number * MMIO_SIZE;
        let device = Device { base, id: 0, number };
        if device.read(0) == MAGIC {
            *place = Some(Device { id: device.read(8), ..device });
        }
    }
    Devices { list }
}

impl Devices {
    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Device> {
        self.list.into_iter().flatten()
    }

    /// Those of one kind.
    pub(crate) fn of(&self, id: u32) -> impl Iterator<Item = Device> {
        self.iter().filter(move |device| device.id == id)
    }
}

impl Device {
    /// Reads a register.
    pub(crate) fn read(self, register: u64) -> u32 {
        mem::read_register(self.base + register, 4) as u32
    }

    /// Writes a register.
    pub(crate) fn write(self, register: u64, value: u32) {
        mem::write_register(self.base + register, 4, value.into());
    }

    /// The device status.
    pub(crate) fn status(self) -> u32 {
        self.read(STATUS)
    }

    /// Resets the device; false if that did not work.
    pub(crate) fn reset(self) -> bool {
        self.write(STATUS, 0);
        self.status() == 0
    }

    /// All feature bits that it offers.
    pub(crate) fn offered(self) -> u64 {
        let word = |select| {
            self.write(DEVICE_FEATURES_SELECT, select);
            u64::from(self.read(DEVICE_FEATURES))
        };
        word(0) | word(1) << 32
    }

    /// From a reset up to FEATURES_OK, with all features; false if the device does not agree.
    pub(crate) fn negotiate(self) -> bool {
        self.negotiate_features(self.offered())
    }

    /// From a reset up to FEATURES_OK; false if the device does not agree.
    pub(crate) fn negotiate_features(self, features: u64) -> bool {
        self.reset();
        self.write(STATUS, ACKNOWLEDGE);
        self.write(STATUS, ACKNOWLEDGE | DRIVER);
        for select in [0, 1] {
            self.write(DRIVER_FEATURES_SELECT, select);
            self.write(DRIVER_FEATURES, (features >> (32 * select)) as u32);
        }
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// How many queues it has.
    pub(crate) fn queues(self) -> u32 {
        (0..MAX_QUEUES).take_while(|queue| self.queue_size_max(*queue) > 0).count() as u32
    }

    /// Most descriptors of a queue.
    pub(crate) fn queue_size_max(self, queue: u32) -> u32 {
        self.write(QUEUE_SELECT, queue);
        self.read(QUEUE_SIZE_MAX)
    }

    /// Writes a queue's registers.
    pub(crate) fn configure(self, queue: u32, size: u32, parts: [u64; 3]) {
        self.write(QUEUE_SELECT, queue);
        self.write(QUEUE_SIZE, size);
        for (register, address) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(parts) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
    }

    /// Where a queue has its rings, unless an attack says otherwise.
    pub(crate) fn queue(self, index: u32) -> Queue {
        let size = self.queue_size_max(index).min(MAX_QUEUE_SIZE);
        let at = RINGS + (self.number * 8 + u64::from(index)) % 128 * RING_STEP;
        Queue {
            device: self,
            index,
            size: size as u16,
            descriptors: at,
            driver: at + 0x8000,
            device_area: at + 0xa000,
            next: 0,
        }
    }

    /// Says that the driver is ready.
    pub(crate) fn go(self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// From a reset up to a running device with empty queues; false if something in between fails.
    pub(crate) fn start(self) -> bool {
        if !self.negotiate() {
            return false;
        }
        for index in 0..self.queues() {
            let queue = self.queue(index);
            mem::fill(queue.descriptors, 0, RING_STEP);
            self.configure(index, queue.size.into(), [queue.descriptors, queue.driver, queue.device_area]);
        }
        self.go();
        self.status() & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }
}

/// A queue, seen from its driver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    device: Device,
    pub(crate) index: u32,
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device_area: u64,
    /// The available index to come.
    pub(crate) next: u16,
}

/// A descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// Writes a descriptor to a table.
pub(crate) fn describe(table: u64, index: u64, descriptor: Descriptor) {
    let at = table + index * 16;
    mem::write(at, descriptor.address);
    mem::write(at + 8, descriptor.len);
    mem::write(at + 12, descriptor.flags);
    mem::write(at + 14, descriptor.next);
}

impl Queue {
    /// Writes the queue's descriptors from number `first` on as a chain.
    pub(crate) fn chain(&self, first: u16, parts: &[(u64, u32, u16)]) {
        for (index, (address, len, flags)) in (first..).zip(parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let flags = flags | if last { 0 } else { NEXT };
            describe(
                self.descriptors,
                index.into(),
                Descriptor { address: *address, len: *len, flags, next: index + 1 },
            );
        }
    }

    /// Makes a chain available, without telling the device.
    pub(crate) fn offer(&mut self, head: u16) {
        mem::write(self.driver + 4 + u64::from(self.next % self.size) * 2, head);
        self.next = self.next.wrapping_add(1);
        mem::write(self.driver + 2, self.next);
    }

    /// Tells the device.
    pub(crate) fn notify(&self) {
        self.device.write(QUEUE_NOTIFY, self.index);
    }

    /// The used index.
    pub(crate) fn used(&self) -> u16 {
        mem::read(self.device_area + 2)
    }

    /// Waits until the used index is `count`; false if it never is.
    pub(crate) fn wait_for(&self, count: u16) -> bool {
        let start = cpu::now();
        while self.used() != count {
            if cpu::now().wrapping_sub(start) > PATIENCE || self.device.status() & NEEDS_RESET != 0 {
                return false;
            }
            (0..1000).for_each(|_| core::hint::spin_loop());
        }
        true
    }

    /// Waits until the device has used something, has given up, or does nothing.
    pub(crate) fn settle(&self, used_before: u16) {
        let start = cpu::now();
        while self.used() == used_before && cpu::now().wrapping_sub(start) < MOMENT {
            if self.device.status() & NEEDS_RESET != 0 {
                return;
            }
            (0..1000).for_each(|_| core::hint::spin_loop());
        }
    }
}
