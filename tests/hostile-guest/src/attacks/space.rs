//! Where there is neither memory nor a device.

use super::Machine;
use crate::mem::{self, MAPPED};

const GAP_END: u64 = 1 << 32;
const STEP: u64 = 256 << 10;
/// Interrupt controllers, which are the kernel's: in them a write may well start the CPU anew.
const CONTROLLERS: core::ops::Range<u64> = 0xfec0_0000..0xfef0_0000;
const ROUNDS: u32 = 4000;

/// Reads and writes everywhere outside of memory.
pub(super) fn sweep(machine: &Machine) {
    let (low_end, high_end) = (machine.memory.low_end, machine.memory.high_end);
    let random = &machine.random;
    // Up to where the next memory is, if there is any.
    let first = if low_end < 3 << 30 { 3 << 30 } else { low_end };
    for at in (first..GAP_END).step_by(STEP as usize) {
        touch(at + random.below(STEP), random.pick(&[1, 2, 4, 8]), random.next());
    }
    for _ in 0..ROUNDS {
        let limit = MAPPED - 8;
        let at = low_end + random.below(limit - low_end);
        if at >= GAP_END && at < high_end {
            continue;
        }
        touch(at, random.pick(&[1, 2, 4, 8]), random.value());
    }
    // From one device to the next, from the last one to nothing, and into the controllers, to look only.
    for at in (0xd000_0ff0..0xd000_1000).chain(0xd001_fff0..0xd002_0000) {
        touch(at, 8, random.next());
    }
    for at in (0xfec0_0000..0xfec0_0400).chain(0xfee0_0000..0xfee0_0400).step_by(4) {
        mem::read_register(at, 4);
    }
}

fn touch(at: u64, size: u8, value: u64) {
    mem::read_register(at, size);
    if !CONTROLLERS.contains(&at) && !CONTROLLERS.contains(&(at + 8)) {
        mem::write_register(at, size, value);
    }
}
