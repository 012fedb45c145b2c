//! A guest in plain memory whose driver does what the input says.

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::input::Input;
use crate::virtio::{Activation, ActiveQueue, Interrupt};

/// Descriptor flags (virtio 1.2, section 2.7.5).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Two regions that touch: contiguous for the guest, not for the host.
const REGION_LEN: u16 = 0x8000;
/// Descriptors of a queue, and of the table for indirect ones.
const SIZE: u16 = 16;
/// Where the first queue's descriptors are; the other queues follow, and after them a table for indirect descriptors.
const RINGS: u16 = 0;
const RING_STEP: u16 = 0x400;
const DRIVER_AREA: u16 = 0x200;
const DEVICE_AREA: u16 = 0x300;

/// Kinds of steps, as in the input.
const DESCRIBE: u8 = 0;
const STORE: u8 = 1;
const OFFER: u8 = 2;
const JUMP: u8 = 3;
const SERVE: u8 = 4;
const HOST: u8 = 5;
const STEPS: u8 = 6;

/// Where the `number`th buffer that nothing else uses begins.
pub(crate) fn buffer(number: u16) -> u16 {
    0x2000 + number * 0x1000
}

/// What comes after the driver's doings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The device serves its queues.
    Serve,
    /// The host does something.
    Host(u8),
}

/// The guest.
#[derive(Debug)]
pub(crate) struct Guest<'i> {
    input: Input<'i>,
    pub(crate) mem: GuestMemoryMmap,
    queues: u16,
    features: u64,
    interrupt: Interrupt,
}

impl<'i> Guest<'i> {
    /// A guest with so many queues. `None` when the host has no memory or descriptors left.
    pub(crate) fn new(data: &'i [u8], queues: u16) -> Option<Self> {
        let region = |start: u16| (GuestAddress(start.into()), usize::from(REGION_LEN));
        let mem = GuestMemoryMmap::from_ranges(&[region(0), region(REGION_LEN)]).ok()?;
        let interrupt = Interrupt::new(EventFd::new(EFD_NONBLOCK).ok()?);
        let mut input = Input::new(data);
        // The bits that matter to queues are from 28 on.
        let features = u64::from(input.u8()) << 28;
        Some(Self { input, mem, queues, features, interrupt })
    }

    /// The features that the driver agreed to; of them, those of queues are from bit 28 on.
    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// What a device gets of a driver that is ready.
    pub(crate) fn activation(&self) -> Option<Activation> {
        let mut queues = Vec::new();
        for number in 0..self.queues {
            let at = RINGS + number * RING_STEP;
            let mut queue = Queue::new(SIZE).ok()?;
            let address = |offset: u16| Some(u32::from(at + offset));
            queue.set_desc_table_address(address(0), Some(0));
            queue.set_avail_ring_address(address(DRIVER_AREA), Some(0));
            queue.set_used_ring_address(address(DEVICE_AREA), Some(0));
            queue.set_ready(true);
            queues.push(Some(ActiveQueue { queue, kick: EventFd::new(EFD_NONBLOCK).ok()? }));
        }
        let (mem, interrupt) = (self.mem.clone(), self.interrupt.clone());
        Some(Activation { mem, queues, interrupt, features: self.features })
    }

