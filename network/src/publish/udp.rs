//! The UDP half of the relay: each client gets a socket of its own towards the container, so that answers find back.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, send},
};
use tokio::{
    net::UdpSocket,
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::datagrams::{Datagrams, Peer};

/// What bounds the clients of one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most clients. When one more comes, the one that was silent for longest is forgotten.
    pub(super) flows: usize,
    /// A client is forgotten when nothing went either way for so long.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 512, idle: Duration::from_secs(90) }
    }
}

/// Answers that are passed on before others get their turn.
const BURST: usize = 32;
/// The longest datagram.
const MAX_DATAGRAM: usize = 65_535;
/// Pause after the system failed to give a datagram.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A client, and the socket through which it speaks to the container.
#[derive(Debug)]
struct Flow {
    peer: Peer,
    upstream: UdpSocket,
    opened: Instant,
    /// Milliseconds after `opened`.
    used: AtomicU64,
    forgotten: Notify,
}

/// Relays all datagrams to `socket`. Never returns; dropped, it closes everything.
pub(super) async fn serve(socket: Datagrams, target: SocketAddr, limits: Limits) {
    let mut flows: HashMap<Peer, Arc<Flow>> = HashMap::new();
    let mut answers = FuturesUnordered::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            received = socket.receive(&mut buffer) => {
                let Ok((length, peer)) = received else {
                    sleep(ERROR_PAUSE).await;
                    continue;
                };
                if let Some(flow) = flows.get(&peer) {
                    flow.send(&buffer[..length]);
                    continue;
                }
                if flows.len() >= limits.flows {
                    forget_oldest(&mut flows);
                }
                if let Ok(flow) = Flow::open(peer, target) {
                    let flow = Arc::new(flow);
                    flow.send(&buffer[..length]);
                    answers.push(pass_answers(flow.clone(), &socket, limits.idle));
                    flows.insert(peer, flow);
                }
            }
            Some(ended) = answers.next() => {
                if flows.get(&ended.peer).is_some_and(|flow| Arc::ptr_eq(flow, &ended)) {
                    flows.remove(&ended.peer);
                }
            }
        }
    }
}

fn forget_oldest(flows: &mut HashMap<Peer, Arc<Flow>>) {
    let oldest = flows.values().min_by_key(|flow| flow.last_used()).map(|flow| flow.peer);
    if let Some(flow) = oldest.and_then(|peer| flows.remove(&peer)) {
        flow.forgotten.notify_one();
    }
}

/// Passes the container's answers to the client until the flow is idle or forgotten.
async fn pass_answers(flow: Arc<Flow>, socket: &Datagrams, idle: Duration) -> Arc<Flow> {
    loop {
        let idle_at = flow.last_used() + idle;
        tokio::select! {
            ready = flow.upstream.readable() => {
                if ready.is_err() {
                    return flow;
                }
                flow.pass_burst(socket);
                tokio::task::yield_now().await;
            }
            () = sleep_until(idle_at) => {
                if flow.last_used() + idle <= Instant::now() {
                    return flow;
                }
            }
            () = flow.forgotten.notified() => return flow,
        }
    }
}

impl Flow {
    fn open(peer: Peer, target: SocketAddr) -> io::Result<Self> {
        let any: SocketAddr = match target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let upstream = std::net::UdpSocket::bind(any)?;
        upstream.set_nonblocking(true)?;
        // Only the container's answers are received then.
        upstream.connect(target)?;
        Ok(Self {
            peer,
            upstream: UdpSocket::from_std(upstream)?,
            opened: Instant::now(),
            used: AtomicU64::new(0),
            forgotten: Notify::new(),
        })
    }

    fn touch(&self) {
        let used = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
    }

    fn last_used(&self) -> Instant {
        self.opened + Duration::from_millis(self.used.load(Ordering::Relaxed))
    }

    /// Sends to the container what the system takes at once.
    fn send(&self, data: &[u8]) {
        self.touch();
        // Not tokio's `try_send`, which fails until the reactor has once found the socket writable.
        let send = || send(self.upstream.as_raw_fd(), data, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // That the port was closed when the last datagram came is reported now, in this one's place.
        if send() == Err(Errno::ECONNREFUSED) {
            let _ = send();
        }
    }

    /// Passes answers on that wait already, but not too many.
    fn pass_burst(&self, socket: &Datagrams) {
        let mut buffer = [0; MAX_DATAGRAM];
        for _ in 0..BURST {
            match self.upstream.try_recv(&mut buffer) {
                Ok(length) => {
                    self.touch();
                    socket.answer(&self.peer, &buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The container's port is closed. It may open.
                Err(_) => {}
            }
        }
    }
}
