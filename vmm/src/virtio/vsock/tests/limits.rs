//! Bounds on what a guest or a host process can make the device hold.

use std::{io::Write, os::fd::AsRawFd};

use super::{
    super::{
        header::Op,
        muxer::{MAX_CONNECTIONS, MAX_GREETING},
    },
    driver::*,
};

/// How many descriptors this process may have, and how many at most.
fn descriptor_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole rlimit.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit
}

/// Sets how many descriptors this process may have. Tests run in processes of their own.
fn limit_descriptors(count: u64) {
    let limit = libc::rlimit { rlim_cur: count, ..descriptor_limit() };
    // SAFETY: `limit` is a whole rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

#[test]
fn host_processes_wait_while_there_are_no_descriptors() {
    let mut guest = guest();
    let mut host = guest.dial();
    host.write_all(b"CONNECT 5\n").unwrap();
    let before = descriptor_limit().rlim_cur;
    limit_descriptors(u64::try_from(host.as_raw_fd()).unwrap() + 1);
    guest.settle();
    assert!(guest.peers.is_empty());
    assert_eq!(guest.connect(key(1, 2), 100), Op::Reset);
    limit_descriptors(before);
    guest.send(key(1, 3), Op::CreditRequest);
    guest.settle();
    assert_eq!(guest.requested().guest_port, 5);
}

#[test]
fn connections_beyond_the_limit_are_reset() {
    limit_descriptors(descriptor_limit().rlim_max.min(10_000));
    let mut guest = guest();
    let listener = guest.listen(9);
    let mut hosts = Vec::new();
    for port in 0..u32::try_from(MAX_CONNECTIONS).unwrap() {
        assert_eq!(guest.connect(key(port, 9), 100), Op::Response);
        hosts.push(listener.accept().unwrap().0);
    }
    assert_eq!(guest.connect(key(5000, 9), 100), Op::Reset);
    // One that ends makes room, for a host process that waits too.
    let mut waiting = guest.dial();
    waiting.write_all(b"CONNECT 1\n").unwrap();
    guest.settle();
    hosts.pop();
    guest.settle();
    guest.requested();
    assert_eq!(guest.connect(key(5000, 9), 100), Op::Reset);
}

#[test]
fn host_processes_beyond_the_limit_wait_their_turn() {
    let mut guest = guest();
    let mut hosts: Vec<_> = (0..MAX_GREETING + 2)
        .map(|_| {
            let host = guest.dial();
            guest.settle();
            host
        })
        .collect();
    let mut last = hosts.pop().unwrap();
    last.write_all(b"CONNECT 77\n").unwrap();
    guest.settle();
    assert!(guest.peers.is_empty());
    // Two make room by leaving, or by getting on.
    hosts.pop();
    hosts[0].write_all(b"CONNECT 76\n").unwrap();
    guest.settle();
    assert_eq!(guest.accept().guest_port, 76);
    assert_eq!(guest.requested().guest_port, 77);
}

#[test]
fn guest_that_takes_no_answers_is_not_listened_to() {
    let mut guest = bare_guest();
    for port in 0..1000 {
        guest.send(key(port, 9), Op::CreditRequest);
    }
    guest.settle();
    assert!(guest.peers.is_empty());
    guest.refill = true;
    guest.give_buffers(8);
    guest.settle();
    assert_eq!(guest.peers.len(), 1000);
    assert!(guest.peers.values().all(|peer| peer.ops == [Op::Reset]));
}

#[test]
fn guest_that_opens_and_closes_without_taking_answers_is_not_listened_to() {
    let mut guest = bare_guest();
    let listener = guest.listen(9);
    listener.set_nonblocking(true).unwrap();
    for port in 0..2000 {
        guest.send(key(port, 9), Op::Request);
        guest.shut_down(key(port, 9), 3);
    }
    let mut accepted = 0;
    loop {
        guest.settle();
        let before = accepted;
        while listener.accept().is_ok() {
            accepted += 1;
        }
        if accepted == before {
            break;
        }
    }
    assert!(accepted < 300, "{accepted}");
}

#[test]
fn guest_that_opens_and_resets_without_taking_answers_leaves_nothing_behind() {
    let mut guest = bare_guest();
    let listener = guest.listen(9);
    for port in 0..1000 {
        guest.send(key(port, 9), Op::Request);
        guest.send(key(port, 9), Op::Reset);
        guest.settle();
        listener.accept().unwrap();
        assert_eq!(guest.engine.waiting(), 0);
    }
}
