//! A pod's namespace with a veth to the outside, and a guest: another namespace, whose tap gets what the VM's would.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{is_link_local, tap};
use crate::{
    netns::{self, Netns},
    nic::Interface,
    testing::ip,
};

/// A pod's namespace: `eth0`, up, its peer `host0` outside with 10.9.0.1/24 and fd09::1/64.
pub(super) struct Pod {
    pub(super) netns: Netns,
    dir: tempfile::TempDir,
}

impl Pod {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod");
        let netns = netns::create(&path).unwrap();
        ip(&format!("link add host0 type veth peer name eth0 netns {}", path.display()));
        ip("addr add 10.9.0.1/24 dev host0");
        ip("-6 addr add fd09::1/64 dev host0 nodad");
        ip("link set host0 up");
        let pod = Self { netns, dir };
        pod.ip("link set eth0 up");
        pod
    }

    pub(super) fn ip(&self, args: &str) -> String {
        self.netns.run(|| ip(args)).unwrap()
    }

    pub(super) fn open(&self) -> Netns {
        Netns::open(self.netns.path()).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        netns::remove(&self.dir.path().join("pod")).unwrap();
    }
}

/// The guest.
pub(super) struct Guest {
    pub(super) netns: Netns,
    /// The longest frame that came, or went, with its header.
    pub(super) longest: Arc<AtomicUsize>,
    dir: tempfile::TempDir,
}

impl Drop for Guest {
    fn drop(&mut self) {
        netns::remove(&self.dir.path().join("guest")).unwrap();
    }
}

impl Guest {
    /// Brings up a guest as the agent would be told to, connected to the VM's tap.
    pub(super) fn new(vm: &OwnedFd, interface: &Interface) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let netns = netns::create(&dir.path().join("guest")).unwrap();
        let tap = netns.run(|| tap::create().unwrap()).unwrap();
        for fd in [vm, &tap.fd] {
            let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
            // SAFETY: TUNSETOFFLOAD takes a number.
            let set =
                unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
            assert_eq!(set, 0);
        }
        let longest = Arc::new(AtomicUsize::new(0));
        pump(vm, &tap.fd, &longest);
        pump(&tap.fd, vm, &longest);
        netns.run(|| apply(interface)).unwrap();
        Self { netns, longest, dir }
    }
}

/// Copies frames until the tap is gone.
fn pump(from: &OwnedFd, to: &OwnedFd, longest: &Arc<AtomicUsize>) {
    let mut from = File::from(from.try_clone().unwrap());
    let mut to = File::from(to.try_clone().unwrap());
    let longest = Arc::clone(longest);
    thread::spawn(move || {
        let mut frame = vec![0; 1 << 17];
        while let Ok(len) = from.read(&mut frame) {
            longest.fetch_max(len, Ordering::Relaxed);
            // The other end may not be up yet.
            let _ = to.write(&frame[..len]);
        }
    });
}

/// What the agent does, one by one, in the order given.
fn apply(interface: &Interface) {
    ip(&format!("link set hkt0 name {} address {} mtu {}", interface.name, interface.mac, interface.mtu));
    ip(&format!("link set {} up", interface.name));
    let dev = &interface.name;
    for address in interface.addresses.iter().filter(|address| !is_link_local(address)) {
        let nodad = if address.ip.addr().is_ipv6() { "nodad" } else { "" };
        ip(&format!("addr add {} dev {dev} scope {} {nodad}", address.ip, address.scope.0));
    }
    for route in &interface.routes {
        let via = route.gateway.map(|gateway| format!("via {gateway}")).unwrap_or_default();
        ip(&format!("route add {} {via} dev {dev}", route.destination));
    }
}
