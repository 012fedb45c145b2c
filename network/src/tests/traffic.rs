//! Real sockets in guests, on the host and outside.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use super::{
    attach::block_on,
    everybody,
    guest::Guest,
    namespace::{Namespace, ip, nft, shell},
    networks, port, request,
};
use crate::{AttachRequest, Attachment, Networks, NewNetwork, publish::PortProtocol};

const TIMEOUT: Duration = Duration::from_secs(20);
const HOST4: &str = "192.0.2.1";
const HOST6: &str = "2001:db8::1";
const OUTSIDE4: &str = "192.0.2.2";
const OUTSIDE6: &str = "2001:db8::2";

/// A host and somebody outside, on one link.
fn host_and_outside() -> Option<(Namespace, Namespace)> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    host.connect(
        ("up0", &["192.0.2.1/24", "2001:db8::1/64"]),
        &outside,
        ("out0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    Some((host, outside))
}

fn join(host: &Namespace, networks: &Networks, request: &AttachRequest) -> (Guest, Attachment) {
    let attached = host.run(|| networks.attach(request, &everybody)).unwrap();
    (Guest::new(attached.nic), attached.attachment)
}

fn leave(host: &Namespace, attachments: impl IntoIterator<Item = Attachment> + Send) {
    host.run(|| {
        attachments.into_iter().for_each(|attachment| block_on(attachment.detach()).unwrap());
        assert_eq!(nft("list ruleset"), "");
    });
}

fn address(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().unwrap(), port).into()
}

fn listen(namespace: &Namespace, port: u16) -> TcpListener {
    namespace.run(|| TcpListener::bind(("::", port))).unwrap()
}

/// Connects, and sends a word both ways. Returns whom the listener saw.
fn talk(from: &Namespace, to: SocketAddr, listener: &TcpListener) -> IpAddr {
    let mut client = from.run(|| TcpStream::connect_timeout(&to, TIMEOUT)).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    let mut word = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut word).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
    peer.ip().to_canonical()
}

fn udp(namespace: &Namespace, bind: SocketAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind(bind)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 100];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..len].to_vec(), from)
}

#[test]
fn what_leaves_has_the_hosts_address() {
    let Some((host, outside)) = host_and_outside() else { return };
    let (_dir, networks) = networks();
    let (guest, attachment) = join(&host, &networks, &request("default", 1));
    let listener = listen(&outside, 9000);
    assert_eq!(talk(&guest.namespace, address(OUTSIDE4, 9000), &listener).to_string(), HOST4);
    assert_eq!(talk(&guest.namespace, address(OUTSIDE6, 9000), &listener).to_string(), HOST6);
    // The host itself sees who it is.
    let own = listen(&host, 9001);
    assert_eq!(talk(&guest.namespace, address(HOST4, 9001), &own), attachment.lease.ipv4);
    leave(&host, [attachment]);
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    published_ports_are_reached(false);
}

/// As on hosts with Docker or Kubernetes. There, a container does not reach itself by a port of the host's: the bridge
/// sends nothing back to where it came from.
#[test]
fn published_ports_are_reached_when_bridged_packets_pass_the_rules() {
    published_ports_are_reached(true);
}

fn published_ports_are_reached(bridge_netfilter: bool) {
    let Some((host, outside)) = host_and_outside() else { return };
    let present = host.run(|| {
        let value = u8::from(bridge_netfilter);
        shell(&format!(
            "cd /proc/sys/net/bridge 2>/dev/null || exit 0
             for of in iptables ip6tables; do echo {value} > bridge-nf-call-$of; done; echo yes"
        ))
    });
    if bridge_netfilter && present.is_empty() {
        eprintln!("SKIPPED: this kernel has no br_netfilter");
        return;
    }
    let (_dir, networks) = networks();
    host.run(|| networks.create(&NewNetwork { name: "other".into(), ..NewNetwork::default() })).unwrap();
    let host4: Ipv4Addr = HOST4.parse().unwrap();
    let ports = vec![
        port(None, 8080, 80, PortProtocol::Tcp),
        port(Some(host4), 8081, 80, PortProtocol::Tcp),
        port(None, 8080, 53, PortProtocol::Udp),
    ];
    let server = AttachRequest { ports, ..request("default", 1) };
    let (server, attachment) = join(&host, &networks, &server);
    let (neighbour, near) = join(&host, &networks, &request("default", 2));
    let (stranger, far) = join(&host, &networks, &request("other", 3));

    let listener = listen(&server.namespace, 80);
    let any4 = address(HOST4, 8080);
    let any6 = address(HOST6, 8080);
    let one4 = address(HOST4, 8081);
    for to in [any4, one4] {
        assert_eq!(talk(&outside, to, &listener).to_string(), OUTSIDE4);
    }
    assert_eq!(talk(&outside, any6, &listener).to_string(), OUTSIDE6);
    let itself = (!bridge_netfilter).then_some(&server.namespace);
    for from in [&host, &neighbour.namespace, &stranger.namespace].into_iter().chain(itself) {
        for to in [any4, one4, any6] {
            talk(from, to, &listener);
        }
    }
    let served = udp(&server.namespace, address("0.0.0.0", 53));
    let client = udp(&outside, address("0.0.0.0", 0));
    client.send_to(b"question", any4).unwrap();
    let (question, from) = receive(&served);
    assert_eq!(question, b"question");
    served.send_to(b"answer", from).unwrap();
    assert_eq!(receive(&client), (b"answer".to_vec(), any4));
    leave(&host, [attachment, near, far]);
}

