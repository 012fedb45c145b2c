//! Resets while a device works.

use super::Machine;
use crate::{
    device::{FAILED, NEEDS_RESET, STATUS, WRITE},
    mem::SCRATCH,
};

const ROUNDS: u32 = 24;

/// Starts devices, gives them work, and resets them at once.
pub(super) fn storm(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.iter() {
        for round in 0..ROUNDS {
            device.start();
            for index in 0..device.queues() {
                let mut queue = device.queue(index);
                for request in 0..queue.size / 4 {
                    let (head, at) = (request * 3, SCRATCH + u64::from(request) * 8192);
                    queue.chain(head, &[(at, 44, 0), (at + 512, 4096, WRITE), (at + 5000, 1, WRITE)]);
                    queue.offer(head);
                }
                queue.notify();
            }
            match round % 4 {
                0 => {}
                1 => device.write(STATUS, device.status() | FAILED),
                2 => device.write(STATUS, NEEDS_RESET),
                _ => (0..random.below(20_000)).for_each(|_| core::hint::spin_loop()),
            }
            device.reset();
            // Once more, with nothing to reset.
            device.reset();
        }
    }
}
