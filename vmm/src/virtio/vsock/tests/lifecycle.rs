//! The device as a transport sees it: its socket, activation in a thread, reset.

use std::{
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

use tempfile::TempDir;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{
    super::{Vsock, VsockError},
    driver,
};
use crate::virtio::{ActivateError, Activation, ActiveQueue, Interrupt, VirtioDevice};

fn socket() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vsock");
    (dir, path)
}

fn activation(queues: u64) -> Activation {
    let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
    let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
    let queues = (0..queues)
        .map(|n| {
            let queue = driver::queue(n << 16, (n << 16) + 0x2000, (n << 16) + 0x4000);
            Some(ActiveQueue { queue, kick: eventfd() })
        })
        .collect();
    Activation { mem, queues, interrupt: Interrupt::new(eventfd()), features: 1 << 32 }
}

#[test]
fn socket_is_private() {
    let (_dir, path) = socket();
    let _device = Vsock::new(3, &path, path.clone()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn stale_socket_is_replaced() {
    let (_dir, path) = socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _device = Vsock::new(3, &path, path.clone()).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn what_is_in_use_is_not_replaced() {
    let (_dir, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    assert!(matches!(Vsock::new(3, &path, path.clone()), Err(VsockError::InUse(_))));
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Vsock::new(3, &path, path.clone()), Err(VsockError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn bad_parameters_are_refused() {
    let (dir, path) = socket();
    for cid in [0, 1, 2, u32::MAX] {
        assert!(matches!(Vsock::new(cid, &path, path.clone()), Err(VsockError::Cid(_))));
    }
    let room = 96 - dir.path().as_os_str().len() - 1;
    let long = |len| dir.path().join("v".repeat(len));
    Vsock::new(3, &long(room), path.clone()).unwrap();
    assert!(matches!(Vsock::new(3, &long(room + 1), path.clone()), Err(VsockError::PathTooLong(_))));
    assert!(matches!(Vsock::new(3, &path.join("x"), path.clone()), Err(VsockError::Listen { .. })));
}

#[test]
fn configuration_is_the_context_id() {
    let (_dir, path) = socket();
    let device = Vsock::new(0x0102_0304, &path, path.clone()).unwrap();
    let mut data = [9; 12];
    device.read_config(0, &mut data);
    assert_eq!(data, [4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut data = [9; 2];
    device.read_config(2, &mut data);
    assert_eq!(data, [2, 1]);
    device.read_config(u64::MAX, &mut data);
    assert_eq!(data, [0, 0]);
}

#[test]
fn reset_ends_connections_and_the_device_can_be_activated_again() {
    let (_dir, path) = socket();
    let mut device = Vsock::new(3, &path, path.clone()).unwrap();
    // Connects before the driver is ready: waits.
    let mut early = UnixStream::connect(&path).unwrap();
    early.write_all(b"nonsense\n").unwrap();
    for _ in 0..3 {
        device.activate(activation(3)).unwrap();
        assert_eq!(early.read(&mut [0; 8]).ok().unwrap_or(0), 0);
        let mut host = UnixStream::connect(&path).unwrap();
        host.write_all(b"CONNECT 1\n").unwrap();
        // A refused one shows that the thread has got past the one before.
        let mut bad = UnixStream::connect(&path).unwrap();
        bad.write_all(b"bad\n").unwrap();
        assert_eq!(bad.read(&mut [0; 8]).unwrap(), 0);
        device.reset();
        assert_eq!(host.read(&mut [0; 8]).ok().unwrap_or(0), 0);
    }
}

#[test]
fn what_the_guest_sent_before_the_end_is_passed_on() {
    let mut guest = driver::guest();
    let key = driver::key(1, 2);
    let host = guest.connected(key, 1 << 16);
    for _ in 0..50 {
        guest.send_data(key, &[1; 1000]);
    }
    let stop = EventFd::new(EFD_NONBLOCK).unwrap();
    stop.write(1).unwrap();
    guest.engine.run(&stop).unwrap();
    let (data, ended) = driver::read_now(&host);
    assert_eq!((data.len(), ended), (50_000, true));
}

#[test]
fn wrong_number_of_queues_is_refused() {
    let (_dir, path) = socket();
    let mut device = Vsock::new(3, &path, path.clone()).unwrap();
    let error = device.activate(activation(2)).unwrap_err();
    assert!(matches!(error, ActivateError::QueueCount { expected: 3, found: 2 }));
}
