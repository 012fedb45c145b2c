//! Model-specific registers: the few that firmware would have set, and those that no guest may touch.
//!
//! KVM answers an MSR that it does not know with a general protection fault, as hardware does, and keeps those that belong
//! to features that CPUID does not show from the guest in most cases. What it would still emulate, and no guest here has a
//! use for, is denied as well: less of KVM is within the guest's reach, and performance counters stay what CPUID says.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};

const MISC_ENABLE: u32 = 0x1a0;
/// Fast string operations are on; precise event sampling and branch trace storage are not there.
const MISC_ENABLE_VALUE: u64 = 1 | 1 << 11 | 1 << 12;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Memory type ranges are on, and all is write-back.
const MTRR_DEFAULT_TYPE_VALUE: u64 = 1 << 11 | 6;

/// Registers that can be neither read nor written: (first, how many).
const DENIED: [(u32, u32); 5] = [
    (0xc1, 8),          // Intel's performance counters, and
    (0x186, 8),         // what they count.
    (0x4000_0000, 512), // What Hyper-V and Xen offer to their guests.
    (0xc001_0000, 8),   // AMD's first performance counters.
    (0xc001_0200, 12),  // AMD's later ones.
];
/// A clear bit denies; enough for the longest range.
const DENY_ALL: [u8; 64] = [0; 64];

/// Denies the guest what it may not touch.
///
/// # Errors
/// When KVM refuses: it is older than Linux 5.10.
pub fn deny(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    let ranges = DENIED.map(|(base, msr_count)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &DENY_ALL,
    });
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
}

/// Sets the ones that firmware would have. KVM wants to know the vCPU's CPUID before.
///
/// # Errors
/// When KVM refuses one.
pub fn set_msrs(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let entries = [entry(MISC_ENABLE, MISC_ENABLE_VALUE), entry(MTRR_DEFAULT_TYPE, MTRR_DEFAULT_TYPE_VALUE)];
    let msrs = Msrs::from_entries(&entries).map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
    // KVM stops at the first that it refuses and says how many it took.
    if vcpu.set_msrs(&msrs)? == entries.len() { Ok(()) } else { Err(kvm_ioctls::Error::new(libc::EINVAL)) }
}

/// Switches on all register sets that XSAVE may save. A kernel that enables XSAVE chooses its own; but as KVM computes the
/// size that CPUID reports from what is on, the size is right from the start, even under an emulator that does not tell
/// KVM of the kernel's choice.
///
/// # Errors
/// When KVM refuses.
pub fn set_xcr0(vcpu: &VcpuFd, value: u64) -> Result<(), kvm_ioctls::Error> {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = kvm_xcr { xcr: 0, value, ..Default::default() };
    vcpu.set_xcrs(&xcrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_needs_is_not_denied() {
        let denied = |msr| DENIED.iter().any(|(first, count)| (*first..first + count).contains(&msr));
        // TSC, APIC base, SYSENTER, PAT, MTRRs, machine checks, TSC deadline, EFER, STAR, FS base, KVM's own.
        for msr in [
            0x10,
            0x1b,
            0x174,
            0x179,
            0x17a,
            0x1a0,
            0x277,
            0x2ff,
            0x400,
            0x6e0,
            0xc000_0080,
            0xc000_0081,
            0xc000_0100,
            0xc001_0015,
            0x4b56_4d00,
            0x4b56_4d07,
            MISC_ENABLE,
            MTRR_DEFAULT_TYPE,
        ] {
            assert!(!denied(msr), "{msr:#x}");
        }
        assert!([0xc1, 0x186, 0x4000_0000, 0xc001_0003, 0xc001_0201].into_iter().all(denied));
    }

    #[test]
    fn the_bitmap_covers_every_range() {
        assert!(DENIED.iter().all(|(_, count)| count.div_ceil(8) as usize <= DENY_ALL.len()));
    }
}
