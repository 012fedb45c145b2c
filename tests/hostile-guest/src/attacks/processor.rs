//! CPUID and model-specific registers.

use super::Machine;
use crate::{cpu, device::MMIO_BASE, mem::SCRATCH};

/// Ranges that processors and hypervisors have leaves in.
const LEAVES: [u32; 6] = [0, 0x4000_0000, 0x4000_0100, 0x8000_0000, 0x8086_0000, 0xffff_ffc0];

/// Asks for all leaves, and some others.
pub(super) fn cpuid(machine: &Machine) {
    for start in LEAVES {
        for leaf in start..start.saturating_add(0x40) {
            (0..4).for_each(|subleaf| _ = cpu::cpuid(leaf, subleaf));
        }
    }
    for _ in 0..500 {
        cpu::cpuid(machine.random.next() as u32, machine.random.next() as u32);
    }
}

/// Ranges of registers: the old ones, the local APIC's, Hyper-V's, KVM's, AMD's.
const REGISTERS: [(u32, u32); 8] = [
    (0, 0x500),
    (0x600, 0xe00),
    (0x4000_0000, 0x4000_0120),
    (0x4b56_4d00, 0x4b56_4d10),
    (0xc000_0080, 0xc000_0110),
    (0xc000_0200, 0xc000_0410),
    (0xc001_0000, 0xc001_0300),
    (0xffff_fff0, 0xffff_ffff),
];

/// The local APIC's command, by which a CPU starts itself anew (that is an attack of its own), and its time base.
const SPARED: [u32; 3] = [0x830, 0x10, 0x3b];

/// Reads and writes registers. What they are set to is harmless for this program, wherever they point the hypervisor to.
pub(super) fn msrs(machine: &Machine) {
    for (start, end) in REGISTERS {
        for register in (start..end).filter(|register| !SPARED.contains(register)) {
            let before = cpu::read_msr(register);
            for value in
                [SCRATCH | 1, MMIO_BASE | 1, u64::MAX, 1 << 63, machine.memory.low_end | 1, 0, before]
            {
                cpu::write_msr(register, value);
            }
        }
    }
}
