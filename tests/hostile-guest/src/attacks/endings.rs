//! What a VM does not survive. Its VMM does, and says so.

use super::Machine;
use crate::{cpu, device::MMIO_BASE, mem};

const APIC_COMMAND: u64 = 0xfee0_0300;
/// To this CPU: INIT, asserted.
const INIT_SELF: u32 = 0x0004_4500;

/// A fault in the handler of a fault in the handler of a fault.
pub(super) fn triple_fault(_: &Machine) {
    cpu::triple_fault()
}

/// Runs a device's registers as a program.
pub(super) fn execute_device(_: &Machine) {
    cpu::jump(MMIO_BASE)
}

/// Starts the CPU anew, where a firmware would be.
pub(super) fn init_self(_: &Machine) {
    mem::write_register(APIC_COMMAND + 0x10, 4, 0);
    mem::write_register(APIC_COMMAND, 4, INIT_SELF.into());
}
