//! How large a VM is for what its containers may use.

use crate::{Error, Result};

/// What the guest itself needs beside containers with a memory limit, in MiB: kernel, agent, page tables, page cache.
pub const GUEST_OVERHEAD_MIB: u64 = 96;
/// Most virtual CPUs of a VM.
pub const MAX_VCPUS: u64 = 32;
/// Memory of a VM whose container has no limit, in MiB.
pub const DEFAULT_MEM_SIZE_MIB: u64 = 512;

/// Virtual CPUs for a limit in thousandths of a CPU.
///
/// # Errors
/// When there are none, or too many.
pub fn vcpus(milli_cpus: Option<u64>) -> Result<u8> {
    let wanted = milli_cpus.unwrap_or(1000).div_ceil(1000);
    u8::try_from(wanted).ok().filter(|count| (1..=MAX_VCPUS).contains(&u64::from(*count))).ok_or_else(|| {
        Error::InvalidOption(format!("{wanted} CPUs are not possible: choose 0.01 to {MAX_VCPUS}"))
    })
}

/// A VM's memory in MiB for containers that may use so many bytes.
pub fn with_guest(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20) + GUEST_OVERHEAD_MIB
}

/// What containers may use of a VM's memory in MiB, in bytes.
pub fn without_guest(mem_size_mib: u64) -> u64 {
    mem_size_mib.saturating_sub(GUEST_OVERHEAD_MIB) << 20
}

/// A VM's memory in MiB for a container's limit in bytes.
///
/// # Errors
/// When it is too much.
pub fn mem_size_mib(limit_bytes: Option<u64>) -> Result<u32> {
    let wanted = limit_bytes.map_or(DEFAULT_MEM_SIZE_MIB, with_guest);
    u32::try_from(wanted).map_err(|_| Error::InvalidOption(format!("{wanted} MiB of memory are too much")))
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
        assert!(vcpus(Some(33_000)).is_err() && vcpus(Some(0)).is_err());
    }

    #[test]
    fn a_memory_limit_is_the_containers_not_the_machines() {
        assert_eq!(u64::from(mem_size_mib(None).unwrap()), DEFAULT_MEM_SIZE_MIB);
        assert_eq!(u64::from(mem_size_mib(Some(64 << 20)).unwrap()), 64 + GUEST_OVERHEAD_MIB);
        assert!(mem_size_mib(Some(u64::MAX)).is_err());
    }
}
