//! The jail around the VMM, looked at from outside while a container runs.

use std::{collections::BTreeSet, fs, path::PathBuf};

use husk_tests::{
    husk::Husk,
    leftovers::{self, Process},
    process::Running,
};
use nix::sys::signal::{Signal, kill};

/// A container that runs until it is told to end, and the two processes of its VMM.
struct Jailed {
    husk: Husk,
    running: Running,
    /// Waits outside of the jail.
    outside: Process,
    /// Runs the guest.
    inside: Process,
}

impl Jailed {
    fn start() -> Self {
        let husk = Husk::new();
        let mut running = husk.start_shell(&["-i"], "echo ready >&2; read line");
        running.wait_for_err("ready");
        let (inside, outside): (Vec<_>, Vec<_>) =
            leftovers::vmms(husk.root()).into_iter().partition(|vmm| field(vmm, "NSpid").len() == 2);
        let [inside] = <[_; 1]>::try_from(inside).unwrap();
        let [outside] = <[_; 1]>::try_from(outside).unwrap();
        Self { husk, running, outside, inside }
    }

    fn proc(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.inside.pid)).join(path)
    }

    fn cgroup(&self) -> PathBuf {
        let text = fs::read_to_string(self.proc("cgroup")).unwrap();
        PathBuf::from("/sys/fs/cgroup").join(text.trim().strip_prefix("0::/").unwrap())
    }

    fn end(mut self) {
        self.running.feed(b"go\n".to_vec());
        self.running.finish().expect_code(0);
        self.husk.assert_nothing_left();
    }
}

/// The values of a line of a process's status.
fn field(process: &Process, name: &str) -> Vec<String> {
    status_field(&PathBuf::from(format!("/proc/{}", process.pid)), name)
}

fn status_field(dir: &std::path::Path, name: &str) -> Vec<String> {
    let status = fs::read_to_string(dir.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn it_has_no_rights_and_every_thread_is_bound() {
    let jailed = Jailed::start();
    let threads: Vec<_> =
        fs::read_dir(jailed.proc("task")).unwrap().map(|task| task.unwrap().path()).collect();
    assert!(threads.len() >= 3, "{threads:?}");
    for thread in threads {
        for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status_field(&thread, name), ["0000000000000000"], "{name} of {}", thread.display());
        }
        assert_eq!(status_field(&thread, "NoNewPrivs"), ["1"]);
        assert_eq!(status_field(&thread, "Seccomp"), ["2"], "{}", thread.display());
        assert_eq!(status_field(&thread, "Groups"), <[&str; 0]>::default());
    }
    jailed.end();
}

#[test]
fn it_sees_nothing_of_the_host() {
    let jailed = Jailed::start();
    let root: Vec<_> =
        fs::read_dir(jailed.proc("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(root, ["vsock"]);
    let mounts = fs::read_to_string(jailed.proc("mounts")).unwrap();
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    assert!(mounts.lines().all(|line| line.contains(" ro,nosuid,nodev,noexec")), "{mounts}");
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = fs::read_link(jailed.proc("ns").join(namespace)).unwrap();
        assert_ne!(link, fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap());
    }
    let interfaces = fs::read_to_string(jailed.proc("net/dev")).unwrap();
    assert_eq!(interfaces.lines().skip(2).count(), 1, "more than loopback: {interfaces}");
    jailed.end();
}

#[test]
fn nothing_of_husks_environment_is_left_in_it() {
    let jailed = Jailed::start();
    for process in [&jailed.outside, &jailed.inside] {
        let environment = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
        assert!(environment.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environment));
    }
    jailed.end();
}

#[test]
fn each_has_a_user_and_a_cgroup_of_its_own() {
    let (one, other) = (Jailed::start(), Jailed::start());
    let ids: BTreeSet<_> =
        [&one, &other].into_iter().flat_map(|jailed| field(&jailed.inside, "Uid")).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert!(ids.iter().all(|id| id.parse::<u32>().unwrap() >= 2_000_000_000), "{ids:?}");
    let cgroups = [one.cgroup(), other.cgroup()];
    assert_ne!(cgroups[0], cgroups[1]);
    for cgroup in &cgroups {
        for limit in ["memory.max", "pids.max"] {
            let limit = fs::read_to_string(cgroup.join(limit)).unwrap();
            assert!(limit.trim().parse::<u64>().is_ok(), "{limit}");
        }
    }
    one.end();
    other.end();
    assert!(cgroups.iter().all(|cgroup| !cgroup.exists()), "{cgroups:?}");
}

#[test]
fn killing_either_process_ends_both() {
    for inside in [true, false] {
        let jailed = Jailed::start();
        let cgroup = jailed.cgroup();
        let victim = if inside { &jailed.inside } else { &jailed.outside };
        kill(victim.pid, Signal::SIGKILL).unwrap();
        jailed.running.finish().expect_failure(125, &["ended unexpectedly", "killed"]);
        jailed.husk.assert_nothing_left();
        assert!(!cgroup.exists());
    }
}

#[test]
fn a_killed_supervisor_leaves_no_cgroup_for_long() {
    let jailed = Jailed::start();
    let cgroup = jailed.cgroup();
    jailed.husk.kill_supervisor();
    jailed.running.finish().expect_code(125);
    jailed.husk.shell(&[], "echo next").expect_out("next\n");
    jailed.husk.assert_nothing_left();
    assert!(!cgroup.exists());
}
