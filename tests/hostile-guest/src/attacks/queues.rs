//! Queues that are where no queue can be.

use super::Machine;
use crate::{
    device::{
        ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, MMIO_BASE, QUEUE_READY, QUEUE_SELECT, QUEUE_SIZE, STATUS,
    },
    mem::{self, RINGS, SCRATCH},
};

const SIZES: [u32; 16] =
    [0, 1, 2, 3, 64, 128, 255, 256, 257, 0x400, 0x7fff, 0x8000, 0xffff, 0x1_0000, 0x1_0100, u32::MAX];
const ROUNDS: u32 = 120;

/// Configures queues with sizes and places of all kinds, and starts devices with them.
pub(super) fn attack(machine: &Machine) {
    let memory = machine.memory;
    let random = &machine.random;
    for device in machine.devices.iter() {
        let queues = device.queues();
        for round in 0..ROUNDS {
            device.negotiate();
            for index in 0..queues {
                let valid = device.queue(index);
                let places = [
                    valid.descriptors,
                    valid.driver,
                    valid.device_area,
                    // One over the other.
                    RINGS,
                    RINGS,
                    SCRATCH,
                    // Misaligned.
                    SCRATCH + random.below(16),
                    // Across an end of memory, or near it.
                    memory.low_end - 16 * (1 + random.below(600)),
                    memory.low_end - 16,
                    memory.low_end,
                    memory.high_end.max(memory.low_end) - 16 * random.below(600),
                    // Across the end of the gap.
                    (1 << 32) - 16 * random.below(600),
                    MMIO_BASE,
                    0xfee0_0000,
                    // Across the end of the address space.
                    u64::MAX - random.below(0x2000),
                    !0xf,
                    1 << 63,
                    random.next(),
                ];
                // Half of the rounds, only one thing is wrong.
                let mut parts = [valid.descriptors, valid.driver, valid.device_area];
                let mut size = u32::from(valid.size);
                if round % 2 == 0 {
                    match random.below(4) {
                        3 => size = random.pick(&SIZES),
                        part => parts[part as usize] = random.pick(&places),
                    }
                } else {
                    parts = parts.map(|_| random.pick(&places));
                    size = random.pick(&SIZES).max(random.below(2) as u32 * size);
                }
                for address in parts {
                    // Something to be found in rings, where they are in memory that is used for nothing else.
                    if (RINGS..SCRATCH + 0x1_0000).contains(&address) {
                        mem::write(address & !7, random.next());
                    }
                }
                device.configure(index, size, parts);
            }
            if random.below(4) == 0 {
                device.write(QUEUE_SELECT, random.value() as u32);
                device.write(QUEUE_SIZE, random.value() as u32);
                device.write(QUEUE_READY, random.value() as u32);
            }
            device.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
            // Too late for another place.
            device.configure(0, random.value() as u32, [random.next(), random.next(), random.next()]);
            (0..queues).for_each(|index| device.queue(index).notify());
            device.status();
        }
    }
}
