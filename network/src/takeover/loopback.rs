//! The pod's loopback addresses inside its namespace: what somebody dials there (as Kubernetes' port forwarding does)
//! reaches the VM.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{Result, steer::Steering};
use crate::netns::Netns;

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// How long to let others close descriptors when there are no more to be had.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on every port of 127.0.0.0/8 and ::1 of a namespace.
#[derive(Debug)]
pub struct Loopback {
    v4: TcpListener,
    v6: Option<TcpListener>,
    _steering: Steering,
}

impl Loopback {
    /// Begins to listen. Must be called inside a tokio runtime. Nothing is left when this is dropped, or the process killed.
    ///
    /// # Errors
    /// When the namespace has no loopback interface that is up, without the rights of root (CAP_BPF and CAP_NET_ADMIN of
    /// the machine, not of a user namespace), or before Linux 5.9.
    pub fn open(netns: &Netns) -> Result<Self> {
        let failed = super::failed("listen on the loopback addresses");
        let (v4, v6) =
            netns.run(|| (listen(Ipv4Addr::LOCALHOST.into()), listen(Ipv6Addr::LOCALHOST.into())))?;
        let v4 = v4.map_err(&failed)?;
        // No IPv6 here.
        let v6 = v6.ok();
        let steering =
            Steering::begin(netns.as_fd(), v4.as_fd(), v6.as_ref().map(AsFd::as_fd)).map_err(&failed)?;
        Ok(Self {
            v4: TcpListener::from_std(v4).map_err(&failed)?,
            v6: v6.map(TcpListener::from_std).transpose().map_err(&failed)?,
            _steering: steering,
        })
    }

    /// Hands every connection on to `forward`, with the port that was dialled, each in a task of its own. Never returns:
    /// drop the future to stop, and to end what is under way.
    pub async fn serve<F, T>(self, forward: F)
    where
        F: Fn(u16, TcpStream) -> T,
        T: Future<Output = ()> + Send + 'static,
    {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            // Never closed.
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
            let Some((stream, port)) = self.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let forwarded = forward(port, stream);
            tasks.spawn(async move {
                forwarded.await;
                drop(permit);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    /// `None`: no descriptors left, or the caller went away again.
    async fn accept(&self) -> Option<(TcpStream, u16)> {
        let accepted = tokio::select! {
            accepted = self.v4.accept() => accepted,
            accepted = accept(self.v6.as_ref()) => accepted,
        };
        let (stream, _) = accepted.ok()?;
        let port = stream.local_addr().ok()?.port();
        Some((stream, port))
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn listen(ip: std::net::IpAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind((ip, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