#[test]
fn networks_do_not_reach_each_other() {
    let Some((host, outside)) = host_and_outside() else { return };
    let (_dir, networks) = networks();
    host.run(|| networks.create(&NewNetwork { name: "other".into(), ..NewNetwork::default() })).unwrap();
    let ports = vec![port(None, 5000, 5000, PortProtocol::Udp)];
    let (server, attachment) = join(&host, &networks, &AttachRequest { ports, ..request("default", 1) });
    let (neighbour, near) = join(&host, &networks, &request("default", 2));
    let (stranger, far) = join(&host, &networks, &request("other", 3));
    let lease = &attachment.lease;
    // Whoever is outside and knows the way can't come in by the containers' own addresses.
    outside.run(|| ip(&format!("route add {}/32 via {HOST4}", lease.ipv4)));

    let served = udp(&server.namespace, address("::", 5000));
    for from in [&stranger.namespace, &outside] {
        for (own, published) in [(lease.ipv4.into(), HOST4), (IpAddr::from(lease.ipv6.unwrap()), HOST6)] {
            let client = udp(from, address(if own.is_ipv4() { "0.0.0.0" } else { "::" }, 0));
            let _ = client.send_to(b"directly", (own, 5000));
            client.send_to(b"by the published port", address(published, 5000)).unwrap();
            // In the order in which they were sent: so the first did not arrive.
            assert_eq!(receive(&served).0, b"by the published port");
        }
    }
    let client = udp(&neighbour.namespace, address("0.0.0.0", 0));
    client.send_to(b"directly", (lease.ipv4, 5000)).unwrap();
    assert_eq!(receive(&served).0, b"directly");
    leave(&host, [attachment, near, far]);
}

#[test]
fn an_internal_network_has_no_way_out() {
    let Some((host, outside)) = host_and_outside() else { return };
    let (_dir, networks) = networks();
    let new = NewNetwork { name: "inside".into(), internal: true, ..NewNetwork::default() };
    let network = host.run(|| networks.create(&new)).unwrap();
    let (guest, attachment) = join(&host, &networks, &request("inside", 1));
    let (neighbour, near) = join(&host, &networks, &request("inside", 2));
    // Another network switched forwarding on; and the guest is not as it was told to be.
    let (_, other) = join(&host, &networks, &request("default", 3));
    guest.namespace.run(|| ip(&format!("route add default via {}", network.ipv4.gateway)));

    let (host_socket, outside_socket) =
        (udp(&host, address("0.0.0.0", 7)), udp(&outside, address("0.0.0.0", 7)));
    let client = udp(&guest.namespace, address("0.0.0.0", 0));
    client.send_to(b"out", address(OUTSIDE4, 7)).unwrap();
    client.send_to(b"to another address of the host", address(HOST4, 7)).unwrap();
    client.send_to(b"to the gateway", (network.ipv4.gateway, 7)).unwrap();
    assert_eq!(receive(&host_socket).0, b"to the gateway");
    udp(&host, address("0.0.0.0", 0)).send_to(b"from the host", address(OUTSIDE4, 7)).unwrap();
    assert_eq!(receive(&outside_socket).0, b"from the host");

    let listener = listen(&neighbour.namespace, 80);
    let lease = &near.lease;
    assert_eq!(talk(&guest.namespace, (lease.ipv4, 80).into(), &listener), attachment.lease.ipv4);
    talk(&guest.namespace, (lease.ipv6.unwrap(), 80).into(), &listener);
    leave(&host, [attachment, near, other]);
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    let Some((host, _outside)) = host_and_outside() else { return };
    let (_dir, networks) = networks();
    let (guest, attachment) = join(&host, &networks, &request("default", 1));
    // Others (kube-proxy) open the loopback to what comes from outside.
    host.run(|| shell("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"));
    let gateway = attachment.network.ipv4.gateway;
    guest.namespace.run(|| {
        shell(&format!(
            "ip address delete 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via {gateway};
             echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"
        ))
    });
    let server = udp(&host, address("0.0.0.0", 7));
    let client = udp(&guest.namespace, SocketAddr::from((attachment.lease.ipv4, 0)));
    client.send_to(b"to the loopback", address("127.0.0.1", 7)).unwrap();
    client.send_to(b"to the gateway", (gateway, 7)).unwrap();
    assert_eq!(receive(&server).0, b"to the gateway");
    leave(&host, [attachment]);
    host.run(|| assert!(ip("-o link").lines().all(|line| !line.contains("hk"))));
}
