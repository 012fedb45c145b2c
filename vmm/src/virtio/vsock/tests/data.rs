//! Data: everything arrives, in order, never more than the receiver has room for.

use std::{
    io::{ErrorKind, Write},
    os::unix::net::UnixStream,
};

use super::{
    super::{
        connection::BUF_ALLOC,
        header::{HEADER_LEN, Key, Op},
    },
    driver::*,
};

/// Writes what the socket takes now; returns how much.
fn write_now(mut host: &UnixStream, data: &[u8]) -> usize {
    let mut done = 0;
    while done < data.len() {
        match host.write(&data[done..]) {
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    done
}

/// Sends as much as the credit allows, in packets of up to `chunk` bytes; returns how much.
fn send_within_credit(guest: &mut Guest, key: Key, data: &[u8], chunk: usize) -> usize {
    let credit = guest.peers[&key].credit().min(data.len());
    for part in data[..credit].chunks(chunk) {
        guest.send_data(key, part);
    }
    guest.settle();
    credit
}

#[test]
fn megabytes_to_the_guest_arrive_in_order() {
    for (buf_alloc, rx_len) in [(1 << 18, 4096), (10_007, 777), (1, 4096), (100_000, 0x1_1000)] {
        let total = if buf_alloc == 1 { 300 } else { 3_000_000 };
        let mut guest = bare_guest();
        guest.refill = true;
        guest.rx_len = rx_len;
        guest.give_buffers(7);
        let key = key(1, 2);
        let host = guest.connected(key, buf_alloc);
        let data = pattern(total, buf_alloc);
        let mut written = 0;
        while guest.peers[&key].data.len() < total {
            written += write_now(&host, &data[written..]);
            guest.settle();
            guest.read_all(key);
        }
        assert!(guest.peers[&key].data == data);
    }
}

#[test]
fn megabytes_to_the_host_arrive_in_order() {
    for chunk in [65536, 4000, 333] {
        let mut guest = guest();
        let key = key(1, 2);
        let host = guest.connected(key, 1 << 16);
        let data = pattern(3_000_000, 7);
        let (mut sent, mut seen) = (0, Vec::new());
        while seen.len() < data.len() {
            sent += send_within_credit(&mut guest, key, &data[sent..], chunk);
            seen.extend(read_now(&host).0);
            guest.settle();
        }
        assert!(seen == data);
        // Far fewer than one for each packet.
        let updates = guest.peers[&key].updates;
        assert!(updates > 0 && updates <= data.len() / (BUF_ALLOC as usize / 4), "{updates} updates");
    }
}

#[test]
fn guest_without_credit_makes_the_host_wait() {
    let mut guest = guest();
    let key = key(1, 2);
    let mut host = guest.connected(key, 1000);
    host.write_all(&pattern(1500, 1)).unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data.len(), 1000);
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::CreditRequest]);
    // An answer that gives none is not followed by another question.
    guest.send(key, Op::CreditUpdate);
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Response, Op::CreditRequest]);
    guest.read_all(key);
    assert_eq!(guest.peers[&key].data, pattern(1500, 1));
}

#[test]
fn guest_without_buffers_makes_the_host_wait() {
    let mut guest = bare_guest();
    let key = key(1, 2);
    guest.give_buffers(1);
    let mut host = guest.connected(key, 1 << 18);
    let data = pattern(10_000, 3);
    host.write_all(&data).unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data.len(), 0);
    guest.give_buffers(1);
    guest.settle();
    assert_eq!(guest.peers[&key].data.len(), 4096 - 44);
    drop(host);
    guest.settle();
    guest.give_buffers(8);
    guest.settle();
    assert_eq!(guest.peers[&key].data, data);
    assert_eq!(guest.peers[&key].shutdown, 3);
}

