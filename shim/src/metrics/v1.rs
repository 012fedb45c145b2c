//! The message of cgroup v1, as far as version 2 counts what is in it (the kernel's admin-guide/cgroup-v1). Memory of groups below a
//! container's is counted in its own, so its totals are the same.

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, MemoryEntry, MemoryOomControl, MemoryStat, Metrics, PidsStat,
    Throttle,
};
use husk_sandbox::pod::{DiskStats, StatsResponse};

use super::limit;

const NS_PER_US: u64 = 1000;

/// Translates what was measured.
pub(super) fn metrics(stats: &StatsResponse) -> Metrics {
    Metrics {
        pids: Some(PidsStat { current: stats.pids_current, limit: stats.pids_limit, ..PidsStat::default() })
            .into(),
        cpu: Some(cpu(stats)).into(),
        memory: Some(memory(stats)).into(),
        blkio: Some(blkio(stats)).into(),
        memory_oom_control: Some(MemoryOomControl {
            oom_kill: stats.oom_kills,
            ..MemoryOomControl::default()
        })
        .into(),
        ..Metrics::default()
    }
}

fn cpu(stats: &StatsResponse) -> CPUStat {
    let usage = CPUUsage {
        total: stats.cpu_usage_us.saturating_mul(NS_PER_US),
        user: stats.cpu_user_us.saturating_mul(NS_PER_US),
        kernel: stats.cpu_system_us.saturating_mul(NS_PER_US),
        ..CPUUsage::default()
    };
    let throttling = Throttle {
        periods: stats.cpu_periods,
        throttled_periods: stats.cpu_throttled_periods,
        throttled_time: stats.cpu_throttled_us.saturating_mul(NS_PER_US),
        ..Throttle::default()
    };
    CPUStat { usage: Some(usage).into(), throttling: Some(throttling).into(), ..CPUStat::default() }
}

fn memory(stats: &StatsResponse) -> MemoryStat {
    let get = |name: &str| stats.memory_stat.get(name).copied().unwrap_or_default();
    let usage = MemoryEntry {
        limit: limit(stats.memory_limit_bytes),
        usage: stats.memory_current_bytes,
        max: stats.memory_peak_bytes,
        failcnt: stats.memory_events.get("max").copied().unwrap_or_default(),
        ..MemoryEntry::default()
    };
    // Version 1 counts swap and memory together.
    let swap = MemoryEntry {
        limit: limit(stats.swap_limit_bytes).saturating_add(limit(stats.memory_limit_bytes)),
        usage: stats.swap_current_bytes.saturating_add(stats.memory_current_bytes),
        ..MemoryEntry::default()
    };
    MemoryStat {
        cache: get("file"),
        rss: get("anon"),
        rss_huge: get("anon_thp"),
        mapped_file: get("file_mapped"),
        dirty: get("file_dirty"),
        writeback: get("file_writeback"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: limit(stats.memory_limit_bytes),
        hierarchical_swap_limit: swap.limit,
        total_cache: get("file"),
        total_rss: get("anon"),
        total_rss_huge: get("anon_thp"),
        total_mapped_file: get("file_mapped"),
        total_dirty: get("file_dirty"),
        total_writeback: get("file_writeback"),
        total_pg_fault: get("pgfault"),
        total_pg_maj_fault: get("pgmajfault"),
        total_inactive_anon: get("inactive_anon"),
        total_active_anon: get("active_anon"),
        total_inactive_file: get("inactive_file"),
        total_active_file: get("active_file"),
        total_unevictable: get("unevictable"),
        usage: Some(usage).into(),
        swap: Some(swap).into(),
        kernel: Some(MemoryEntry { usage: get("kernel"), limit: u64::MAX, ..MemoryEntry::default() }).into(),
        ..MemoryStat::default()
    }
}

fn blkio(stats: &StatsResponse) -> BlkIOStat {
    let entries = |read: fn(&DiskStats) -> u64, write: fn(&DiskStats) -> u64| {
        let entries = stats.disks.iter().flat_map(|disk| {
            [("Read", read(disk)), ("Write", write(disk))].map(|(op, value)| BlkIOEntry {
                op: op.to_owned(),
                major: disk.major.into(),
                minor: disk.minor.into(),
                value,
                ..BlkIOEntry::default()
            })
        });
        entries.collect()
    };
    BlkIOStat {
        io_service_bytes_recursive: entries(|disk| disk.read_bytes, |disk| disk.write_bytes),
        io_serviced_recursive: entries(|disk| disk.reads, |disk| disk.writes),
        ..BlkIOStat::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::message;

    #[test]
    fn the_same_is_said_in_units_of_version_1() {
        let stats = StatsResponse {
            cpu_usage_us: 5,
            cpu_throttled_us: 2,
            memory_current_bytes: 10,
            swap_current_bytes: 3,
            memory_limit_bytes: 100,
            swap_limit_bytes: 50,
            oom_kills: 1,
            memory_stat: HashMap::from([("anon".to_owned(), 7)]),
            disks: vec![DiskStats { major: 254, read_bytes: 8, writes: 9, ..DiskStats::default() }],
            ..StatsResponse::default()
        };
        let metrics = metrics(&stats);
        assert_eq!(message::any(&metrics).unwrap().type_url, "io.containerd.cgroups.v1.Metrics");
        let cpu = metrics.cpu.unwrap();
        assert_eq!((cpu.usage.total, cpu.throttling.throttled_time), (5000, 2000));
        let memory = metrics.memory.unwrap();
        assert_eq!((memory.rss, memory.total_rss), (7, 7));
        assert_eq!((memory.usage.limit, memory.usage.usage), (100, 10));
        assert_eq!((memory.swap.limit, memory.swap.usage), (150, 13));
        let read = &metrics.blkio.io_service_bytes_recursive[0];
        assert_eq!((read.op.as_str(), read.major, read.value), ("Read", 254, 8));
        let writes = &metrics.blkio.io_serviced_recursive[1];
        assert_eq!((writes.op.as_str(), writes.value), ("Write", 9));
        assert_eq!(metrics.memory_oom_control.oom_kill, 1);
    }

    #[test]
    fn no_limit_stays_none() {
        let memory = metrics(&StatsResponse::default()).memory.unwrap();
        assert_eq!((memory.usage.limit, memory.swap.limit), (u64::MAX, u64::MAX));
    }
}
