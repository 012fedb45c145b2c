//! Balloons (virtio 1.2, section 5.5).

use super::Machine;
use crate::{
    device::{BALLOON, WRITE},
    mem::{self, SCRATCH},
};

const ROUNDS: u32 = 400;
const PAGE_NUMBERS: u64 = 256;

/// Pages that are given away twice, that do not exist, and statistics that are none.
pub(super) fn attack(machine: &Machine) {
    let memory = machine.memory;
    let random = &machine.random;
    for device in machine.devices.of(BALLOON) {
        for round in 0..ROUNDS {
            if round % 50 == 0 {
                device.start();
            }
            let index = random.below(device.queues().into()) as u32;
            let mut queue = device.queue(index);
            queue.next = mem::read(queue.driver + 2);
            let used = queue.used();
            for entry in 0..PAGE_NUMBERS {
                // This program itself is where no number points to.
                let inside = (SCRATCH >> 12) + 64 + random.below(1024);
                let outside =
                    [memory.low_end >> 12, 0xd_0000, 0xf_fffe, 0xffff_ffff, 0x8000_0000, 0x1000_0000];
                let page = if random.below(4) == 0 { random.pick(&outside) } else { inside };
                mem::write(SCRATCH + entry * 4, page as u32);
            }
            let len = random.pick(&[0, 1, 3, 4, 5, 10, 64, 1024, 1023, 0x1_0000]);
            // Free pages are reported as buffers to write to.
            let free = SCRATCH + random.below(1 << 20);
            match random.below(4) {
                0 => queue.chain(0, &[(free, random.below(1 << 20) as u32, WRITE), (free + 1, 4096, WRITE)]),
                1 => queue.chain(0, &[(memory.low_end - 4096, 8192, WRITE)]),
                _ => queue.chain(0, &[(SCRATCH + random.below(4), len, 0)]),
            }
            queue.offer(0);
            queue.notify();
            queue.settle(used);
        }
    }
}
