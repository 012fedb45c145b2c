//! The state in which the first CPU enters the kernel: 64-bit mode (Linux x86 boot protocol, 64-bit).
//!
//! Nothing is set that KVM sets anyway at a vCPU's creation, as the floating-point unit. The other CPUs wait for the
//! first one to start them, in the mode in which a CPU wakes up.

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;

use crate::{
    boot::{Entry, gdt},
    layout,
};

const CR0_PROTECTED: u64 = 1;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// The bit of RFLAGS that is always set; interrupts are off.
const RFLAGS: u64 = 2;
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_EXTERNAL: u32 = 7 << 8;

/// Makes the vCPU start at `entry`.
///
/// # Errors
/// When KVM refuses.
pub fn set_entry(vcpu: &VcpuFd, entry: Entry) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let gdt::Segments { code, data, task } = gdt::segments();
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = task;
    sregs.gdt.base = layout::GDT;
    sregs.gdt.limit = gdt::LEN - 1;
    sregs.cr0 |= CR0_PROTECTED | CR0_PAGING;
    sregs.cr3 = entry.page_tables;
    sregs.cr4 |= CR4_PHYSICAL_ADDRESS_EXTENSION;
    sregs.efer |= EFER_LONG_MODE | EFER_LONG_MODE_ACTIVE;
    vcpu.set_sregs(&sregs)?;
    let regs = kvm_regs {
        rip: entry.address,
        rsi: layout::BOOT_PARAMS,
        // Below the boot parameters, in case that the kernel pushes something before it has a stack.
        rsp: layout::BOOT_PARAMS - 0x10,
        rflags: RFLAGS,
        ..Default::default()
    };
    vcpu.set_regs(&regs)
}

/// Wires the first CPU's local interrupt pins as the MP table says: PIC and NMI.
///
/// # Errors
/// When KVM refuses.
pub fn wire_lapic(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut lapic = vcpu.get_lapic()?;
    for (register, value) in [(LVT_LINT0, DELIVER_EXTERNAL), (LVT_LINT1, DELIVER_NMI)] {
        for (byte, new) in lapic.regs[register..].iter_mut().zip(value.to_le_bytes()) {
            *byte = new.cast_signed();
        }
    }
    vcpu.set_lapic(&lapic)
}
