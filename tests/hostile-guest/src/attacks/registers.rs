//! The registers of devices: every size, every alignment, every order.

use super::Machine;
use crate::{
    device::{
        ACKNOWLEDGE, CONFIG, DRIVER, DRIVER_FEATURES, DRIVER_FEATURES_SELECT, DRIVER_OK, Device, FAILED,
        FEATURES_OK, INTERRUPT_ACK, INTERRUPT_STATUS, MMIO_SIZE, NEEDS_RESET, QUEUE_DESCRIPTORS,
        QUEUE_DEVICE, QUEUE_NOTIFY, QUEUE_SELECT, STATUS,
    },
    mem::{self, RING_STEP, RINGS},
    random::Random,
    serial::say,
};

const SIZES: [u8; 4] = [1, 2, 4, 8];
/// Places between resets.
const SPAN: u64 = 32;
const CONFIG_LEN: u64 = 0x80;

/// A value for a register. An address of a queue is not one of this program's, where a device would well write to if it
/// were told to.
fn value(random: &Random, offset: u64) -> u64 {
    let value = random.value();
    if !(QUEUE_DESCRIPTORS..QUEUE_DEVICE + 8).contains(&offset) {
        value
    } else if random.below(2) == 0 {
        value | 0x8000_0000
    } else {
        RINGS + value % (RING_STEP - 0x8000)
    }
}

/// Brings a device into one of its states.
fn enter(device: Device, stage: u32) {
    device.reset();
    match stage {
        0 => {}
        1 => device.write(STATUS, ACKNOWLEDGE),
        2 => {
            device.write(STATUS, ACKNOWLEDGE);
            device.write(STATUS, ACKNOWLEDGE | DRIVER);
        }
        3 => _ = device.negotiate(),
        4 => _ = device.start(),
        _ => {
            device.start();
            device.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
        }
    }
}

/// Reads and writes at every offset, in every state.
pub(super) fn sweep(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.iter() {
        for stage in 0..6 {
            for span in 0..(CONFIG + 0x20) / SPAN {
                enter(device, stage);
                for offset in span * SPAN..(span + 1) * SPAN {
                    for size in SIZES {
                        mem::read_register(device.base + offset, size);
                        mem::write_register(device.base + offset, size, value(random, offset));
                    }
                }
            }
        }
        enter(device, 4);
        for _ in 0..1000 {
            let (offset, size) = (random.below(MMIO_SIZE), random.pick(&SIZES));
            mem::read_register(device.base + offset, size);
            mem::write_register(device.base + offset, size, value(random, offset));
        }
    }
}

/// Writes the device status in every order, with settings in between.
pub(super) fn status(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.iter() {
        for before in 0..=255 {
            for after in [0, 1, 3, 7, 11, 15, 64, 128, 255, random.below(256) as u32] {
                device.write(STATUS, before);
                device.write(STATUS, after);
                let status = device.status();
                if after == 0 && status != 0 || status & DRIVER_OK != 0 && status & FEATURES_OK == 0 {
                    say!("FAILED: status {status:#x} after {before:#x} and {after:#x}");
                }
            }
        }
        for _ in 0..800 {
            match random.below(4) {
                0 => device.write(STATUS, random.value() as u32),
                // A way that leads further.
                1 => device.write(STATUS, device.status() & !NEEDS_RESET | 1 << random.below(4)),
                2 => {
                    let register = QUEUE_SELECT + random.below(30) * 4;
                    device.write(register, value(random, register) as u32);
                }
                _ => device.write(QUEUE_NOTIFY, random.value() as u32),
            }
            device.write(INTERRUPT_ACK, random.value() as u32);
            device.read(INTERRUPT_STATUS);
        }
    }
}

/// Wants features that nobody has.
pub(super) fn features(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.iter() {
        let offered = device.offered();
        for _ in 0..300 {
            let wanted = random.value();
            let agreed = device.negotiate_features(wanted);
            if agreed && wanted & !offered != 0 {
                say!("FAILED: device {} agreed to {wanted:#x}", device.id);
            }
            // After the agreement nothing changes any more.
            device.write(DRIVER_FEATURES_SELECT, random.value() as u32);
            device.write(DRIVER_FEATURES, random.value() as u32);
            device.go();
        }
        // Any subset of what is there is a driver's right.
        for _ in 0..20 {
            if device.negotiate_features(offered & random.next() | 1 << 32) {
                for index in 0..device.queues() {
                    let queue = device.queue(index);
                    device.configure(
                        index,
                        queue.size.into(),
                        [queue.descriptors, queue.driver, queue.device_area],
                    );
                }
                device.go();
                (0..device.queues()).for_each(|queue| device.write(QUEUE_NOTIFY, queue));
            }
        }
    }
}

/// Writes the configuration of devices, and reads beyond its end.
pub(super) fn config(machine: &Machine) {
    let random = &machine.random;
    for device in machine.devices.iter() {
        for stage in 0..6 {
            enter(device, stage);
            for offset in CONFIG..CONFIG + CONFIG_LEN {
                for size in SIZES {
                    mem::write_register(device.base + offset, size, random.value());
                    mem::read_register(device.base + offset, size);
                }
            }
            for offset in [0x1ff, 0x7fc, 0xffc, 0xff8, 0xfff] {
                for size in SIZES {
                    mem::write_register(device.base + offset, size, random.value());
                    mem::read_register(device.base + offset, size);
                }
            }
        }
    }
}
