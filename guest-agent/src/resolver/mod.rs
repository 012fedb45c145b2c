//! A DNS server for containers, at 127.0.0.11: answers for names that the host gives, and passes the rest on to servers
//! outside. Names are matched whole and without case, as Docker does for containers' names: search domains are the
//! client's affair.
//!
//! While it serves, no container of the pod can bind port 53 of all addresses (0.0.0.0), but any of a single one: the
//! kernel tells the two apart.

mod table;
mod upstream;
mod wire;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use husk_protocol::agent::{self, Names};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::{sleep, timeout},
};

use self::{
    table::Table,
    wire::{Code, MAX_UDP, Malformed, Query, TYPE_PTR},
};
use crate::{failure::Failure, stdio::Dial};

/// Where containers find it.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
/// Servers that are used, as many as resolv.conf(5) can have.
const MAX_UPSTREAMS: usize = 3;
/// Queries that are being passed on at a time. Further ones fail at once.
const MAX_PENDING: usize = 256;
/// TCP connections at a time. Further ones are closed at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Longest query over UDP, in bytes: a name, and options of which none is long. What is longer is cut off there.
const MAX_UDP_QUERY: usize = 4096;
/// After a failed accept or receive: it may be for want of memory, and then would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// The running server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Inner>);

struct Inner {
    table: Mutex<Table>,
    upstreams: Vec<IpAddr>,
    /// The host is asked instead of them.
    host: Option<Dial>,
    pending: Semaphore,
}

impl Resolver {
    /// Starts to serve: queries that are sent after this returns are answered. Must be called in a Tokio runtime.
    /// `dial` reaches the host.
    pub(crate) fn start(given: &agent::Resolver, dial: &Dial) -> Result<Self, Failure> {
        let mut upstreams = Vec::with_capacity(MAX_UPSTREAMS);
        for (at, text) in given.upstreams.iter().enumerate() {
            match text.parse::<IpAddr>() {
                // Itself among them would be a loop.
                Ok(ip) if ip != ADDRESS.ip() => upstreams.push(ip),
                _ => {
                    return Err(Failure::invalid(format!(
                        "resolver.upstreams[{at}] is not the IP address of a server: {text:?}"
                    )));
                }
            }
        }
        upstreams.truncate(MAX_UPSTREAMS);
        let table = Mutex::new(Table::new(given.names.get_or_default())?);
        let host = given.by_host.then(|| Arc::clone(dial));
        let failed = |e| Failure::io(format_args!("cannot serve names at {ADDRESS}"), &e);
        let (udp, tcp) = bind().map_err(failed)?;
        let resolver = Self(Arc::new(Inner { table, upstreams, host, pending: Semaphore::new(MAX_PENDING) }));
        tokio::spawn(resolver.clone().serve_udp(Arc::new(udp)));
        tokio::spawn(resolver.clone().serve_tcp(tcp));
        Ok(resolver)
    }

    /// Replaces all names.
    pub(crate) fn set_names(&self, names: &Names) -> Result<(), Failure> {
        let table = Table::new(names)?;
        *self.table() = table;
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; MAX_UDP_QUERY];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                sleep(PAUSE).await;
                continue;
            };
            let bytes = &buffer[..length];
            match self.answer_at_once(bytes, MAX_UDP) {
                Some(reply) if reply.is_empty() => {}
                Some(reply) => {
                    let _ = socket.send_to(&reply, client).await;
                }
                None => {
                    let (resolver, socket, bytes) = (self.clone(), Arc::clone(&socket), bytes.to_vec());
                    tokio::spawn(async move {
                        if let Some(reply) = resolver.pass_on(&bytes, false).await {
                            let _ = socket.send_to(&reply, client).await;
                        }
                    });
                }
            }
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
                let resolver = self.clone();
                tokio::spawn(async move {
                    // Whatever breaks the connection is the client's affair.
                    let _ = resolver.serve_connection(stream).await;
                    drop(permit);
                });
            }
        }
    }

    async fn serve_connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let bytes = timeout(IDLE, upstream::read_message(&mut stream)).await??;
            let reply = match self.answer_at_once(&bytes, usize::from(u16::MAX)) {
                Some(reply) => Some(reply),
                None => self.pass_on(&bytes, true).await,
            };
            // Whoever sends what is no query has nothing to wait for.
            let Some(reply) = reply.filter(|reply| !reply.is_empty()) else { return Ok(()) };
            timeout(IDLE, upstream::write_message(&mut stream, &reply)).await??;
        }
    }

    /// The answer, when it takes nobody else: empty for what deserves none. None: it has to be passed on.
    fn answer_at_once(&self, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(Malformed::Reply(reply)) => return Some(reply),
            Err(Malformed::Ignore) => return Some(Vec::new()),
        };
        if let Some(name) = query.name.as_deref().filter(|_| query.internet) {
            let table = self.table();
            if let Some(addresses) = table.addresses(name) {
                return Some(query.addresses(addresses, limit));
            }
            let address = if query.kind == TYPE_PTR { wire::reversed(name) } else { None };
            if let Some(name) = address.and_then(|address| table.name(address)) {
                return Some(query.pointer(name, limit));
            }
        }
        (self.0.upstreams.is_empty() && self.0.host.is_none()).then(|| query.plain(Code::NoSuchName))
    }

    async fn pass_on(&self, bytes: &[u8], whole: bool) -> Option<Vec<u8>> {
        let query = Query::parse(bytes).ok()?;
        let answer = match self.0.pending.try_acquire() {
            Ok(_permit) => match &self.0.host {
                Some(dial) => upstream::ask_host(dial, &query, whole).await,
                None => upstream::ask(&self.0.upstreams, &query, whole).await,
            },
            Err(_) => None,
        };
        Some(answer.unwrap_or_else(|| query.plain(Code::ServerFailure)))
    }
}

fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    let udp = std::net::UdpSocket::bind(ADDRESS)?;
    udp.set_nonblocking(true)?;
    let tcp = std::net::TcpListener::bind(ADDRESS)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}
