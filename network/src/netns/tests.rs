use std::{fs, io::Read, net::TcpListener, os::unix::fs::MetadataExt};

use super::*;
use crate::testing::{Sandboxed, ip};

fn inode(netns: &Netns) -> u64 {
    nix::sys::stat::fstat(&netns.fd).unwrap().st_ino
}

#[test]
fn a_named_namespace_is_made_entered_and_removed() {
    let Some(_own) = Sandboxed::enter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod");
    let netns = create(&path).unwrap();
    assert_ne!(inode(&netns), inode(&Netns::current().unwrap()));
    assert_eq!(inode(&Netns::open(&path).unwrap()), inode(&netns));

    // The loopback is up, so something can listen there and be dialled.
    let inside = netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Netns::current().map(|now| inode(&now)).unwrap()
    });
    assert_eq!(inside.unwrap(), inode(&netns));

    assert!(matches!(create(&path), Err(Error::Create { .. })), "a name in use is refused");
    assert_eq!(inode(&Netns::open(&path).unwrap()), inode(&netns), "and left as it was");
    remove(&path).unwrap();
    assert!(!path.exists());
    remove(&path).unwrap();
    assert!(matches!(Netns::open(&path), Err(Error::Open { .. })));
    // Whoever holds it can still use it.
    assert_eq!(netns.run(|| 1).unwrap(), 1);
}

#[test]
fn repair_removes_what_the_dead_left() {
    let Some(_own) = Sandboxed::enter() else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["dead", "alive"] {
        create(&dir.path().join(name)).unwrap();
    }
    // Killed between the file and the mount.
    fs::write(dir.path().join("half"), "").unwrap();
    repair(dir.path(), |name| name == "alive").unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["alive"]);
    remove(&dir.path().join("alive")).unwrap();
    repair(&dir.path().join("never made"), |_| false).unwrap();
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [
        Path::new("/proc/self/ns/mnt"),
        Path::new("/etc/passwd"),
        Path::new("/"),
        Path::new("/dev/null"),
        &fifo,
    ] {
        let error = Netns::open(path).unwrap_err();
        assert!(matches!(error, Error::NotNetns { .. }), "{error}");
        assert_eq!(error.to_string(), format!("{} is not a network namespace", path.display()));
    }
    let error = Netns::open(Path::new("/proc/self/ns/nothing")).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
}

#[test]
fn a_panic_inside_is_an_error_and_the_caller_stays_where_it_was() {
    let Some(_own) = Sandboxed::enter() else { return };
    let before = inode(&Netns::current().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let netns = create(&dir.path().join("pod")).unwrap();
    let result: Result<()> = netns.run(|| panic!("on purpose"));
    assert!(matches!(result, Err(Error::Panicked { .. })));
    assert_eq!(inode(&Netns::current().unwrap()), before);
    remove(&dir.path().join("pod")).unwrap();
}

#[test]
fn programs_started_inside_are_inside() {
    let Some(_own) = Sandboxed::enter() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pod");
    let netns = create(&path).unwrap();
    netns.run(|| ip("link add v0 type veth peer name v1")).unwrap();
    let mut text = String::new();
    netns
        .run(|| fs::File::open("/proc/thread-self/net/dev").unwrap().read_to_string(&mut text).unwrap())
        .unwrap();
    assert!(text.contains("v0:") && text.contains("v1:"), "{text}");
    assert!(fs::metadata(&path).unwrap().ino() > 0);
    remove(&path).unwrap();
}
