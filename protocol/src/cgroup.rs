//! Resource use from the files of a cgroup (the kernel's admin-guide/cgroup-v2.rst).

use std::{collections::HashMap, path::Path};

use crate::agent::{DiskStats, StatsResponse};

/// Disks beyond these are left out.
const MAX_DISKS: usize = 256;

/// Reads the resource use of the cgroup in `dir`. A controller that the kernel does not have counts zero.
#[must_use]
pub fn read(dir: &Path) -> StatsResponse {
    let read = |file| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let cpu = read("cpu.stat");
    let cpu = keyed(&cpu);
    let cpu = |key| cpu.get(key).copied().unwrap_or_default();
    let memory_events = owned(&read("memory.events"));
    let disks = disks(&read("io.stat"));
    let sum = |of: fn(&DiskStats) -> u64| disks.iter().map(of).fold(0, u64::saturating_add);
    StatsResponse {
        cpu_usage_us: cpu("usage_usec"),
        cpu_user_us: cpu("user_usec"),
        cpu_system_us: cpu("system_usec"),
        cpu_periods: cpu("nr_periods"),
        cpu_throttled_periods: cpu("nr_throttled"),
        cpu_throttled_us: cpu("throttled_usec"),
        memory_current_bytes: number(&read("memory.current")),
        memory_peak_bytes: number(&read("memory.peak")),
        memory_limit_bytes: number(&read("memory.max")),
        memory_stat: owned(&read("memory.stat")),
        oom_kills: memory_events.get("oom_kill").copied().unwrap_or_default(),
        memory_events,
        swap_current_bytes: number(&read("memory.swap.current")),
        swap_limit_bytes: number(&read("memory.swap.max")),
        pids_current: number(&read("pids.current")),
        pids_limit: number(&read("pids.max")),
        io_read_bytes: sum(|disk| disk.read_bytes),
        io_write_bytes: sum(|disk| disk.write_bytes),
        disks,
        ..Default::default()
    }
}

/// A file of one number; `max`, or nothing, is 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// A file of lines `key number`.
#[must_use]
pub fn keyed(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key, number(value))).collect()
}

fn owned(text: &str) -> HashMap<String, u64> {
    keyed(text).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A file of lines `major:minor key=number ...`.
fn disks(text: &str) -> Vec<DiskStats> {
    text.lines().filter_map(disk).take(MAX_DISKS).collect()
}

fn disk(line: &str) -> Option<DiskStats> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let values: HashMap<&str, u64> = rest
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key, number(value)))
        .collect();
    let get = |key| values.get(key).copied().unwrap_or_default();
    Some(DiskStats {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        read_bytes: get("rbytes"),
        write_bytes: get("wbytes"),
        reads: get("rios"),
        writes: get("wios"),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn reads_statistics() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 99\n",
            ),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 5\nfile 6\n"),
            ("memory.events", "low 0\noom 2\noom_kill 3\noom_group_kill 0\n"),
            ("memory.swap.current", "7\n"),
            ("memory.swap.max", "1000\n"),
            ("pids.current", "5\n"),
            ("pids.max", "64\n"),
            ("io.stat", "254:0 rbytes=100 wbytes=7 rios=2 wios=1\n254:16 rbytes=1 wbytes=0\nbroken\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let stats = read(dir.path());
        assert_eq!((stats.cpu_usage_us, stats.cpu_user_us, stats.cpu_system_us), (30, 20, 10));
        assert_eq!((stats.cpu_periods, stats.cpu_throttled_periods, stats.cpu_throttled_us), (4, 3, 99));
        assert_eq!((stats.memory_current_bytes, stats.memory_peak_bytes), (4096, 8192));
        assert_eq!((stats.memory_limit_bytes, stats.oom_kills), (0, 3));
        assert_eq!((stats.memory_stat["anon"], stats.memory_stat["file"]), (5, 6));
        assert_eq!((stats.memory_events["oom"], stats.memory_events["oom_kill"]), (2, 3));
        assert_eq!((stats.swap_current_bytes, stats.swap_limit_bytes), (7, 1000));
        assert_eq!((stats.pids_current, stats.pids_limit), (5, 64));
        assert_eq!((stats.io_read_bytes, stats.io_write_bytes), (101, 7));
        let disks: Vec<_> =
            stats.disks.iter().map(|d| (d.major, d.minor, d.read_bytes, d.reads, d.writes)).collect();
        assert_eq!(disks, [(254, 0, 100, 2, 1), (254, 16, 1, 0, 0)]);
    }

    #[test]
    fn without_files_all_is_zero() {
        assert_eq!(read(tempfile::tempdir().unwrap().path()), StatsResponse::default());
    }
}
