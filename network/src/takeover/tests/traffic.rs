//! Real traffic between the outside and a guest.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::atomic::Ordering,
    thread,
};

use super::*;
use guest::Guest;

const AMOUNT: usize = 8 << 20;

/// Who answers on port 80.
fn answer(listener: TcpListener, who: &'static str) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(who.as_bytes());
        }
    });
}

fn ask(address: &str) -> io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(address)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Sends a lot one way, and sees that it arrives unchanged.
fn transfer(mut from: TcpStream, mut to: TcpStream) {
    let pattern: Vec<u8> = (0..AMOUNT).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
    let sent = pattern.clone();
    let sender = thread::spawn(move || from.write_all(&sent).unwrap());
    let mut got = Vec::new();
    to.read_to_end(&mut got).unwrap();
    sender.join().unwrap();
    assert!(got == pattern, "{} of {AMOUNT} bytes, or others", got.len());
}

#[test]
fn the_guest_has_the_traffic_and_gives_it_back() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    pod.ip("-6 addr add fd09::2/64 dev eth0 nodad");
    pod.ip("route add default via 10.9.0.1");
    answer(pod.netns.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap(), "pod");
    assert_eq!(ask("10.9.0.2:80").unwrap(), "pod");

    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        let guest = Guest::new(&nics[0].tap, &nics[0].interface);
        // The namespace's own stack would answer. The guest does, and has no such port.
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            assert_eq!(ask(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused, "{address}");
        }
        answer(guest.netns.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap(), "guest");
        for address in ["10.9.0.2:80", "[fd09::2]:80"] {
            assert_eq!(ask(address).unwrap(), "guest", "{address}");
        }

        // Both ways, with frames that are segmented and summed by nobody on their way.
        for address in ["10.9.0.1:0", "[fd09::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let at = listener.local_addr().unwrap();
            for from_guest in [true, false] {
                let inside = guest.netns.run(|| TcpStream::connect(at).unwrap()).unwrap();
                let (outside, _) = listener.accept().unwrap();
                if from_guest { transfer(inside, outside) } else { transfer(outside, inside) }
            }
        }
        let longest = guest.longest.load(Ordering::Relaxed);
        assert!(longest > 10_000, "no frame was longer than {longest} bytes");

        // A datagram in fragments.
        let outside = UdpSocket::bind("10.9.0.1:0").unwrap();
        let inside = guest.netns.run(|| UdpSocket::bind("10.9.0.2:0").unwrap()).unwrap();
        inside.send_to(&[9; 9000], outside.local_addr().unwrap()).unwrap();
        assert_eq!(outside.recv(&mut [0; 10_000]).unwrap(), 9000);

        takeover.release().await.unwrap();
    });
    // The guest is cut off, and the pod is as before.
    assert_eq!(ask("10.9.0.2:80").unwrap(), "pod");
    let qdiscs = pod.netns.run(|| crate::testing::run("tc", &["qdisc", "show"])).unwrap();
    assert!(!qdiscs.contains("ingress ffff: dev eth0"), "{qdiscs}");
}

#[test]
fn what_a_killed_husk_left_is_taken_over() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    block_on(async {
        // Dropped, not released: taps go, the ingress qdisc stays, as after SIGKILL.
        drop(Takeover::begin(pod.open()).unwrap());
        let qdiscs = pod.netns.run(|| crate::testing::run("tc", &["qdisc", "show"])).unwrap();
        assert!(qdiscs.contains("ingress"), "{qdiscs}");

        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        assert_eq!(nics.len(), 1, "the dead one's tap is gone");
        let guest = Guest::new(&nics[0].tap, &nics[0].interface);
        answer(guest.netns.run(|| TcpListener::bind("10.9.0.2:80").unwrap()).unwrap(), "guest");
        assert_eq!(ask("10.9.0.2:80").unwrap(), "guest");
        takeover.release().await.unwrap();
    });
}

#[test]
fn a_macvlan_is_taken_over_as_well() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("link del eth0");
    ip("link add par0 type veth peer name par1");
    ip("link set par0 up");
    ip("link set par1 up");
    ip("addr add 10.9.5.1/24 dev par1");
    ip(&format!("link add link par0 name mv0 netns {} type macvlan mode bridge", pod.netns.path().display()));
    pod.ip("link set mv0 up");
    pod.ip("addr add 10.9.5.2/24 dev mv0");
    block_on(async {
        let (takeover, nics) = Takeover::begin(pod.open()).unwrap();
        let guest = Guest::new(&nics[0].tap, &nics[0].interface);
        answer(guest.netns.run(|| TcpListener::bind("10.9.5.2:80").unwrap()).unwrap(), "guest");
        assert_eq!(ask("10.9.5.2:80").unwrap(), "guest");
        takeover.release().await.unwrap();
    });
}

#[test]
fn a_name_server_inside_may_ask_others() {
    let Some(_own) = Sandboxed::enter() else { return };
    let pod = Pod::new();
    pod.ip("addr add 10.9.0.2/24 dev eth0");
    let server = UdpSocket::bind("10.9.0.1:53").unwrap();
    thread::spawn(move || {
        let mut query = [0; 100];
        while let Ok((length, from)) = server.recv_from(&mut query) {
            server.send_to(&query[..length], from).unwrap();
        }
    });
    let asked = |netns: &Netns| {
        let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        socket.connect("10.9.0.1:53").unwrap();
        socket.send(b"who").unwrap();
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], b"who");
        socket.local_addr().unwrap().port()
    };
    let range =
        || pod.netns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap());
    let before = range().unwrap();
    block_on(async {
        let (mut takeover, nics) = Takeover::begin(pod.open()).unwrap();
        takeover.let_names_be_asked().unwrap();
        let guest = Guest::new(&nics[0].tap, &nics[0].interface);
        assert!(asked(&pod.netns) >= 61440);
        assert!(asked(&guest.netns) < 61440);
        assert!(!takeover.sysctls().unwrap().contains_key("net.ipv4.ip_local_port_range"));
        takeover.release().await.unwrap();
    });
    assert_eq!(range().unwrap(), before);
}
