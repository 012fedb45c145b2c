//! vsock streams between host and guest: many, in both directions, to the last byte.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    thread,
};

use husk_tests::{oci::noise, vm::Plan};

/// Sends everything, ends its side, and returns what comes back until the other side ends.
fn exchange(mut stream: UnixStream, sent: &[u8]) -> Vec<u8> {
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        received
    });
    stream.write_all(sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    reading.join().unwrap()
}

/// Sends back whatever comes on each of so many connections.
fn echo(listener: UnixListener, connections: usize) -> Vec<thread::JoinHandle<io::Result<u64>>> {
    let accepted: Vec<_> = (0..connections).map(|_| listener.accept().unwrap().0).collect();
    let echo_one = |stream: UnixStream| {
        thread::spawn(move || {
            let count = io::copy(&mut &stream, &mut &stream)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(count)
        })
    };
    accepted.into_iter().map(echo_one).collect()
}

#[test]
fn from_the_host_one_after_another_and_many_at_once() {
    let mut vm = Plan::new().boot();
    assert_eq!(vm.ask("echo 5000"), "ok");
    for len in [0, 1, 1000, 300_000] {
        let sent = noise(len);
        assert!(exchange(vm.connect(5000).unwrap(), &sent) == sent, "{len} bytes");
    }
    let streams: Vec<_> = (0..60).map(|_| vm.connect(5000).unwrap()).collect();
    let exchanges: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| {
            thread::spawn(move || {
                let sent = noise(50_000 + number);
                exchange(stream, &sent) == sent
            })
        })
        .collect();
    assert!(exchanges.into_iter().all(|exchange| exchange.join().unwrap()));
    assert_eq!(vm.control("shutdown")["ok"], serde_json::json!({}));
    vm.finish().0.expect_code(0);
}

#[test]
fn from_the_guest_many_at_once() {
    const CONNECTIONS: usize = 40;
    let mut vm = Plan::new().with("vcpus", 2).boot();
    let listener = vm.listen(6000);
    vm.tell(&format!("dial 6000 {CONNECTIONS} 100000"));
    for echo in echo(listener, CONNECTIONS) {
        assert_eq!(echo.join().unwrap().unwrap(), 100_000);
    }
    assert_eq!(vm.answer(), "ok");
    vm.tell("reset");
    vm.finish().0.expect_code(0);
}

#[test]
fn ten_megabytes_each_way_at_once() {
    let mut vm = Plan::new().with("vcpus", 2).boot();
    assert_eq!(vm.ask("echo 5000"), "ok");
    let sent = noise(10 << 20);
    assert!(exchange(vm.connect(5000).unwrap(), &sent) == sent, "the bytes differ");
    vm.tell("reset");
    vm.finish().0.expect_code(0);
}

#[test]
fn who_does_not_read_holds_up_nobody_else() {
    let mut vm = Plan::new().boot();
    assert_eq!(vm.ask("echo 5000"), "ok");
    let stuck = vm.connect(5000).unwrap();
    stuck.set_nonblocking(true).unwrap();
    // Until nothing more fits anywhere on the way to the guest and back.
    let block = noise(64 << 10);
    let mut sent = 0;
    loop {
        match (&stuck).write(&block) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 << 20, "who holds all this?");
    }
    let other = noise(200_000);
    assert!(exchange(vm.connect(5000).unwrap(), &other) == other);
    vm.tell("reset");
    vm.finish().0.expect_code(0);
}

#[test]
fn the_guests_end_is_the_end_of_its_streams() {
    let mut vm = Plan::new().boot();
    assert_eq!(vm.ask("echo 5000"), "ok");
    let mut stream = vm.connect(5000).unwrap();
    vm.tell("reset");
    // An end or a reset, but no waiting for ever.
    let end = stream.read(&mut [0]);
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    vm.finish().0.expect_code(0);
}
