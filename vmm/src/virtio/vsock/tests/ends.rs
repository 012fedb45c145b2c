//! How connections end, one direction at a time or both, in every order.

use std::{io::Write, net::Shutdown};

use super::{
    super::header::{Op, SHUTDOWN_RECEIVE, SHUTDOWN_SEND},
    driver::*,
};

const BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

#[test]
fn host_closes_one_direction_then_the_guest_the_other() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1 << 16);
    host.write_all(b"last words").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data, b"last words");
    assert_eq!(guest.peers[&key].shutdown, SHUTDOWN_SEND);
    guest.send_data(key, b"still here");
    guest.settle();
    assert_eq!(read_now(&host), (b"still here".to_vec(), false));
    guest.shut_down(key, SHUTDOWN_SEND);
    guest.settle();
    assert_eq!(read_now(&host), (vec![], true));
    assert_eq!(guest.peers[&key].shutdown, BOTH);
}

#[test]
fn guest_closes_one_direction_then_the_host_the_other() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1 << 16);
    guest.send_data(key, b"last words");
    guest.shut_down(key, SHUTDOWN_SEND);
    guest.settle();
    assert_eq!(read_now(&host), (b"last words".to_vec(), true));
    host.write_all(b"still here").unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data, b"still here");
    assert_eq!(guest.peers[&key].shutdown, 0);
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, BOTH);
}

#[test]
fn guest_that_closes_while_the_host_reads_slowly_loses_nothing() {
    for flags in [&[BOTH][..], &[SHUTDOWN_SEND], &[SHUTDOWN_SEND, SHUTDOWN_RECEIVE]] {
        let mut guest = guest();
        let key = key(1, 2);
        let host = guest.connected(key, 1 << 16);
        let data = pattern(2_000_000, 5);
        let mut sent = 0;
        while guest.peers[&key].credit() > 0 {
            let count = guest.peers[&key].credit().min(4000);
            guest.send_data(key, &data[sent..sent + count]);
            sent += count;
            guest.settle();
        }
        for &flags in flags {
            guest.shut_down(key, flags);
        }
        guest.settle();
        let closed = flags.iter().fold(0, |all, flags| all | flags) == BOTH;
        // The guest need not wait for the host's reader.
        assert_eq!(guest.peers[&key].ops.contains(&Op::Reset), closed);
        let mut seen = Vec::new();
        loop {
            let (part, ended) = read_now(&host);
            seen.extend(part);
            if ended {
                break;
            }
            guest.settle();
        }
        assert!(seen == data[..sent]);
    }
}

#[test]
fn guest_that_closes_is_answered_and_may_use_its_ports_again() {
    let mut guest = guest();
    let key = key(1, 2);
    let listener = guest.listen(2);
    for _ in 0..3 {
        assert_eq!(guest.connect(key, 1 << 16), Op::Response);
        let (host, _) = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();
        guest.shut_down(key, BOTH);
        guest.settle();
        assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Reset]);
        assert_eq!(read_now(&host), (vec![], true));
    }
}

#[test]
fn host_reads_an_end_though_the_guest_left_input_unread() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 10);
    host.write_all(&pattern(5000, 1)).unwrap();
    guest.send_data(key, b"output");
    guest.settle();
    guest.shut_down(key, BOTH);
    guest.settle();
    assert_eq!(read_now(&host), (b"output".to_vec(), true));
    assert!(host.write_all(b"more").is_err());
}

#[test]
fn host_that_closes_ends_both_directions() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1 << 16);
    host.write_all(b"bye").unwrap();
    drop(host);
    guest.settle();
    let peer = &guest.peers[&key];
    assert_eq!((peer.data.as_slice(), peer.shutdown), (b"bye".as_slice(), BOTH));
    // The guest's answer is not answered, and what it sends by mistake is.
    guest.send(key, Op::Reset);
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Shutdown]);
    guest.send_data(key, b"too late");
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Shutdown, Op::Reset]);
}

#[test]
fn host_that_closes_in_two_steps_ends_both_directions() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    host.shutdown(Shutdown::Write).unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, SHUTDOWN_SEND);
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, BOTH);
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Shutdown, Op::Shutdown]);
}

#[test]
fn host_that_closes_without_reading_resets() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    guest.send_data(key, b"never read");
    guest.settle();
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::Reset]);
}

#[test]
fn host_that_closes_with_data_held_ends_the_connection() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    while guest.peers[&key].credit() > 0 {
        let count = guest.peers[&key].credit().min(4000);
        guest.send_data(key, &vec![0; count]);
        guest.settle();
    }
    drop(host);
    guest.settle();
    let last = *guest.peers[&key].ops.last().unwrap();
    assert!(last == Op::Reset || guest.peers[&key].shutdown == BOTH, "{last:?}");
}

#[test]
fn host_that_stops_reading_is_told_to_the_guest() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1 << 16);
    host.shutdown(Shutdown::Read).unwrap();
    guest.send_data(key, b"unwanted");
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, SHUTDOWN_RECEIVE);
    // The other direction lives on, and what was under way is no offence.
    guest.send_data(key, b"unwanted");
    host.write_all(b"still here").unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data, b"still here");
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, BOTH);
}

#[test]
fn guest_that_stops_reading_is_told_to_the_host() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1 << 16);
    guest.shut_down(key, SHUTDOWN_RECEIVE);
    guest.settle();
    assert_eq!(host.write(b"unwanted").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    guest.send_data(key, b"still here");
    guest.settle();
    assert_eq!(read_now(&host), (b"still here".to_vec(), false));
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].shutdown, BOTH);
}

#[test]
fn guest_that_resets_closes_the_hosts_end() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    guest.send_data(key, b"sent before");
    guest.send(key, Op::Reset);
    guest.settle();
    assert_eq!(read_now(&host), (b"sent before".to_vec(), true));
    assert_eq!(guest.peers[&key].ops, [Op::Response]);
}

#[test]
fn host_that_leaves_a_slow_guest_is_told_after_the_data() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 100);
    let data = pattern(1000, 6);
    host.write_all(&data).unwrap();
    drop(host);
    guest.settle();
    while guest.peers[&key].data.len() < 1000 {
        assert_eq!(guest.peers[&key].shutdown, 0);
        guest.read_all(key);
    }
    guest.read_all(key);
    assert_eq!((guest.peers[&key].data.clone(), guest.peers[&key].shutdown), (data, BOTH));
}
