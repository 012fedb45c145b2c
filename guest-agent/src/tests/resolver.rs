//! The resolver, asked over UDP and TCP, with servers to pass queries on to at other addresses of loopback.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use husk_protocol::agent::{Name, Names, Resolver, SetupSandboxRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use ttrpc::Code;

use super::{
    containers::{guest_tests, message},
    guest::{Guest, context, in_guest, setup},
    network::ip,
};

const RESOLVER: &str = "127.0.0.11:53";
const ID: [u8; 2] = [0xab, 0xcd];
const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const AAAA: u16 = 28;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = ID.to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

async fn over_udp(message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(RESOLVER).await.unwrap();
    socket.send(message).await.unwrap();
    let mut reply = vec![0; 2000];
    let length = socket.recv(&mut reply).await.unwrap();
    reply.truncate(length);
    reply
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write(stream: &mut TcpStream, message: &[u8]) {
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(message).await.unwrap();
}

async fn over_tcp(message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(RESOLVER).await.unwrap();
    write(&mut stream, message).await;
    read(&mut stream).await.unwrap()
}

/// The code and the records' data of an answer to a question of `length` bytes, header included.
fn records(reply: &[u8], length: usize) -> (u8, Vec<Vec<u8>>) {
    assert_eq!((&reply[..2], reply[2] & 0x80), (&ID[..], 0x80));
    let mut rest = &reply[length..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let size = usize::from(u16::from_be_bytes([rest[10], rest[11]]));
        found.push(rest[12..12 + size].to_vec());
        rest = &rest[12 + size..];
    }
    assert_eq!(found.len(), usize::from(reply[7]));
    (reply[3] & 15, found)
}

/// Asks over both transports, which must agree.
async fn ask(name: &str, kind: u16) -> (u8, Vec<Vec<u8>>) {
    let query = query(name, kind);
    let replies = (over_udp(&query).await, over_tcp(&query).await);
    assert_eq!(replies.0, replies.1);
    records(&replies.0, query.len())
}

fn names(names: &[(&str, &[&str])]) -> Names {
    let name = |(name, addresses): &(&str, &[&str])| Name {
        name: (*name).into(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        ..Default::default()
    };
    Names { names: names.iter().map(name).collect(), ..Default::default() }
}

async fn set_up(guest: &Guest, upstreams: &[&str]) -> ttrpc::Result<husk_protocol::agent::Empty> {
    ip("link set lo up");
    let table = names(&[("Web", &["10.0.0.2", "10.0.0.3", "fd00::2"]), ("db.net1", &["10.0.0.4"])]);
    let upstreams = upstreams.iter().map(|u| (*u).to_owned()).collect();
    let resolver = Resolver { upstreams, names: Some(table).into(), ..Default::default() };
    let request = SetupSandboxRequest { hostname: "pod".into(), resolver: Some(resolver).into(), ..setup() };
    guest.api.setup_sandbox(context(), &request).await
}

/// A server that answers each query over UDP with what `reply` makes of it, one datagram after the other.
async fn server(address: &str, reply: fn(&[u8]) -> Vec<Vec<u8>>) {
    let socket = UdpSocket::bind((address, 53)).await.unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 2000];
        loop {
            let (length, client): (usize, SocketAddr) = socket.recv_from(&mut bytes).await.unwrap();
            for reply in reply(&bytes[..length]) {
                socket.send_to(&reply, client).await.unwrap();
            }
        }
    });
}

/// An answer with a code and one address.
fn reply(query: &[u8], code: u8, last: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    (reply[2], reply[3], reply[7]) = (0x81, 0x80 | code, 1);
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last]);
    reply
}

/// What a host does that is asked.
pub(super) async fn answer_as_host(mut stream: tokio::net::UnixStream) {
    assert!(stream.read_u8().await.unwrap() <= 1);
    let mut query = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut query).await.unwrap();
    let answer = reply(&query, 0, 7);
    stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
    stream.write_all(&answer).await.unwrap();
}

fn octets(ips: &[&str]) -> Vec<Vec<u8>> {
    let octets = |ip: &&str| match ip.parse().unwrap() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    ips.iter().map(octets).collect()
}

