//! What the tests of this crate share: namespaces of their own, and programs run in them.

use std::process::Command;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Proof that the calling thread (and what it starts) has network and mount namespaces of its own, with nothing in them
/// that touches the machine's.
#[derive(Debug)]
pub(crate) struct Sandboxed(());

impl Sandboxed {
    /// Moves the calling thread into namespaces of its own. `None`, said loudly: not root.
    pub(crate) fn enter() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root, to make network namespaces");
            return None;
        }
        // Threads share their working directory and umask otherwise, and then can't leave a mount namespace.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        // Where plugins and ip-netns keep things: nothing gets out, nothing of the machine's is seen.
        for dir in ["/run", "/var/lib"] {
            mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        }
        ip("link set lo up");
        Some(Self(()))
    }
}

/// Runs a program to its end, and gives what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// ip(8) with arguments in one string.
pub(crate) fn ip(args: &str) -> String {
    run("ip", &args.split_whitespace().collect::<Vec<_>>())
}

/// Lets everybody use /dev/net/tun, as it is on ordinary systems, in this mount namespace alone.
pub(crate) fn open_tun_to_all() {
    run("mknod", &["-m", "666", "/run/tun", "c", "10", "200"]);
    mount(Some("/run/tun"), "/dev/net/tun", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// A runtime for async tests, on the calling thread alone, and a limit that only a hang reaches.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(120);
    runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("hangs") })
}
