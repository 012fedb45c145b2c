//! The program, with the VMM's own device in front of it and a driver that speaks FUSE over a queue in shared memory.
//! Nothing is mounted by a guest. Needs root.
#![expect(clippy::unwrap_used, reason = "it is a test")]

#[path = "serve/driver.rs"]
mod driver;
#[path = "serve/fuse.rs"]
mod fuse;
#[path = "serve/server.rs"]
mod server;

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, symlink},
    },
};

use driver::Guest;
use husk_jail::trial::assert_only_inherited;
use server::{Server, is_root};

const ENOENT: i32 = 2;
const EROFS: i32 = 30;

#[test]
fn a_file_is_found_and_read() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("greeting"), "hello, guest").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    let entry = guest.lookup(fuse::ROOT, "greeting").unwrap();
    assert_eq!((entry.size, entry.valid_s), (12, 1));
    let handle = guest.open(entry.node).unwrap();
    assert_eq!(guest.read(entry.node, handle, 0, 100).unwrap(), b"hello, guest");
    assert_eq!(guest.read(entry.node, handle, 7, 3).unwrap(), b"gue");
    // The host changes it, and the guest sees that.
    fs::write(dir.path().join("greeting"), "changed").unwrap();
    assert_eq!(guest.read(entry.node, handle, 0, 100).unwrap(), b"changed");
    assert_eq!(guest.lookup(fuse::ROOT, "absent").unwrap_err(), ENOENT);
    drop(guest);
    server.ends_by_itself();
}

#[test]
fn a_directory_that_is_none_is_named() {
    if !is_root() {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::start(file.path(), &[]);
    server.ends_with_error(&format!("husk-fs: cannot serve {}: Not a directory", file.path().display()));
}

#[test]
fn nothing_leads_out_of_the_directory() {
    if !is_root() {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "x").unwrap();
    let dir = outer.path().join("shared");
    fs::create_dir(&dir).unwrap();
    symlink("../secret", dir.join("relative")).unwrap();
    symlink(outer.path().join("secret"), dir.join("absolute")).unwrap();
    let server = Server::start(&dir, &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    for name in ["../secret", "/etc/passwd", "shared/../../secret"] {
        assert!(guest.lookup(fuse::ROOT, name).is_err(), "{name}");
    }
    if let Ok(parent) = guest.lookup(fuse::ROOT, "..") {
        assert!(guest.lookup(parent.node, "secret").is_err());
    }
    for name in ["relative", "absolute"] {
        let link = guest.lookup(fuse::ROOT, name).unwrap();
        assert!(guest.open(link.node).is_err(), "{name}");
    }
}

#[test]
fn what_the_guest_makes_belongs_to_its_user() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let server = Server::start(dir.path(), &["--cache", "always"]);
    let mut guest = Guest::connect(&server);
    guest.init();
    guest.uid = 1234;
    let (entry, handle) = guest.create(fuse::ROOT, "made", 0o640).unwrap();
    assert_eq!(entry.valid_s, 24 * 60 * 60);
    guest.write(entry.node, handle, b"by the guest").unwrap();
    let made = dir.path().join("made");
    // At once: nothing is held back.
    assert_eq!(fs::read(&made).unwrap(), b"by the guest");
    let metadata = fs::metadata(&made).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (1234, 0o640));
    // Who may do what is for the guest's kernel to say.
    fs::create_dir(dir.path().join("closed")).unwrap();
    let closed = guest.lookup(fuse::ROOT, "closed").unwrap();
    guest.create(closed.node, "allowed", 0o600).unwrap();
    assert_eq!(fs::metadata(dir.path().join("closed/allowed")).unwrap().uid(), 1234);
}

#[test]
fn every_request_of_a_guest_passes_the_filter() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    guest.all_requests();
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["copy", "file", "hard", "pipe", "whiteout"]);
    let file = fs::metadata(dir.path().join("file")).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777, file.mtime()), (7, 8, 0o604, 1000));
    assert_eq!((file.len(), file.nlink()), (8192, 2));
    assert_eq!(fs::read(dir.path().join("copy")).unwrap(), b"content");
    drop(guest);
    server.ends_by_itself();
}