guest_tests! {
    async fn answers_for_names_of_its_own(guest: Guest) {
        set_up(&guest, &[]).await.unwrap();
        assert_eq!(ask("web", A).await, (0, octets(&["10.0.0.2", "10.0.0.3"])));
        assert_eq!(ask("WEB", AAAA).await, (0, octets(&["fd00::2"])));
        assert_eq!(ask("db.net1", A).await, (0, octets(&["10.0.0.4"])));
        // There, but nothing of this type; and not there.
        assert_eq!(ask("db.net1", AAAA).await, (0, vec![]));
        assert_eq!(ask("web", MX).await, (0, vec![]));
        for name in ["db", "web.net1", "x.web", "example.com"] {
            assert_eq!(ask(name, A).await, (3, vec![]), "{name}");
        }
        assert_eq!(ask("2.0.0.10.in-addr.arpa", PTR).await, (0, vec![b"\x03Web\0".to_vec()]));
        assert_eq!(ask("9.0.0.10.in-addr.arpa", PTR).await, (3, vec![]));

        let many: Vec<String> = (0..200).map(|n| format!("10.3.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        guest.api.update_names(context(), &names(&[("many", &many)])).await.unwrap();
        assert_eq!(ask("web", A).await, (3, vec![]));
        let question = query("many", A);
        let cut = over_udp(&question).await;
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        assert_eq!(records(&over_tcp(&question).await, question.len()), (0, octets(&many)));
        let (code, text) = message(guest.api.update_names(context(), &names(&[("a b", &[])])).await);
        assert_eq!((code, text.as_str()), (Code::INVALID_ARGUMENT, "names[0].name is not a name: \"a b\""));
        assert_eq!(records(&over_tcp(&question).await, question.len()).1.len(), 200);
    }

    async fn passes_the_rest_on(guest: Guest) {
        ip("link set lo up");
        // One that can't, and one that can but whose answers are preceded by others' forgeries.
        server("127.0.1.1", |query| vec![reply(query, 2, 1)]).await;
        server("127.0.1.2", |query| {
            assert_ne!(query[..2], ID, "the client's number is not for others to see");
            let mut other_id = reply(query, 0, 66);
            other_id[0] ^= 1;
            let mut other_question = reply(query, 0, 66);
            other_question[14] ^= 1;
            vec![vec![], other_id, other_question, query.to_vec(), reply(query, 0, 2)]
        }).await;
        set_up(&guest, &["127.0.1.1", "127.0.1.2"]).await.unwrap();
        assert_eq!(ask("example.com", A).await, (0, octets(&["192.0.2.2"])));
        assert_eq!(ask("web", A).await.1.len(), 2);
        assert_eq!(ask("9.0.0.10.in-addr.arpa", PTR).await.1.len(), 1);
    }

    async fn a_server_that_refuses_or_fails_is_followed_by_the_next(guest: Guest) {
        ip("link set lo up");
        server("127.0.1.2", |query| vec![reply(query, 3, 2)]).await;
        set_up(&guest, &["127.0.1.1", "127.0.1.2"]).await.unwrap();
        assert_eq!(ask("example.com", A).await.0, 3);
    }

    async fn the_host_is_asked_if_it_wants_to_be(guest: Guest) {
        ip("link set lo up");
        let resolver = Resolver { by_host: true, ..Default::default() };
        let request =
            SetupSandboxRequest { hostname: "pod".into(), resolver: Some(resolver).into(), ..setup() };
        guest.api.setup_sandbox(context(), &request).await.unwrap();
        assert_eq!(ask("example.com", A).await, (0, octets(&["192.0.2.7"])));
    }

    async fn says_so_when_no_server_answers(guest: Guest) {
        // Nobody is there: the kernel says so at once.
        set_up(&guest, &["127.0.1.1"]).await.unwrap();
        assert_eq!(ask("example.com", A).await, (2, vec![]));
    }

    async fn long_answers_come_over_tcp(guest: Guest) {
        ip("link set lo up");
        server("127.0.1.1", |query| {
            let mut reply = reply(query, 0, 1);
            reply[2] |= 2;
            vec![reply]
        }).await;
        let listener = TcpListener::bind("127.0.1.1:53").await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let query = read(&mut stream).await.unwrap();
                write(&mut stream, &reply(&query, 0, 2)).await;
            }
        });
        set_up(&guest, &["127.0.1.1"]).await.unwrap();
        let question = query("example.com", A);
        let cut = over_udp(&question).await;
        assert_eq!((cut[2] & 2, records(&cut, question.len()).1), (2, octets(&["192.0.2.1"])));
        let whole = over_tcp(&question).await;
        assert_eq!((whole[2] & 2, records(&whole, question.len()).1), (0, octets(&["192.0.2.2"])));
    }

    async fn rubbish_gets_an_error_or_nothing(guest: Guest) {
        set_up(&guest, &[]).await.unwrap();
        let mut two = query("web", A);
        two[5] = 2;
        assert_eq!(over_udp(&two).await[3] & 15, 1);
        // An answer, and less than a header: nothing comes back, and the next query is served.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(RESOLVER).await.unwrap();
        let mut answer = query("web", A);
        answer[2] |= 0x80;
        let good = query("web", MX);
        for message in [&answer[..], b"", b"x", &good] {
            socket.send(message).await.unwrap();
        }
        let mut reply = [0; 100];
        assert_eq!(socket.recv(&mut reply).await.unwrap(), good.len());
        let mut stream = TcpStream::connect(RESOLVER).await.unwrap();
        write(&mut stream, &answer).await;
        assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    async fn is_there_only_when_asked_for(guest: Guest) {
        let (code, text) = message(set_up(&guest, &["127.0.0.11"]).await);
        assert_eq!((code, text.as_str()), (Code::INVALID_ARGUMENT,
            "resolver.upstreams[0] is not the IP address of a server: \"127.0.0.11\""));
        let request = SetupSandboxRequest { hostname: "pod".into(), ..setup() };
        guest.api.setup_sandbox(context(), &request).await.unwrap();
        assert_eq!(TcpStream::connect(RESOLVER).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let refused = guest.api.update_names(context(), &names(&[])).await;
        assert_eq!(message(refused).0, Code::FAILED_PRECONDITION);
    }
}
