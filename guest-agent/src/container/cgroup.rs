//! A container's cgroup: what it uses, and how it is ended.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use husk_protocol::{agent::StatsResponse, cgroup};
use nix::{errno::Errno, unistd::Pid};

use crate::inotify::Watcher;

/// Deeper cgroups of a container's own making are not looked into.
const MAX_DEPTH: usize = 32;
const EVENTS: &str = "cgroup.events";
const FREEZE: &str = "cgroup.freeze";

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
        cgroup::keyed(&self.read("memory.events")).get("oom_kill").copied().unwrap_or_default()
    }

    /// Resource use. A controller that the kernel lacks counts zero.
    pub(crate) fn stats(&self) -> io::Result<StatsResponse> {
        if !self.0.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(cgroup::read(&self.0))
    }

    /// Whether its processes stand still, or are about to.
    pub(crate) fn is_frozen(&self) -> bool {
        self.read(FREEZE).trim_end() == "1"
    }

    /// Has every process in the cgroup and below stand still, and waits until all do.
    pub(crate) async fn freeze(&self) -> io::Result<()> {
        let watcher = Watcher::new()?;
        watcher.add(&self.0.join(EVENTS))?;
        self.write(FREEZE, "1")?;
        while cgroup::keyed(&self.read(EVENTS)).get("frozen") == Some(&0) && self.is_frozen() {
            watcher.changes().await?;
        }
        Ok(())
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.write(FREEZE, "0")
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        // Never makes a file.
        io::Write::write_all(
            &mut fs::OpenOptions::new().write(true).open(self.0.join(file))?,
            value.as_bytes(),
        )
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
        match watcher.add(&self.0.join(EVENTS)) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
