//! What a pod's processes hold of the host's memory: proportional shares (PSS), in which a page that n processes share counts
//! a n-th for each (proc_pid_smaps(5)).

use std::fs;

use anyhow::{Context, Result};

use super::process::processes;

/// A mapping of at least so many KiB in a VMM is the guest's memory.
const GUEST_KIB: u64 = 128 << 10;

/// KiB of the host's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) husk: u64,
    /// Both of the VMM's processes, their guest's memory apart.
    pub(super) vmm: u64,
    pub(super) guest: u64,
}

pub(super) fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}

/// Of a `husk run` with this process id, and of all processes below it.
pub(super) fn of_tree(pid: u32) -> Result<Memory> {
    let mut memory = Memory::default();
    for pid in processes(pid) {
        let dir = format!("/proc/{pid}");
        let name =
            fs::read_to_string(format!("{dir}/comm")).with_context(|| format!("process {pid} is gone"))?;
        let smaps = fs::read_to_string(format!("{dir}/smaps"))?;
        let (guest, own) = shares(&smaps);
        if name.trim() == "husk" {
            memory.husk += own;
        } else {
            memory.vmm += own;
        }
        memory.guest += guest;
    }
    Ok(memory)
}

/// KiB of mappings that are a guest's memory, and of all others.
fn shares(smaps: &str) -> (u64, u64) {
    let (mut guest, mut own, mut size) = (0, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (key, value) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()));
        match (key, value) {
            (Some("Size:"), Some(kib)) => size = kib,
            (Some("Pss:"), Some(kib)) if size >= GUEST_KIB => guest += kib,
            (Some("Pss:"), Some(kib)) => own += kib,
            _ => {}
        }
    }
    (guest, own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_memory_is_told_by_its_size() {
        let smaps = "7f00-7f01 rw-p 0 00:00 0 [heap]\nSize: 100 kB\nPss: 40 kB\nPss_Dirty: 40 kB\n\
            7f10-9f10 rw-p 0 00:00 0\nSize: 524288 kB\nPss: 48000 kB\n\
            7f20-7f21 r--p 0 00:00 0 /lib\nSize: 4 kB\nPss: 2 kB\n";
        assert_eq!(shares(smaps), (48000, 42));
    }

    #[test]
    fn a_tree_of_processes_is_walked() {
        let memory = of_tree(std::process::id()).unwrap();
        assert!(memory.husk + memory.vmm > 0, "{memory:?}");
    }
}
