//! How connections begin.

use std::io::Write;

use super::{super::header::Op, driver::*};

#[test]
fn guest_reaches_the_host_and_both_talk() {
    let mut guest = guest();
    let key = key(5000, 1024);
    let mut host = guest.connected(key, 1 << 16);
    guest.send_data(key, b"from the guest");
    guest.settle();
    assert_eq!(read_now(&host), (b"from the guest".to_vec(), false));
    host.write_all(b"from the host").unwrap();
    guest.settle();
    assert_eq!(guest.peers[&key].data, b"from the host");
    assert_eq!(guest.peers[&key].ops, [Op::Response]);
}

#[test]
fn guest_is_refused_when_nobody_listens() {
    let mut guest = guest();
    assert_eq!(guest.connect(key(5000, 1024), 1 << 16), Op::Reset);
    // A socket file without a listener.
    drop(guest.listen(1025));
    assert_eq!(guest.connect(key(5000, 1025), 1 << 16), Op::Reset);
}

#[test]
fn host_reaches_the_guest_and_both_talk() {
    let mut guest = guest();
    let mut host = guest.dial();
    // What follows the line is for the guest's process.
    host.write_all(b"CONNECT 52\nfirst").unwrap();
    guest.settle();
    let key = guest.requested();
    assert_eq!(key.guest_port, 52);
    assert_eq!(read_now(&host), (vec![], false));
    guest.send(key, Op::Response);
    guest.settle();
    assert_eq!(read_now(&host), (format!("OK {}\n", key.host_port).into_bytes(), false));
    assert_eq!(guest.peers[&key].data, b"first");
    guest.send_data(key, b"answer");
    guest.settle();
    assert_eq!(read_now(&host), (b"answer".to_vec(), false));
}

#[test]
fn host_is_refused_when_the_guest_resets() {
    let mut guest = guest();
    let mut host = guest.dial();
    host.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    let key = guest.requested();
    guest.send(key, Op::Reset);
    guest.settle();
    assert_eq!(read_now(&host), (vec![], true));
    assert_eq!(guest.peers[&key].ops, [Op::Request], "a reset is not answered");
}

#[test]
fn host_that_leaves_before_the_answer_resets_the_request() {
    let mut guest = guest();
    let mut host = guest.dial();
    host.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    let key = guest.requested();
    drop(host);
    guest.settle();
    assert_eq!(guest.peers[&key].ops, [Op::Request, Op::Reset]);
}

#[test]
fn host_that_leaves_before_the_guest_hears_of_it_leaves_no_trace() {
    let mut guest = bare_guest();
    let mut host = guest.dial();
    host.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    drop(host);
    guest.settle();
    guest.give_buffers(4);
    guest.settle();
    assert!(guest.peers.is_empty());
}

#[test]
fn line_may_come_in_pieces() {
    let mut guest = guest();
    let mut host = guest.dial();
    for byte in b"CONNECT 4294967295\n" {
        assert!(guest.peers.is_empty());
        host.write_all(&[*byte]).unwrap();
        guest.settle();
    }
    assert_eq!(guest.requested().guest_port, u32::MAX);
}

#[test]
fn bad_lines_close_the_connection() {
    let mut guest = guest();
    let long = [b'1'; 64];
    for line in [
        b"CONNECT 4294967296\n".as_slice(),
        b"CONNECT -1\n",
        b"CONNECT +1\n",
        b"CONNECT \n",
        b"CONNECT 1 \n",
        b"connect 1\n",
        b"\n",
        b"CONNECT \xff\n",
        &long,
    ] {
        let mut host = guest.dial();
        host.write_all(line).unwrap();
        guest.settle();
        let end = std::io::Read::read(&mut host, &mut [0; 8]);
        assert!(!matches!(end, Ok(1..)) && !would_block(&end), "{line:?}");
    }
    let host = guest.dial();
    host.shutdown(std::net::Shutdown::Write).unwrap();
    guest.settle();
    assert_eq!(read_now(&host), (vec![], true));
    assert!(guest.peers.is_empty());
}

fn would_block(result: &std::io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn ports_of_the_host_differ() {
    let mut guest = guest();
    let mut first = guest.dial();
    first.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    let key = guest.accept();
    let mut second = guest.dial();
    second.write_all(b"CONNECT 52\n").unwrap();
    guest.settle();
    assert_ne!(guest.requested().host_port, key.host_port);
}