#[test]
fn host_that_reads_slowly_makes_the_guest_wait() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    let data = pattern(2_000_000, 9);
    let mut sent = 0;
    loop {
        let count = send_within_credit(&mut guest, key, &data[sent..], 5000);
        if count == 0 {
            break;
        }
        sent += count;
    }
    // The socket's buffer and the device's are full, and the device holds no more than it promised.
    assert!(sent > BUF_ALLOC as usize && sent < data.len());
    assert_eq!(guest.peers[&key].credit(), 0);
    let mut seen = Vec::new();
    while seen.len() < data.len() {
        seen.extend(read_now(&host).0);
        guest.settle();
        sent += send_within_credit(&mut guest, key, &data[sent..], 5000);
    }
    assert!(seen == data);
}

#[test]
fn guest_that_ignores_its_credit_is_reset() {
    let mut guest = guest();
    let key = key(1, 2);
    let host = guest.connected(key, 1 << 16);
    let data = pattern(65536, 4);
    for _ in 0..16 {
        guest.send_data(key, &data);
    }
    guest.settle();
    assert_eq!(guest.peers[&key].ops.get(1), Some(&Op::Reset));
    let (seen, ended) = read_now(&host);
    assert!(ended && seen.len() < 16 * 65536);
}

#[test]
fn credit_is_told_when_asked() {
    let mut guest = guest();
    let key = key(1, 2);
    let _host = guest.connected(key, 1 << 16);
    guest.send_data(key, b"12345");
    guest.settle();
    assert_eq!((guest.peers[&key].updates, guest.peers[&key].device_fwd), (0, 0));
    guest.send(key, Op::CreditRequest);
    guest.settle();
    assert_eq!((guest.peers[&key].updates, guest.peers[&key].device_fwd), (1, 5));
    assert_eq!(guest.peers[&key].device_alloc, BUF_ALLOC);
}

#[test]
fn hundred_connections_at_once() {
    let mut guest = guest();
    let keys: Vec<Key> = (0..100).map(|n| key(1000 + n, 7)).collect();
    let listener = guest.listen(7);
    let hosts: Vec<UnixStream> = keys
        .iter()
        .map(|&key| {
            assert_eq!(guest.connect(key, 30_000), Op::Response);
            let (host, _) = listener.accept().unwrap();
            host.set_nonblocking(true).unwrap();
            host
        })
        .collect();
    let to_guest: Vec<Vec<u8>> = (0..100).map(|n| pattern(60_000, n)).collect();
    let to_host: Vec<Vec<u8>> = (0..100).map(|n| pattern(50_000, 1000 + n)).collect();
    let (mut written, mut sent) = ([0; 100], [0; 100]);
    let mut seen = vec![Vec::new(); 100];
    while (0..100).any(|n| seen[n].len() < 50_000 || guest.peers[&keys[n]].data.len() < 60_000) {
        for n in 0..100 {
            written[n] += write_now(&hosts[n], &to_guest[n][written[n]..]);
            let credit = guest.peers[&keys[n]].credit().min(50_000 - sent[n]).min(20_000);
            if credit > 0 {
                guest.send_data(keys[n], &to_host[n][sent[n]..sent[n] + credit]);
                sent[n] += credit;
            }
        }
        guest.settle();
        for n in 0..100 {
            seen[n].extend(read_now(&hosts[n]).0);
            guest.read_all(keys[n]);
        }
    }
    for n in 0..100 {
        assert!(seen[n] == to_host[n] && guest.peers[&keys[n]].data == to_guest[n]);
    }
}

#[test]
fn no_buffer_is_lost_when_data_ends_with_one() {
    let mut guest = bare_guest();
    let key = key(1, 2);
    guest.give_buffers(3);
    let mut host = guest.connected(key, 1 << 18);
    let room = guest.rx_len - HEADER_LEN;
    for n in 1..=2 {
        host.write_all(&pattern(room, 1)).unwrap();
        guest.settle();
        assert_eq!(guest.peers[&key].data.len(), n * room);
    }
}
