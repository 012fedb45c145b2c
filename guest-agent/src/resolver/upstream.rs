//! Passes queries on to servers outside.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use husk_protocol::port;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::wire::{Answer, Query};
use crate::stdio::Dial;

const PORT: u16 = 53;
/// How often a query is sent, over all servers.
const TRIES: usize = 3;
/// How long a server has for one answer. All tries together take less than the five seconds after which clients give up
/// (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_millis(1500);

/// Asks the servers in turn until one gives a definite answer. Without one, what the last had to say.
///
/// An answer that is cut off is asked for again over TCP when `whole` answers are wanted: over UDP, the client itself
/// comes again.
pub(super) async fn ask(servers: &[IpAddr], query: &Query<'_>, whole: bool) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers.iter().cycle().take(TRIES.min(servers.len() * TRIES)) {
        let server = SocketAddr::new(*server, PORT);
        match timeout(PATIENCE, ask_one(server, query, whole)).await {
            Ok(Ok(answer)) if answer.definite => return Some(answer.bytes),
            Ok(Ok(answer)) => last = Some(answer.bytes),
            // Unreachable, refused, or too slow.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    last
}

/// How long the host has for one answer: its server has others to ask.
const PATIENCE_WITH_HOST: Duration = Duration::from_secs(10);

/// Asks the host.
pub(super) async fn ask_host(dial: &Dial, query: &Query<'_>, whole: bool) -> Option<Vec<u8>> {
    let ask = async {
        let mut stream = dial(port::NAMES).await?;
        let mut id = [0; 2];
        getrandom(&mut id, GetRandomFlags::empty())?;
        stream.write_u8(whole.into()).await?;
        write_message(&mut stream, &query.renumbered(id)).await?;
        let bytes = read_message(&mut stream).await?;
        Ok::<_, io::Error>(query.accept(id, bytes).map(|answer| answer.bytes))
    };
    timeout(PATIENCE_WITH_HOST, ask).await.ok()?.ok()?
}

async fn ask_one(server: SocketAddr, query: &Query<'_>, whole: bool) -> io::Result<Answer> {
    let mut id = [0; 2];
    getrandom(&mut id, GetRandomFlags::empty())?;
    let answer = over_udp(server, query, id).await?;
    if answer.truncated && whole { over_tcp(server, query, id).await } else { Ok(answer) }
}

/// Each query has a socket of its own, and so a port that can't be guessed.
async fn over_udp(server: SocketAddr, query: &Query<'_>, id: [u8; 2]) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query.renumbered(id)).await?;
    loop {
        socket.readable().await?;
        match receive(&socket) {
            Ok(bytes) => {
                if let Some(answer) = query.accept(id, bytes) {
                    return Ok(answer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A datagram of any size; not a part of the future, which lives much longer than this takes.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 1 << 16];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

async fn over_tcp(server: SocketAddr, query: &Query<'_>, id: [u8; 2]) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, &query.renumbered(id)).await?;
    let bytes = read_message(&mut stream).await?;
    query.accept(id, bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Over TCP, a message has its length before it (RFC 1035, section 4.2.2).
pub(super) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

pub(super) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}
