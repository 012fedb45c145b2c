//! What a finished husk must not leave behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

/// Everything below `root`, and every process that works on it, that should be gone once no husk runs there.
pub fn of(root: &Path) -> Vec<String> {
    let mut left: Vec<String> = processes(root).into_iter().map(|process| process.to_string()).collect();
    let run = names(&root.join("run"));
    left.extend(
        run.into_iter()
            .filter(|name| {
                !matches!(name.as_str(), "lock" | "names" | "networks" | "cni" | "netns")
                    && !name.starts_with("events.log")
            })
            .map(|n| format!("run/{n}")),
    );
    left.extend(names(&root.join("run/names")).into_iter().map(|name| format!("run/names/{name}")));
    let containers = root.join("data/containers");
    let was_to_go = |name: &String| {
        let config = fs::read_to_string(containers.join(name).join("config.json")).unwrap_or_default();
        name.starts_with('.') || config.is_empty() || config.contains("\"auto_remove\":true")
    };
    left.extend(
        names(&containers).into_iter().filter(was_to_go).map(|name| format!("data/containers/{name}")),
    );
    // The disks of a prepared root are shared with tests that run at the same time.
    if !root.join("data/disks").is_symlink() {
        let unfinished =
            |name: &String| name.ends_with(".tmp") || (name.ends_with(".lock") && name != "empty.lock");
        left.extend(
            names(&root.join("data/disks")).into_iter().filter(unfinished).map(|n| format!("data/disks/{n}")),
        );
    }
    left
}

/// Partial downloads in an image store.
pub fn partial_downloads(root: &Path) -> Vec<PathBuf> {
    let dir = root.join("data/images/ingest");
    names(&dir).into_iter().map(|name| dir.join(name)).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A process that works on a root.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its command line, with spaces.
    pub command: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}: {}", self.pid, self.command)
    }
}

/// The processes, this one apart, that have `root` in their command line or environment.
pub fn processes(root: &Path) -> Vec<Process> {
    let needle = root.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid == nix::unistd::getpid().as_raw() {
            continue;
        }
        // A process may end meanwhile, and a zombie has neither.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let mentions = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        if mentions(&command) || mentions(&environment) {
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim_end().to_owned();
            found.push(Process { pid: Pid::from_raw(pid), command });
        }
    }
    found
}

/// The VMMs that work on a root.
pub fn vmms(root: &Path) -> Vec<Process> {
    running(root, "husk-vmm")
}

/// The supervisors that work on a root.
pub fn supervisors(root: &Path) -> Vec<Process> {
    running(root, "husk-supervisor")
}

fn running(root: &Path, program: &str) -> Vec<Process> {
    let is_one =
        |process: &Process| process.command.split(' ').next().is_some_and(|path| path.ends_with(program));
    processes(root).into_iter().filter(is_one).collect()
}