    /// Lets the driver go on until it is another's turn; `None` at the end of the input.
    pub(crate) fn next(&mut self) -> Option<Step> {
        while !self.input.is_empty() {
            match self.input.u8() % STEPS {
                DESCRIBE => {
                    // The last one is the table for indirect descriptors.
                    let table = RINGS + u16::from(self.input.u8()) % (self.queues + 1) * RING_STEP;
                    let at = table + u16::from(self.input.u8()) % SIZE * 16;
                    let (address, len) = (self.input.extended(), self.input.extended() & 0xffff_ffff);
                    self.store(at, &address.to_le_bytes());
                    self.store(at + 8, &len.to_le_bytes()[..4]);
                    let rest = self.input.bytes(3);
                    let [flags, next] = [0, 1].map(|index| rest.get(index).copied().unwrap_or(0));
                    self.store(at + 12, &[flags, 0, next, rest.get(2).copied().unwrap_or(0)]);
                }
                STORE => {
                    let (at, len) = (self.input.u16(), usize::from(self.input.u8()));
                    let bytes = self.input.bytes(len);
                    self.store(at, bytes);
                }
                OFFER => {
                    let driver_area = self.driver_area();
                    let head = self.input.u16();
                    let index =
                        self.mem.read_obj::<u16>(GuestAddress(u64::from(driver_area) + 2)).unwrap_or(0);
                    self.store(driver_area + 4 + index % SIZE * 2, &head.to_le_bytes());
                    self.store(driver_area + 2, &index.wrapping_add(1).to_le_bytes());
                }
                JUMP => {
                    let driver_area = self.driver_area();
                    let index = self.input.u16();
                    self.store(driver_area + 2, &index.to_le_bytes());
                }
                SERVE => return Some(Step::Serve),
                _ => return Some(Step::Host(self.input.u8())),
            }
        }
        None
    }

    fn driver_area(&mut self) -> u16 {
        RINGS + u16::from(self.input.u8()) % self.queues * RING_STEP + DRIVER_AREA
    }

    fn store(&self, at: u16, bytes: &[u8]) {
        // What lies beyond the end of memory is left out.
        let _ = self.mem.write(bytes, GuestAddress(at.into()));
    }

    /// How many chains the device has given back, if nobody has tampered with the rings.
    pub(crate) fn used(&self) -> usize {
        let used = |queue| {
            let at: u16 = RINGS + queue * RING_STEP + DEVICE_AREA + 2;
            usize::from(self.mem.read_obj::<u16>(GuestAddress(at.into())).unwrap_or(0))
        };
        (0..self.queues).map(used).sum()
    }
}

/// Input for a guest, as seeds are written.
#[derive(Debug)]
pub(crate) struct Script(Vec<u8>);

impl Script {
    /// A driver that agrees to EVENT_IDX and INDIRECT_DESC, or not.
    pub(crate) fn new(event_idx: bool) -> Self {
        Self(vec![if event_idx { 0b11 } else { 0 }])
    }

    /// A descriptor of a queue, or of the table for indirect ones when there is no queue of that number.
    pub(crate) fn describe(
        mut self,
        queue: u8,
        index: u8,
        address: u32,
        len: u32,
        flags: u16,
        next: u8,
    ) -> Self {
        self.0.extend([DESCRIBE, queue, index]);
        self.0.extend(&address.to_le_bytes()[..3]);
        self.0.extend(&len.to_le_bytes()[..3]);
        self.0.extend([flags.to_le_bytes()[0], next, 0]);
        self
    }

    /// Bytes in memory, at most 255.
    pub(crate) fn store(mut self, at: u16, bytes: &[u8]) -> Self {
        self.0.push(STORE);
        self.0.extend(at.to_le_bytes());
        self.0.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        self.0.extend(bytes);
        self
    }

    /// Makes a chain available.
    pub(crate) fn offer(mut self, queue: u8, head: u16) -> Self {
        self.0.extend([OFFER, queue]);
        self.0.extend(head.to_le_bytes());
        self
    }

    /// Sets the available index.
    pub(crate) fn jump(mut self, queue: u8, index: u16) -> Self {
        self.0.extend([JUMP, queue]);
        self.0.extend(index.to_le_bytes());
        self
    }

    /// Lets the device serve.
    pub(crate) fn serve(mut self) -> Self {
        self.0.push(SERVE);
        self
    }

    /// Lets the host do something.
    pub(crate) fn host(mut self, what: u8) -> Self {
        self.0.extend([HOST, what]);
        self
    }

    /// The input.
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}
