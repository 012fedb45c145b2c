//! What a pod is on the host: the processes of VMM and file server, each with its jailed child.

use std::{fs, os::fd::OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Their directories in /proc, which stay those of these processes, whoever gets their numbers later.
#[derive(Debug)]
pub(super) struct Processes(Vec<OwnedFd>);

impl Processes {
    /// These processes and their children, as far as they live.
    pub(super) fn of(parents: [Option<u32>; 2]) -> Self {
        let directory = |pid: u32| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()
        };
        let children = |pid: u32| {
            let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        };
        let all = parents.into_iter().flatten().flat_map(|parent| [vec![parent], children(parent)].concat());
        Self(all.filter_map(directory).collect())
    }

    /// Sets how readily the host's kernel kills them for lack of memory: -1000 to 1000 (proc_pid_oom_score_adj(5)). Not worth a
    /// failure.
    pub(super) fn set_oom_score(&self, score: i32) {
        for directory in &self.0 {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            if let Ok(file) = openat(directory, "oom_score_adj", flags, Mode::empty()) {
                let _ = rustix::io::write(file, score.to_string().as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn parents_and_children_get_the_score_and_the_dead_are_left_alone() {
        let script = "sleep 1000 & echo $!; wait";
        let mut parent = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut child = String::new();
        let mut out = std::io::BufReader::new(parent.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut child).unwrap();
        let processes = Processes::of([Some(parent.id()), None]);
        processes.set_oom_score(345);
        for pid in [&parent.id().to_string(), child.trim()] {
            let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
            assert_eq!(score.trim(), "345");
        }
        let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        parent.wait().unwrap();
        processes.set_oom_score(346);
    }
}
