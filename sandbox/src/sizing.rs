//! How large a VM is for what its containers may use, and what the host gives for it: every rule and limit of that is here.

use husk_vmm::config;

/// Most virtual CPUs of a VM.
pub const MAX_VCPUS: u8 = config::MAX_VCPUS;
/// Virtual CPUs of a VM whose containers have no limit.
pub const DEFAULT_VCPUS: u8 = 1;
/// Least memory of a VM, in MiB.
pub const MIN_MEM_SIZE_MIB: u32 = config::MIN_MEM_SIZE_MIB;
/// Memory of a VM whose containers have no limit, in MiB.
pub const DEFAULT_MEM_SIZE_MIB: u32 = 512;
/// What the guest itself needs beside containers with a memory limit, in MiB: kernel, agent, page tables, page cache.
pub const GUEST_OVERHEAD_MIB: u64 = 96;
/// The period of a CPU limit in a cgroup, in microseconds, where none is given.
pub const CPU_PERIOD_US: u64 = 100_000;
/// cgroup shares of one CPU.
const SHARES_OF_CPU: u64 = 1024;
/// Memory of the VMM, of KVM for the guest, and the host's cache of the VM's disks, in MiB; besides a share of the guest's.
const HOST_OVERHEAD_MIB: u64 = 256;
const HOST_OVERHEAD_SHARE: u64 = 32;

/// A size that no VM can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A container's CPU limit is nothing, or more than a VM has.
    #[error("{0} CPUs are not possible: choose 0.01 to {MAX_VCPUS}")]
    CpuLimit(u64),
    /// The number of virtual CPUs is none, or more than a VM has.
    #[error("{0} CPUs are not possible: choose 1 to {MAX_VCPUS}")]
    Vcpus(u8),
    /// The memory is more than can be counted.
    #[error("{0} MiB of memory are too much")]
    Memory(u64),
}

/// Virtual CPUs for a limit in thousandths of a CPU.
///
/// # Errors
/// When there are none, or too many.
pub fn vcpus(milli_cpus: Option<u64>) -> Result<u8, SizeError> {
    let wanted = milli_cpus.map_or(DEFAULT_VCPUS.into(), |milli| milli.div_ceil(1000));
    u8::try_from(wanted).ok().filter(|vcpus| is_possible(*vcpus)).ok_or(SizeError::CpuLimit(wanted))
}

/// Refuses a number of virtual CPUs that no VM has.
///
/// # Errors
/// When there are none, or too many.
pub fn check_vcpus(vcpus: u8) -> Result<(), SizeError> {
    if is_possible(vcpus) { Ok(()) } else { Err(SizeError::Vcpus(vcpus)) }
}

fn is_possible(vcpus: u8) -> bool {
    (1..=MAX_VCPUS).contains(&vcpus)
}

/// The number of virtual CPUs nearest to the wanted one that a VM can have.
pub fn nearest_vcpus(wanted: u64) -> u8 {
    u8::try_from(wanted).unwrap_or(u8::MAX).clamp(1, MAX_VCPUS)
}

/// CPUs that a cgroup's quota fills, both in microseconds. A period of 0 counts as not given.
pub fn cpus_of_quota(quota_us: u64, period_us: Option<u64>) -> u64 {
    quota_us.div_ceil(period_us.filter(|period| *period > 0).unwrap_or(CPU_PERIOD_US))
}

/// CPUs that a cgroup's shares ask for.
pub fn cpus_of_shares(shares: u64) -> u64 {
    shares.div_ceil(SHARES_OF_CPU)
}

/// The quota in each [`CPU_PERIOD_US`], in microseconds, for a limit in thousandths of a CPU.
pub fn cpu_quota_us(milli_cpus: u64) -> u64 {
    milli_cpus.saturating_mul(CPU_PERIOD_US / 1000)
}

/// A VM's memory in MiB for containers that may use so many bytes.
///
/// # Errors
/// When it is too much.
pub fn with_guest(bytes: u64) -> Result<u32, SizeError> {
    checked_mem_size(bytes.div_ceil(1 << 20) + GUEST_OVERHEAD_MIB)
}

/// A VM's memory in MiB for a container's limit in bytes.
///
/// # Errors
/// When it is too much.
pub fn mem_size_mib(limit_bytes: Option<u64>) -> Result<u32, SizeError> {
    limit_bytes.map_or(Ok(DEFAULT_MEM_SIZE_MIB), with_guest)
}

/// A VM's memory in MiB as it was chosen.
///
/// # Errors
/// When it is too much.
pub fn checked_mem_size(mib: u64) -> Result<u32, SizeError> {
    u32::try_from(mib).map_err(|_| SizeError::Memory(mib))
}

/// What a container may use at most of its VM's memory in bytes: its limit, else what the guest leaves.
pub fn usable_bytes(limit_bytes: Option<u64>) -> u64 {
    limit_bytes.unwrap_or(u64::from(DEFAULT_MEM_SIZE_MIB).saturating_sub(GUEST_OVERHEAD_MIB) << 20)
}

/// What the host gives at most for a VM with so much memory, in bytes.
pub fn host_bytes(mem_size_mib: u32) -> u64 {
    let guest = u64::from(mem_size_mib);
    (guest + guest / HOST_OVERHEAD_SHARE + HOST_OVERHEAD_MIB) << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_cpus_are_rounded_up_and_bounded() {
        assert_eq!(vcpus(None).unwrap(), 1);
        assert_eq!(vcpus(Some(10)).unwrap(), 1);
        assert_eq!(vcpus(Some(1500)).unwrap(), 2);
        assert_eq!(vcpus(Some(32_000)).unwrap(), 32);
        assert_eq!(vcpus(Some(33_000)), Err(SizeError::CpuLimit(33)));
        assert_eq!(vcpus(Some(0)), Err(SizeError::CpuLimit(0)));
        assert!(check_vcpus(0).is_err() && check_vcpus(1).is_ok() && check_vcpus(MAX_VCPUS + 1).is_err());
    }

    #[test]
    fn cpus_of_cgroups_become_virtual_ones() {
        assert_eq!(cpus_of_quota(250_000, Some(100_000)), 3);
        assert_eq!(cpus_of_quota(50_000, Some(0)), 1);
        assert_eq!(cpus_of_quota(cpu_quota_us(1500), None), 2);
        assert_eq!(cpus_of_shares(3000), 3);
        assert_eq!([0, 7, 33, 256, u64::MAX].map(nearest_vcpus), [1, 7, 32, 32, 32]);
    }

    #[test]
    fn a_memory_limit_is_the_containers_not_the_machines() {
        assert_eq!(mem_size_mib(None).unwrap(), DEFAULT_MEM_SIZE_MIB);
        assert_eq!(u64::from(mem_size_mib(Some(64 << 20)).unwrap()), 64 + GUEST_OVERHEAD_MIB);
        assert!(mem_size_mib(Some(u64::MAX)).is_err());
        assert_eq!(mem_size_mib(Some(usable_bytes(None))).unwrap(), DEFAULT_MEM_SIZE_MIB);
        assert_eq!(usable_bytes(Some(1)), 1);
    }

    #[test]
    fn the_host_gives_more_than_the_guest_has() {
        assert_eq!(host_bytes(512), (512 + 16 + 256) << 20);
        assert!(host_bytes(u32::MAX) > u64::from(u32::MAX) << 20);
    }
}
