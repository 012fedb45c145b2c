//! Relays between real sockets on loopback.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::{BoundPort, HostPort, PortProtocol, PortRequest, Relay, bind::bind, udp};

/// The container: an address that nobody else uses, and that has nothing to do with those that are published.
const CONTAINER: &str = "127.66.0.2";
const MEGABYTES: usize = 8 << 20;

fn container() -> [IpAddr; 1] {
    [CONTAINER.parse().unwrap()]
}

/// Publishes one port of the container, and gives the port of the host that leads there.
fn claim(container_port: u16, protocol: PortProtocol) -> (u16, Vec<BoundPort>) {
    let request = PortRequest { host_ip: None, host_port: HostPort::Any, container_port, protocol };
    let bound = bind(&[request]).unwrap();
    (bound[0].mapping.host_port, bound)
}

async fn publish_tcp(listener: &TcpListener) -> (u16, Relay) {
    let (port, bound) = claim(listener.local_addr().unwrap().port(), PortProtocol::Tcp);
    (port, Relay::start(bound, &container()).unwrap())
}

/// Bytes that differ from place to place.
fn pattern(seed: u8) -> Vec<u8> {
    (0..MEGABYTES).map(|at| (at % 251).to_le_bytes()[0].wrapping_add(seed)).collect()
}

#[tokio::test]
async fn tcp_megabytes_go_both_ways_at_once_and_halves_close_apart() {
    let listener = TcpListener::bind((CONTAINER, 0)).await.unwrap();
    let (port, _relay) = publish_tcp(&listener).await;
    let clients: [SocketAddr; 2] =
        [([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()];
    for address in clients {
        let client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (up, down) = (pattern(1), pattern(2));
        let (mut client_in, mut client_out) = client.into_split();
        let (mut server_in, mut server_out) = server.into_split();
        // The client has said all before the server begins: its half is closed, the other one works.
        let (mut heard, mut answer) = (Vec::new(), Vec::new());
        let ask = async {
            client_out.write_all(&up).await.unwrap();
            client_out.shutdown().await.unwrap();
        };
        let begin = down.len() / 2;
        let serve = async {
            server_out.write_all(&down[..begin]).await.unwrap();
            server_in.read_to_end(&mut heard).await.unwrap();
            server_out.write_all(&down[begin..]).await.unwrap();
            server_out.shutdown().await.unwrap();
        };
        let listen = async { client_in.read_to_end(&mut answer).await.unwrap() };
        tokio::join!(ask, serve, listen);
        assert!(heard == up && answer == down, "{address}");
    }
}

#[tokio::test]
async fn tcp_a_reader_that_is_slow_holds_the_writer_up() {
    let listener = TcpListener::bind((CONTAINER, 0)).await.unwrap();
    let (port, _relay) = publish_tcp(&listener).await;
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let data = vec![7; 1 << 20];
    let mut written = 0;
    // Nobody reads: sockets fill up, and then nothing goes any more. Far less than this is buffered anywhere.
    let full = async {
        while written < 1 << 30 {
            match tokio::time::timeout(Duration::from_millis(500), client.writable()).await {
                Ok(ready) => {
                    ready.unwrap();
                    written += client.try_write(&data).unwrap_or(0);
                }
                Err(_) => break,
            }
        }
    };
    full.await;
    assert!((1..1 << 30).contains(&written), "{written}");
    drop(client);
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match server.read(&mut buffer).await.unwrap() {
            0 => break,
            more => read += more,
        }
    }
    assert_eq!(read, written);
}

#[tokio::test]
async fn tcp_a_refusal_and_a_reset_reach_the_client() {
    let listener = TcpListener::bind((CONTAINER, 0)).await.unwrap();
    let (port, relay) = publish_tcp(&listener).await;
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    let reset = |error: std::io::Error| assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    reset(client.read(&mut [0; 1]).await.unwrap_err());

    drop(listener);
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    reset(client.read(&mut [0; 1]).await.unwrap_err());
    relay.stop().await;
}

#[tokio::test]
async fn tcp_connections_end_with_the_relay() {
    let listener = TcpListener::bind((CONTAINER, 0)).await.unwrap();
    let (port, relay) = publish_tcp(&listener).await;
    let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    client.write_all(b"x").await.unwrap();
    server.read_exact(&mut [0; 1]).await.unwrap();
    drop(relay);
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    let refused = TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn tcp_connections_are_taken_before_the_relay_starts() {
    let listener = TcpListener::bind((CONTAINER, 0)).await.unwrap();
    let (port, bound) = claim(listener.local_addr().unwrap().port(), PortProtocol::Tcp);
    let mut early = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    early.write_all(b"early").await.unwrap();
    let _relay = Relay::start(bound, &container()).unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut heard = [0; 5];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"early");
}

/// A UDP server that answers with what it heard, for as long as it is polled.
async fn echo(server: &UdpSocket) -> ! {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        server.send_to(&buffer[..length], from).await.unwrap();
    }
}

