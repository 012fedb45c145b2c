//! The few model-specific registers that firmware would have set.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

const MISC_ENABLE: u32 = 0x1a0;
/// Fast string operations are on; precise event sampling and branch trace storage are not there.
const MISC_ENABLE_VALUE: u64 = 1 | 1 << 11 | 1 << 12;
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// Memory type ranges are on, and all is write-back.
const MTRR_DEFAULT_TYPE_VALUE: u64 = 1 << 11 | 6;

/// Sets them. KVM wants to know the vCPU's CPUID before.
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
