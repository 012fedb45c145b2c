//! A name server inside a namespace, at 127.0.0.11, as Docker has one for each container of a network of its users: the guest's
//! resolver, which stands at the same address, passes queries on to it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::chown,
    path::Path,
    sync::Arc,
    time::Duration,
};

use husk_network::netns::Netns;
use husk_protocol::port;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket, UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{Error, Result, vm};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// Queries at a time; further ones wait.
const MAX_PENDING: usize = 64;
/// How long an answer may take: the server has others to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest query, in bytes: a name, and options of which none is long.
const MAX_QUERY: u16 = 4096;
/// After a failed accept: it may be for want of descriptors, and then would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the guest's queries come in.
#[derive(Debug)]
pub(super) struct NamesInside {
    listener: UnixListener,
    netns: Arc<Netns>,
}

impl NamesInside {
    /// Begins to listen for the guest of the sandbox in `dir`, whose VMM is `uid`.
    pub(super) fn listen(dir: &Path, uid: u32, netns: Netns) -> Result<Self> {
        let path = vm::port_path(dir, port::NAMES);
        let listener = vm::listen_at(&path)?;
        chown(&path, Some(uid), Some(uid)).map_err(Error::io("change the owner of", path))?;
        Ok(Self { listener, netns: Arc::new(netns) })
    }

    /// Answers until it is dropped.
    pub(super) async fn serve(self) {
        let free = Arc::new(Semaphore::new(MAX_PENDING));
        loop {
            // Never closed.
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let netns = Arc::clone(&self.netns);
            tokio::spawn(async move {
                // The guest sees its connection end; there is nobody else to tell.
                let _ = timeout(PATIENCE, answer(stream, &netns)).await;
                drop(permit);
            });
        }
    }
}

/// Passes one query and its answer on (husk-protocol, `port::NAMES`).
async fn answer(mut stream: UnixStream, netns: &Netns) -> io::Result<()> {
    let whole = stream.read_u8().await? == 1;
    let query = read_message(&mut stream, MAX_QUERY).await?;
    let answer = if whole { over_tcp(&query, netns).await? } else { over_udp(&query, netns).await? };
    write_message(&mut stream, &answer).await
}

async fn over_udp(query: &[u8], netns: &Netns) -> io::Result<Vec<u8>> {
    let made = netns.run(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = made.map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(SERVER).await?;
    socket.send(query).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn over_tcp(query: &[u8], netns: &Netns) -> io::Result<Vec<u8>> {
    let socket = netns.run(TcpSocket::new_v4).map_err(io::Error::other)??;
    let mut server = socket.connect(SERVER).await?;
    write_message(&mut server, query).await?;
    read_message(&mut server, u16::MAX).await
}

/// As over TCP, a message has its length before it (RFC 1035, section 4.2.2).
async fn read_message(stream: &mut (impl AsyncReadExt + Unpin), limit: u16) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    if length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut (impl AsyncWriteExt + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Whether a container's resolv.conf(5), a file of the host, names that server.
pub(super) fn named_in(resolv_conf: &Path) -> bool {
    let text = std::fs::read_to_string(resolv_conf).unwrap_or_default();
    let server = SERVER.ip().to_string();
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next() == Some(&server)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_query_and_its_answer_pass_whole() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can make network namespaces");
            return;
        }
        let inside = thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            let server = std::net::UdpSocket::bind(SERVER).unwrap();
            let netns = Netns::current().unwrap();
            let echo = thread::spawn(move || {
                let mut bytes = [0; 100];
                let (length, client) = server.recv_from(&mut bytes).unwrap();
                server.send_to(&[b"re: ", &bytes[..length]].concat(), client).unwrap();
            });
            (netns, echo)
        });
        let (netns, echo) = inside.join().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut guest, host) = UnixStream::pair().unwrap();
            guest.write_u8(0).await.unwrap();
            write_message(&mut guest, b"who").await.unwrap();
            answer(host, &netns).await.unwrap();
            assert_eq!(read_message(&mut guest, 100).await.unwrap(), b"re: who");

            let (mut guest, host) = UnixStream::pair().unwrap();
            guest.write_all(&[0, 0xff, 0xff]).await.unwrap();
            assert_eq!(answer(host, &netns).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        });
        echo.join().unwrap();
    }

    #[test]
    fn the_server_is_found_in_a_resolv_conf() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        for (text, named) in [
            ("# Docker\nnameserver 127.0.0.11\noptions ndots:0\n", true),
            ("nameserver 10.0.0.1\n#nameserver 127.0.0.11\n", false),
            ("nameserver 127.0.0.111\n", false),
            ("", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(named_in(&path), named, "{text}");
        }
        assert!(!named_in(Path::new("/nonexistent")));
    }
}
