//! Notifications without end.

use super::Machine;
use crate::device::QUEUE_NOTIFY;

const COUNT: u32 = 1000;

/// Many notifications of queues that are there and of others, of devices that run and do not.
pub(super) fn storm(machine: &Machine) {
    for device in machine.devices.iter() {
        for running in [false, true] {
            if running {
                device.start();
            }
            let queues = device.queues();
            for count in 0..COUNT {
                device.write(QUEUE_NOTIFY, count % (queues + 1));
            }
            for _ in 0..COUNT / 8 {
                device.write(QUEUE_NOTIFY, machine.random.value() as u32);
            }
        }
    }
}

/// Never ends.
pub(super) fn forever(machine: &Machine) {
    machine.devices.iter().for_each(|device| _ = device.start());
    loop {
        for device in machine.devices.iter() {
            (0..8).for_each(|queue| device.write(QUEUE_NOTIFY, queue));
        }
    }
}
