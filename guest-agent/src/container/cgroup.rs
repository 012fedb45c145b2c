//! A container's cgroup: what it uses, and how it is ended.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use husk_protocol::agent::StatsResponse;
use nix::{errno::Errno, unistd::Pid};

use crate::inotify::Watcher;

/// Deeper cgroups of a container's own making are not looked into.
const MAX_DEPTH: usize = 32;

/// A container's cgroup directory.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file whose changes tell of OOM kills.
    pub(crate) fn memory_events(&self) -> PathBuf {
        self.0.join("memory.events")
    }

    /// How many processes the kernel has killed for lack of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        keyed(&self.read("memory.events")).get("oom_kill").copied().unwrap_or_default()
    }

    /// Resource use. A controller that the kernel lacks counts zero.
    pub(crate) fn stats(&self) -> io::Result<StatsResponse> {
        if !self.0.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let cpu = self.read("cpu.stat");
        let cpu = keyed(&cpu);
        let get = |key| cpu.get(key).copied().unwrap_or_default();
        let (io_read_bytes, io_write_bytes) = io_bytes(&self.read("io.stat"));
        Ok(StatsResponse {
            cpu_usage_us: get("usage_usec"),
            cpu_user_us: get("user_usec"),
            cpu_system_us: get("system_usec"),
            memory_current_bytes: number(&self.read("memory.current")),
            memory_peak_bytes: number(&self.read("memory.peak")),
            memory_limit_bytes: number(&self.read("memory.max")),
            oom_kills: self.oom_kills(),
            pids_current: number(&self.read("pids.current")),
            io_read_bytes,
            io_write_bytes,
            ..Default::default()
        })
    }

    /// Kills every process in the cgroup and below.
    pub(crate) fn kill(&self) -> io::Result<()> {
        ignore_missing(fs::write(self.0.join("cgroup.kill"), "1"))
    }

    /// Every process in the cgroup and below.
    pub(crate) fn processes(&self) -> io::Result<Vec<Pid>> {
        let mut pids = Vec::new();
        for dir in tree(&self.0)? {
            // A cgroup that went away in between has no processes.
            let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for a process that this PID namespace can't see.
            let numbers = list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0);
            pids.extend(numbers.map(Pid::from_raw));
        }
        Ok(pids)
    }

    /// Kills what is left and removes the cgroup, waiting until its processes are gone.
    pub(crate) async fn remove(&self) -> io::Result<()> {
        self.kill()?;
        if self.try_remove()? {
            return Ok(());
        }
        let watcher = Watcher::new()?;
        match watcher.add(&self.0.join("cgroup.events")) {
            Ok(_) => {}
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while !self.try_remove()? {
            watcher.changes().await?;
        }
        Ok(())
    }

    /// False: there still are processes.
    fn try_remove(&self) -> io::Result<bool> {
        for dir in tree(&self.0)?.iter().rev() {
            match ignore_missing(fs::remove_dir(dir)) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
                result => result?,
            }
        }
        Ok(true)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }
}

/// A directory and all below it, parents first. Empty when it does not exist.
fn tree(top: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if top.is_dir() {
        found.push(top.to_owned());
    }
    let mut at = 0;
    while let Some(dir) = found.get(at) {
        at += 1;
        if dir.components().count() > top.components().count() + MAX_DEPTH {
            continue;
        }
        let Ok(entries) = fs::read_dir(dir) else { continue };
        let below = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
        let below: Vec<PathBuf> = below.collect();
        found.extend(below);
    }
    Ok(found)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A file of one number; `max`, or nothing, is 0.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// A file of lines `key number`.
fn keyed(text: &str) -> HashMap<&str, u64> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key, number(value))).collect()
}

/// The bytes read and written in io.stat, over all disks.
fn io_bytes(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(key))
            .map(number)
            .fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_statistics() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 0\n"),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\noom 2\noom_kill 3\noom_group_kill 0\n"),
            ("pids.current", "5\n"),
            ("io.stat", "254:0 rbytes=100 wbytes=7 rios=1 wios=1\n254:16 rbytes=1 wbytes=0\n"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let stats = Cgroup::new(dir.path().to_owned()).stats().unwrap();
        assert_eq!((stats.cpu_usage_us, stats.cpu_user_us, stats.cpu_system_us), (30, 20, 10));
        assert_eq!((stats.memory_current_bytes, stats.memory_peak_bytes), (4096, 8192));
        assert_eq!((stats.memory_limit_bytes, stats.oom_kills, stats.pids_current), (0, 3, 5));
        assert_eq!((stats.io_read_bytes, stats.io_write_bytes), (101, 7));
    }

    #[test]
    fn a_cgroup_without_files_counts_zero_and_one_that_is_gone_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::new(dir.path().to_owned());
        assert_eq!(cgroup.stats().unwrap(), StatsResponse::default());
        assert!(Cgroup::new(dir.path().join("gone")).stats().is_err());
    }

    #[test]
    fn finds_processes_of_nested_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "1\n0\n2\n").unwrap();
        fs::write(dir.path().join("a/b/cgroup.procs"), "3\n").unwrap();
        let pids = Cgroup::new(dir.path().to_owned()).processes().unwrap();
        assert_eq!(pids, [1, 2, 3].map(Pid::from_raw));
    }
}
