//! The message of cgroup v2, which is what the guest has.

use std::collections::HashMap;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PidsStat,
};
use husk_sandbox::pod::StatsResponse;

use super::limit;

/// Translates what the guest measured.
pub(super) fn metrics(stats: &StatsResponse) -> Metrics {
    Metrics {
        pids: Some(PidsStat { current: stats.pids_current, limit: stats.pids_limit, ..PidsStat::default() })
            .into(),
        cpu: Some(CPUStat {
            usage_usec: stats.cpu_usage_us,
            user_usec: stats.cpu_user_us,
            system_usec: stats.cpu_system_us,
            nr_periods: stats.cpu_periods,
            nr_throttled: stats.cpu_throttled_periods,
            throttled_usec: stats.cpu_throttled_us,
            ..CPUStat::default()
        })
        .into(),
        memory: Some(memory(stats)).into(),
        memory_events: Some(memory_events(&stats.memory_events)).into(),
        io: Some(io(stats)).into(),
        ..Metrics::default()
    }
}

fn memory(stats: &StatsResponse) -> MemoryStat {
    let get = |name| value(&stats.memory_stat, name);
    MemoryStat {
        usage: stats.memory_current_bytes,
        usage_limit: limit(stats.memory_limit_bytes),
        max_usage: stats.memory_peak_bytes,
        swap_usage: stats.swap_current_bytes,
        swap_limit: limit(stats.swap_limit_bytes),
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        ..MemoryStat::default()
    }
}

fn memory_events(events: &HashMap<String, u64>) -> MemoryEvents {
    MemoryEvents {
        low: value(events, "low"),
        high: value(events, "high"),
        max: value(events, "max"),
        oom: value(events, "oom"),
        oom_kill: value(events, "oom_kill"),
        ..MemoryEvents::default()
    }
}

fn io(stats: &StatsResponse) -> IOStat {
    let entry = |disk: &husk_sandbox::pod::DiskStats| IOEntry {
        major: disk.major.into(),
        minor: disk.minor.into(),
        rbytes: disk.read_bytes,
        wbytes: disk.write_bytes,
        rios: disk.reads,
        wios: disk.writes,
        ..IOEntry::default()
    };
    IOStat { usage: stats.disks.iter().map(entry).collect(), ..IOStat::default() }
}

fn value(map: &HashMap<String, u64>, name: &str) -> u64 {
    map.get(name).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::UNLIMITED, *};

    #[test]
    fn no_limit_is_told_as_cgroups_do() {
        let stats = StatsResponse {
            memory_current_bytes: 5,
            memory_stat: HashMap::from([("anon".to_owned(), 3)]),
            ..StatsResponse::default()
        };
        let memory = metrics(&stats).memory.unwrap();
        assert_eq!((memory.usage, memory.usage_limit, memory.anon), (5, UNLIMITED, 3));
        let limited = StatsResponse { memory_limit_bytes: 9, ..StatsResponse::default() };
        assert_eq!(metrics(&limited).memory.unwrap().usage_limit, 9);
    }
}
