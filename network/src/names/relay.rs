//! Carries a guest's DNS-over-TCP connections to name servers that only the host can reach.
//!
//! The bytes are the guest's and the server's affair: nothing is parsed here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes},
    net::{TcpStream, UnixListener},
    time::{sleep, timeout},
};

/// Connections at a time. More wait to be accepted.
const MAX_CONNECTIONS: usize = 32;
/// How long a server may take to accept.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a connection may last. Resolvers open another one when they need it.
const LIFETIME: Duration = Duration::from_secs(30);
/// Pause after the system refused to accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes in flight per connection and direction.
const BUFFER: usize = 4096;
/// DNS's port (RFC 7766).
const PORT: u16 = 53;

/// A relay to the host's name servers.
#[derive(Debug)]
pub struct DnsRelay {
    servers: Vec<SocketAddr>,
    lifetime: Duration,
}

impl DnsRelay {
    /// A relay to the first of `servers` that accepts.
    pub fn new(servers: &[IpAddr]) -> Self {
        let servers = servers.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
        Self { servers, lifetime: LIFETIME }
    }

    /// Serves all connections to `listener`. Never returns; dropped, it closes them all.
    pub async fn serve(&self, listener: UnixListener) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((guest, _)) => connections.push(self.relay(guest)),
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
                // A connection that failed is the guest's to repeat.
                Some(_) = connections.next() => {}
            }
        }
    }

    /// Copies between one connection of the guest's and a server, until both have said all or time is up.
    ///
    /// # Errors
    /// When no server accepts, when either end fails, or when time is up.
    pub async fn relay(&self, mut guest: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut server = self.connect().await?;
        timeout(self.lifetime, copy_bidirectional_with_sizes(&mut guest, &mut server, BUFFER, BUFFER))
            .await??;
        Ok(())
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::ErrorKind::NotConnected.into();
        for server in &self.servers {
            match timeout(CONNECT_TIME, TcpStream::connect(server))
                .await
                .unwrap_or_else(|late| Err(late.into()))
            {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, UnixStream},
    };

    use super::*;

    async fn closed_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_to_the_first_server_that_accepts() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![closed_port().await, server.local_addr().unwrap()];
        let relay = DnsRelay { servers, lifetime: LIFETIME };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dns");
        let listener = UnixListener::bind(&path).unwrap();
        let question = b"\x00\x02\xff\x00".repeat(10_000);
        let talk = async {
            let mut guest = UnixStream::connect(&path).await.unwrap();
            let (mut resolver, _) = server.accept().await.unwrap();
            let asked = async {
                guest.write_all(&question).await.unwrap();
                guest.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (_, read) = tokio::join!(asked, resolver.read_to_end(&mut heard));
            read.unwrap();
            assert_eq!(heard, question);
            // The other half is still open.
            resolver.write_all(b"answer").await.unwrap();
            drop(resolver);
            let mut answer = String::new();
            guest.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        };
        tokio::select! {
            () = talk => {}
            () = relay.serve(listener) => {}
        }
    }

    #[tokio::test]
    async fn no_server_closes_the_guests_connection() {
        for servers in [vec![], vec![closed_port().await]] {
            let relay = DnsRelay { servers, lifetime: LIFETIME };
            let (mut guest, host) = UnixStream::pair().unwrap();
            assert!(relay.relay(host).await.is_err());
            assert_eq!(guest.read(&mut [0; 1]).await.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_silent_connection_ends() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = vec![server.local_addr().unwrap()];
        let relay = DnsRelay { servers, lifetime: Duration::from_millis(10) };
        let (_guest, host) = UnixStream::pair().unwrap();
        let error = relay.relay(host).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
