//! The jailed processes of VMM and server: children of children, which die with their parents but a moment later.

use std::{fs, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::task::spawn_blocking;

/// How long they may take to be gone.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Processes whose end is to be waited for.
#[derive(Debug)]
pub(super) struct Jailed(Vec<OwnedFd>);

impl Jailed {
    /// The children of these processes, as far as they live.
    pub(super) fn of(parents: [Option<u32>; 2]) -> Self {
        let children =
            |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = parents.into_iter().flatten().map(children).collect::<String>();
        let pids = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        Self(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect())
    }

    /// Returns when they are gone, and have left their cgroup; or after a while.
    pub(super) async fn gone(self) {
        let wait = move || {
            let timeout = Timespec::try_from(TIMEOUT).ok();
            for process in &self.0 {
                while poll(&mut [PollFd::new(process, PollFlags::IN)], timeout.as_ref())
                    == Err(rustix::io::Errno::INTR)
                {}
            }
        };
        // It does not panic, and the runtime waits for it.
        let _ = spawn_blocking(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn grandchildren_are_waited_for() {
        let script = "sleep 1000 & echo $!; wait";
        let mut parent = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(parent.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let jailed = Jailed::of([Some(parent.id()), None]);
        assert_eq!(jailed.0.len(), 1);
        let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        parent.kill().unwrap();
        parent.wait().unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        jailed.gone().await;
        let state = fs::read_to_string(format!("/proc/{}/stat", line.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }
}
