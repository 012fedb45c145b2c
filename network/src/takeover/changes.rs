//! Events of a namespace.

use std::io;

use husk_base::netlink::Socket;
use tokio::io::{Interest, unix::AsyncFd};

/// RTMGRP_* of linux/rtnetlink.h: links, IPv4's addresses and routes, IPv6's addresses and routes.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Events of changes. Only that there was one counts: it may also mean that some were lost.
#[derive(Debug)]
pub(super) struct Changes(AsyncFd<Socket>);

impl Changes {
    /// Begins to receive those of the calling thread's namespace.
    pub(super) fn subscribe() -> io::Result<Socket> {
        Socket::subscribe(GROUPS)
    }

    /// Those that come to this socket. Must be called inside a tokio runtime.
    pub(super) fn of(socket: Socket) -> io::Result<Self> {
        // SAFETY: the socket owns its descriptor, always gives the same one, and is never taken out of the
        // `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns when something has changed since the last time. Can be cancelled.
    pub(super) async fn wait(&self) -> io::Result<()> {
        self.0
            .async_io(Interest::READABLE, |socket| {
                if socket.drain()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            })
            .await
    }
}
