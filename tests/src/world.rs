//! A small network of its own around a husk: the test's thread, and all it starts, is a host with one way out, on which
//! another machine can be reached.

use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr},
    process::{Child, Command, Output, Stdio},
    thread::{self, JoinHandle},
};

use nix::sched::{CloneFlags, setns, unshare};

/// The host's address on its way out.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other machine's, which knows of no way to containers' addresses.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The host's IPv6 address.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The other machine's.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A host and another machine. All that is in them goes when it is dropped, and the test ends.
#[derive(Debug)]
pub struct World {
    outside: Child,
}

impl World {
    /// Takes this thread out of the machine's own network.
    ///
    /// # Panics
    /// When that can't be done.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut command = Command::new("unshare");
        let outside = command.args(["--net", "sh", "-c", "echo; exec sleep infinity"]).stdout(Stdio::piped());
        let mut outside = outside.spawn().unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(outside.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let this = Self { outside };
        let pid = this.outside.id();
        shell(&format!(
            "ip link set lo up
             ip link add wan0 type veth peer name wan1 netns {pid}
             ip address add {HOST}/24 dev wan0
             ip -6 address add {HOST6}/64 dev wan0 nodad
             ip link set wan0 up"
        ));
        this.outside(&format!(
            "ip link set lo up
             ip address add {OUTSIDE}/24 dev wan1
             ip -6 address add {OUTSIDE6}/64 dev wan1 nodad
             ip link set wan1 up"
        ));
        shell(&format!(
            "ip route add default via {OUTSIDE}
             ip -6 route add default via {OUTSIDE6}"
        ));
        this
    }

    /// Does something on the other machine, on a thread of its own.
    ///
    /// # Panics
    /// When the thread can't be started; joining it panics when it can't get there.
    pub fn outside_thread<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.outside.id())).unwrap();
        thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        })
    }

    /// Runs a shell script on the other machine, and returns what it prints.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn outside(&self, script: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.outside.id().to_string(), "sh", "-ec", script]);
        succeed(script, &command.output().unwrap())
    }

    /// Nothing of husk's networks is left on the host.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_no_network_left(&self) {
        let links = shell("ip -o link");
        assert!(!links.contains("hk"), "{links}");
        let rules = shell("nft list ruleset");
        assert_eq!(rules, "", "rules are left");
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

/// Runs a shell script on the host, and returns what it prints.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn shell(script: &str) -> String {
    succeed(script, &Command::new("sh").args(["-ec", script]).output().unwrap())
}

#[track_caller]
fn succeed(script: &str, output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
