//! Network interfaces (virtio 1.2, section 5.1).

use super::Machine;
use crate::{
    device::{NET, WRITE},
    mem::{self, SCRATCH},
};

const HEADER_LEN: u64 = 12;
const ROUNDS: u32 = 1500;
/// Of a descriptor.
const MAX_LEN: u64 = 0x1_2000;

/// Frames that are too short, too long, and whose offloads are absurd; commands of all kinds; odd buffers to receive.
pub(super) fn attack(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.of(NET) {
        device.start();
        for round in 0..ROUNDS {
            if round % 100 == 0 {
                device.start();
            }
            let index = random.below(device.queues().into()) as u32;
            let mut queue = device.queue(index);
            queue.next = mem::read(queue.driver + 2);
            let used = queue.used();
            let at = SCRATCH + random.below(64) * 8;
            // Flags, kind of segmentation, header length, segment size, start and offset of the checksum, buffers.
            mem::write(
                at,
                [random.below(8) as u8, random.pick(&[0, 1, 3, 4, 5, 0x80, 0x81, random.next() as u8])],
            );
            (1..6).for_each(|field| mem::write(at + field * 2, random.value() as u16));
            // A frame for somebody, of some protocol.
            (0..16).for_each(|word| mem::write(at + HEADER_LEN + word * 8, random.next()));
            mem::write(at + HEADER_LEN + 12, random.pick(&[0x0008_u16, 0xdd86, 0x0608, 0x0081]));
            let len =
                random.pick(&[0, 1, 11, 12, 13, 25, 26, 60, 1526, 65_550, 65_562, random.below(MAX_LEN)])
                    as u32;
            // Queues with an odd number are the device's to read, unless it is told to write.
            let direction = if random.below(8) > 0 && index % 2 == 1 { 0 } else { WRITE };
            let cut = random.below(u64::from(len) + 1) as u32;
            let head = random.below(u64::from(queue.size / 4)) as u16 * 4;
            queue.chain(
                head,
                &[(at, cut, direction), (at + u64::from(cut), len - cut, direction), (SCRATCH, 1, WRITE)],
            );
            queue.offer(head);
            queue.notify();
            if round % 8 == 0 {
                queue.settle(used);
            }
        }
    }
}
