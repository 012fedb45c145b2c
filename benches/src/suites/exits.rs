//! What a start costs beside its time: exits from the guest by kind, and time on a CPU by process.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

use super::process::{processes, tasks};
use crate::tree::{succeed, tool};

/// KVM's counters, of all VMs that run (Linux, arch/x86/kvm/x86.c).
const COUNTERS: &str = "/sys/kernel/debug/kvm";
/// Those that are shown: file and words. The rest of `exits` is handled by KVM itself, as reads of CPUID and faults.
const KINDS: [(&str, &str); 5] = [
    ("exits", "exits"),
    ("io_exits", "exits for port I/O"),
    ("mmio_exits", "exits for MMIO"),
    ("halt_exits", "exits to idle"),
    ("irq_exits", "exits by the host's interrupts"),
];

/// The counts of a peer's time on a CPU: of a container's whole run, of a VM until its user space, and of the VM's end.
pub(crate) const CPU_RUN_MS: &str = "CPU ms, start to exit";
pub(crate) const CPU_START_MS: &str = "CPU ms, to user space";
pub(crate) const CPU_END_MS: &str = "CPU ms, told to end";

/// Makes KVM's counters readable. Where the host has none, as when it is locked down, exits are not counted, and that is said.
pub(super) fn prepare() {
    if Path::new(COUNTERS).is_dir() {
        return;
    }
    let mounted = succeed(tool("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]));
    if mounted.is_err() || !Path::new(COUNTERS).is_dir() {
        eprintln!("this host's KVM does not count exits: left out");
    }
}

/// What the only VM that runs has exited so far, by kind; nothing where KVM does not count.
pub(super) fn exits() -> Vec<(String, f64)> {
    let count = |file: &str| -> Option<f64> {
        fs::read_to_string(Path::new(COUNTERS).join(file)).ok()?.trim().parse().ok()
    };
    KINDS.iter().filter_map(|(file, words)| Some(((*words).to_owned(), count(file)?))).collect()
}

/// Milliseconds that a process and those below it have been on a CPU, by name: in the lab's deterministic mode that is millions
/// of instructions. A guest's are those of its VMM's threads `vcpu`, and are apart.
pub(super) fn cpu_times(pid: u32) -> Result<Vec<(String, f64)>> {
    let mut times: BTreeMap<String, f64> = BTreeMap::new();
    for pid in processes(pid) {
        let process = fs::read_to_string(format!("/proc/{pid}/comm")).context("a process has no name")?;
        for task in tasks(pid) {
            let thread = fs::read_to_string(task.join("comm")).context("a thread has no name")?;
            let name = if thread.starts_with("vcpu") { "the guest and its exits" } else { process.trim() };
            // Time on a CPU in nanoseconds comes first (Linux, Documentation/scheduler/sched-stats.rst).
            let stat = fs::read_to_string(task.join("schedstat")).context("the host keeps no schedstat")?;
            let ns: f64 = stat.split_whitespace().next().context("an empty schedstat")?.parse()?;
            *times.entry(name.to_owned()).or_default() += ns / 1e6;
        }
    }
    ensure!(!times.is_empty(), "process {pid} is gone");
    Ok(times.into_iter().map(|(name, ms)| (format!("CPU ms, {name}"), ms)).collect())
}

/// Milliseconds that children which have ended, and those below them, were on a CPU.
pub(super) fn ended_cpu_ms() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot read the children's CPU time")?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(us)?).as_secs_f64() * 1000.0)
}
