//! Network namespaces.

use std::{fs::File, os::fd::AsRawFd, process::Command, thread};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, which lasts as long as something uses it.
#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one with its loopback up; `None`, and says so, without root.
    pub(super) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Some(Self { file: thread::spawn(make).join().unwrap() })
    }

    /// Runs something on a thread inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects two namespaces; each end gets addresses.
    pub(super) fn connect(&self, end: (&str, &[&str]), other: &Self, other_end: (&str, &[&str])) {
        let (name, peer) = (end.0, other_end.0);
        let path = format!("/proc/{}/fd/{}", std::process::id(), other.file.as_raw_fd());
        self.run(|| {
            ip(&format!("link add {name} type veth peer name {peer} netns {path}"));
            set_up(name, end.1);
        });
        other.run(|| set_up(peer, other_end.1));
    }
}

fn set_up(interface: &str, addresses: &[&str]) {
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ip(&format!("address add {address} dev {interface} {nodad}"));
    }
    ip(&format!("link set {interface} up"));
}

/// Runs `ip` in this thread's namespace.
pub(super) fn ip(arguments: &str) -> String {
    run("ip", arguments.split_whitespace())
}

/// Runs `nft` in this thread's namespace.
pub(super) fn nft(arguments: &str) -> String {
    run("nft", arguments.split_whitespace())
}

/// Runs a shell command in this thread's namespace.
pub(super) fn shell(command: &str) -> String {
    run("sh", ["-c", command])
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> String {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let output = Command::new(program).args(&arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}