async fn ask(client: &UdpSocket, data: &[u8]) {
    let mut answer = vec![0; 65_535];
    client.send(data).await.unwrap();
    let length = client.recv(&mut answer).await.unwrap();
    assert!(answer[..length] == *data, "{length} of {} bytes", data.len());
}

/// A client that hears nothing but what comes from the very address it asked.
async fn udp_client(to: SocketAddr) -> UdpSocket {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let client = UdpSocket::bind(any).await.unwrap();
    client.connect(to).await.unwrap();
    client
}

#[tokio::test]
async fn udp_megabytes_go_both_ways_for_clients_apart() {
    let server = UdpSocket::bind((CONTAINER, 0)).await.unwrap();
    let (port, bound) = claim(server.local_addr().unwrap().port(), PortProtocol::Udp);
    let relay = Relay::start(bound, &container()).unwrap();
    let clients = async {
        let mut clients = Vec::new();
        // The third is an address from which the kernel would not answer by itself.
        for ip in ["127.0.0.1", "::1", "127.0.0.9", "127.0.0.1"] {
            clients.push(udp_client(SocketAddr::new(ip.parse().unwrap(), port)).await);
        }
        let data = pattern(3);
        for (at, chunk) in data.chunks(60_000).enumerate() {
            ask(&clients[at % clients.len()], chunk).await;
        }
        // Empty datagrams are datagrams, and so is the longest.
        ask(&clients[0], b"").await;
        ask(&clients[0], &data[..65_507]).await;
    };
    tokio::select! {
        () = clients => {}
        _ = echo(&server) => {}
    }
    relay.stop().await;
    let again = PortRequest {
        host_ip: None,
        host_port: HostPort::FirstOf(port..=port),
        container_port: 1,
        protocol: PortProtocol::Udp,
    };
    bind(&[again]).unwrap();
}

#[tokio::test]
async fn udp_a_port_that_opens_late_is_reached() {
    let server = UdpSocket::bind((CONTAINER, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let (port, bound) = claim(address.port(), PortProtocol::Udp);
    let _relay = Relay::start(bound, &container()).unwrap();
    let client = udp_client(([127, 0, 0, 1], port).into()).await;
    tokio::select! {
        () = ask(&client, b"open") => {}
        _ = echo(&server) => {}
    }
    drop(server);
    // The kernel says no to the relay, which gets to run: it is polled for each 61st of these at the latest.
    client.send(b"closed").await.unwrap();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let server = UdpSocket::bind(address).await.unwrap();
    tokio::select! {
        () = ask(&client, b"open again") => {}
        _ = echo(&server) => {}
    }
}

/// Serves one port with limits of the test's own, and says from which ports the relay asks for three clients in turn.
async fn upstream_ports(limits: udp::Limits, turns: &[usize]) -> Vec<u16> {
    let server = UdpSocket::bind((CONTAINER, 0)).await.unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let to = socket.local_addr().unwrap();
    let relay =
        udp::serve(super::datagrams::Datagrams::new(socket).unwrap(), server.local_addr().unwrap(), limits);
    let clients = async {
        let clients = [udp_client(to).await, udp_client(to).await, udp_client(to).await];
        let mut ports = Vec::new();
        for &turn in turns {
            clients[turn].send(b"x").await.unwrap();
            let (_, from) = server.recv_from(&mut [0; 8]).await.unwrap();
            ports.push(from.port());
            // Lets the clock of the relay, which counts milliseconds, tell the clients apart.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        ports
    };
    tokio::select! {
        ports = clients => ports,
        () = relay => unreachable!(),
    }
}

#[tokio::test]
async fn udp_the_client_that_was_silent_for_longest_makes_room() {
    let limits = udp::Limits { flows: 2, idle: Duration::from_secs(600) };
    let ports = upstream_ports(limits, &[0, 1, 0, 2, 0, 1]).await;
    let [a, b, a2, _c, a3, b2] = ports[..] else { panic!("{ports:?}") };
    assert!(a == a2 && a == a3, "{ports:?}");
    assert_ne!(b, b2, "{ports:?}");
}

#[tokio::test]
async fn udp_idle_clients_are_forgotten() {
    let limits = udp::Limits { flows: 2, idle: Duration::ZERO };
    let ports = upstream_ports(limits, &[0, 0]).await;
    assert_ne!(ports[0], ports[1]);
}
