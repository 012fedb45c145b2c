//! The register file, with a device behind it that checks what it is given.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use virtio_queue::QueueT;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::{ActivateError, Activation, Interrupt, VirtioDevice},
    ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, MmioTransport,
};
use crate::fuzzing::input::Input;

const QUEUE_SIZES: [u16; 2] = [256, 16];
const FEATURES: u64 = 1 << 3 | 1 << 28 | 1 << 40;
const STATUS: u64 = 0x70;
/// Most bytes of an access.
const MAX_LEN: u8 = 8;

/// Ends of the device's life, counted.
#[derive(Debug, Default)]
struct Seen {
    activations: AtomicUsize,
    active: AtomicUsize,
}

/// A device that starts no thread.
#[derive(Debug)]
struct Checker(Arc<Seen>);

impl VirtioDevice for Checker {
    fn device_type(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        assert!(data.len() <= MAX_LEN.into() && offset <= u16::MAX.into());
        data.fill(0x5a);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        assert_eq!(self.0.active.swap(1, Ordering::Relaxed), 0, "it runs already");
        assert_eq!(activation.features & !(FEATURES | 1 << 32), 0, "features that were not offered");
        assert_eq!(activation.queues.len(), QUEUE_SIZES.len());
        for (active, max_size) in activation.queues.iter().zip(QUEUE_SIZES) {
            let Some(active) = active else { continue };
            assert!(active.queue.is_valid(&activation.mem) && active.queue.size() <= max_size);
        }
        self.0.activations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn reset(&mut self) {
        self.0.active.store(0, Ordering::Relaxed);
    }
}

/// Accesses registers. Achieves as much as there are activations, and one more if the device can be identified.
pub(crate) fn run(data: &[u8]) -> usize {
    let (Ok(mem), Ok(irq)) =
        (GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]), EventFd::new(EFD_NONBLOCK))
    else {
        return 0;
    };
    let seen = Arc::new(Seen::default());
    let device = Box::new(Checker(Arc::clone(&seen)));
    let Ok(mut transport) = MmioTransport::new(device, mem, Interrupt::new(irq)) else { return 0 };
    let mut input = Input::new(data);
    while !input.is_empty() {
        let (kind, offset) = (input.u8(), u64::from(input.u16()));
        let len = usize::from(kind >> 1 & (MAX_LEN - 1)) + 1;
        if kind & 1 == 0 {
            let mut bytes = [0; MAX_LEN as usize];
            transport.read(offset, &mut bytes[..len]);
        } else {
            let bytes = input.bytes(len);
            transport.write(offset, bytes);
        }
        check(&mut transport, &seen);
    }
    seen.activations.load(Ordering::Relaxed)
}

/// What holds at every moment.
fn check(transport: &mut MmioTransport, seen: &Seen) {
    let mut bytes = [0; 4];
    transport.read(STATUS, &mut bytes);
    let status = u32::from_le_bytes(bytes);
    let mut before = true;
    for step in [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK] {
        let done = status & step != 0;
        assert!(before || !done, "a step was left out: {status:#x}");
        before = done;
    }
    let active = seen.active.load(Ordering::Relaxed) == 1;
    assert!(!active || status & DRIVER_OK != 0, "a device runs without a driver: {status:#x}");
}

/// Drivers that start the device: in the usual way, twice, and with queues that are no good.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let write = |offset: u16, value: u32| [&[7][..], &offset.to_le_bytes(), &value.to_le_bytes()].concat();
    let read = |offset: u16| [&[6][..], &offset.to_le_bytes()].concat();
    let queue = |number, size, at| {
        let areas = [(0x80, at), (0x84, 0), (0x90, at + 0x1000), (0x94, 0), (0xa0, at + 0x2000), (0xa4, 0)];
        let mut bytes = [write(0x30, number), write(0x38, size)].concat();
        areas.iter().for_each(|(register, value)| bytes.extend(write(*register, *value)));
        bytes.extend(write(0x44, 1));
        bytes
    };
    let begin = [
        read(0),
        read(8),
        write(0x70, 1),
        write(0x70, 3),
        write(0x14, 1),
        read(0x10),
        write(0x24, 1),
        write(0x20, 1),
        write(0x70, 11),
    ]
    .concat();
    let go =
        [write(0x70, 15), write(0x50, 0), write(0x50, 1), read(0x60), write(0x64, 1), read(0x100)].concat();
    let whole = [begin.clone(), queue(0, 256, 0x1000), queue(1, 16, 0x8000), go.clone()].concat();
    let twice = [whole.clone(), write(0x70, 0), whole.clone()].concat();
    let then_bad =
        [whole.clone(), write(0x70, 0), begin, queue(0, 3, 0), queue(1, 256, 0xffff_0000), go].concat();
    vec![whole, twice, then_bad]
}