#[test]
fn attributes_that_need_more_rights_get_another_name() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    let file = guest.lookup(fuse::ROOT, "file").unwrap();
    guest.set_attribute(file.node, "trusted.overlay.opaque", b"y").unwrap();
    assert_eq!(guest.attribute(file.node, "trusted.overlay.opaque").unwrap(), b"y");
    let name = c"user.virtiofs.trusted.overlay.opaque";
    let mut value = [0; 8];
    let len = rustix::fs::getxattr(dir.path().join("file"), name, &mut value[..]).unwrap();
    assert_eq!(value[..len], *b"y");
    assert!(guest.set_attribute(file.node, "user.virtiofs.trusted.x", b"y").is_err());
}

#[test]
fn a_read_only_directory_stays_as_it_is() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "kept").unwrap();
    let server = Server::start(dir.path(), &["--read-only"]);
    let mut guest = Guest::connect(&server);
    guest.init();
    let file = guest.lookup(fuse::ROOT, "file").unwrap();
    let handle = guest.open(file.node).unwrap();
    assert_eq!(guest.read(file.node, handle, 0, 9).unwrap(), b"kept");
    assert_eq!(guest.create(fuse::ROOT, "new", 0o600).unwrap_err(), EROFS);
    assert_eq!(guest.set_attribute(file.node, "user.x", b"y").unwrap_err(), EROFS);
    assert!(!dir.path().join("new").exists());
    // Not by the library alone.
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", server.jailed())).unwrap();
    let options = mounts.lines().next().unwrap().split(' ').nth(5).unwrap().to_owned();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|found| found == option), "{options}");
    }
}

#[test]
fn the_server_is_jailed() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("only"), "").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    let pid = server.jailed();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().nth(1).unwrap_or("").to_owned()
    };
    // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, SETGID 6, SETUID 7, MKNOD 27, SETFCAP 31.
    let kept = [0, 1, 3, 4, 6, 7, 27, 31].into_iter().fold(0_u64, |set, capability| set | 1 << capability);
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), kept, "{set}");
    }
    for set in ["CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 0, "{set}");
    }
    assert_eq!(
        (field("NoNewPrivs"), field("Seccomp"), field("Groups")),
        ("1".into(), "2".into(), String::new())
    );
    for namespace in ["mnt", "net", "pid", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    let root: Vec<_> = fs::read_dir(format!("/proc/{pid}/root")).unwrap().collect();
    assert_eq!(root.len(), 1);
    assert_eq!(root[0].as_ref().unwrap().file_name(), "only");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().lines().count(), 1);
}

#[test]
fn nothing_is_inherited_but_what_is_passed_by_number() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [lock, stray] = ["lock", "stray"].map(|name| fs::File::create(dir.path().join(name)).unwrap());
    let share = dir.path().join("share");
    fs::create_dir(&share).unwrap();
    let number = lock.as_raw_fd().to_string();
    let server = Server::spawn(&share, &["--lock", &number], &[lock.as_raw_fd(), stray.as_raw_fd()]);
    // An answer: all that comes before it is done.
    let mut guest = Guest::connect(&server);
    guest.init();
    for pid in server.both() {
        assert_only_inherited(pid, &lock, &stray);
    }
}

#[test]
fn a_mount_that_is_made_later_appears() {
    if !is_root() {
        return;
    }
    // In mounts of this test's own, which are shared among themselves.
    server::own_mounts();
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    assert!(!guest.lookup(fuse::ROOT, "volume").unwrap().is_submount);
    let none: Option<&std::ffi::CStr> = None;
    rustix::mount::mount("none", &volume, "tmpfs", rustix::mount::MountFlags::NODEV, none).unwrap();
    fs::write(volume.join("inside"), "of the volume").unwrap();
    let entry = guest.lookup(fuse::ROOT, "volume").unwrap();
    assert!(entry.is_submount);
    let inside = guest.lookup(entry.node, "inside").unwrap();
    assert_eq!(inside.size, 13);
}

#[test]
fn the_lifeline_ends_it() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for connected in [false, true] {
        let (server, lifeline) = Server::start_with_lifeline(dir.path());
        let guest = connected.then(|| {
            let mut guest = Guest::connect(&server);
            guest.init();
            guest
        });
        drop(lifeline);
        server.ends_by_itself();
        drop(guest);
    }
}

#[test]
fn the_device_fails_when_the_server_is_killed() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    guest.init();
    drop(server);
    guest.wait_for_failure();
}

#[test]
fn a_driver_may_start_anew() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut guest = Guest::connect(&server);
    for _ in 0..3 {
        guest.init();
        guest.lookup(fuse::ROOT, "file").unwrap();
        guest.restart();
    }
}
