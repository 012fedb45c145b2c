//! Whether devices work after an attack as if there had been none.

use crate::{
    attacks::{Machine, block, vsock},
    device::{BLOCK, Device, RNG, VSOCK, WRITE},
    mem::{self, SCRATCH},
};

const RANDOM_LEN: u32 = 64;

/// Resets all devices, starts them, and uses them. Says what does not work.
pub(crate) fn check(machine: &Machine) -> Result<(), &'static str> {
    for device in machine.devices.iter() {
        if !device.reset() {
            return Err("FAILED: a device can't be reset");
        }
    }
    for device in machine.devices.iter() {
        if !device.start() {
            return Err("FAILED: a device can't be started");
        }
        match device.id {
            RNG => gives_numbers(device)?,
            BLOCK => block::reads(device)?,
            VSOCK => vsock::answers(device)?,
            _ => {}
        }
        if !device.reset() {
            return Err("FAILED: a used device can't be reset");
        }
    }
    Ok(())
}

fn gives_numbers(device: Device) -> Result<(), &'static str> {
    let mut queue = device.queue(0);
    mem::fill(SCRATCH, 0, RANDOM_LEN.into());
    queue.chain(0, &[(SCRATCH, RANDOM_LEN, WRITE)]);
    queue.offer(0);
    queue.notify();
    if !queue.wait_for(1) {
        return Err("FAILED: no random numbers come");
    }
    let numbers: [u64; 8] = mem::read(SCRATCH);
    if numbers.contains(&0) { Err("FAILED: the random numbers are zeros") } else { Ok(()) }
}
