//! Events of a namespace.

use std::io;

use husk_base::netlink::Socket;
use tokio::io::{Interest, unix::AsyncFd};

use super::{Result, failed};
use crate::netns::Netns;

/// RTMGRP_* of linux/rtnetlink.h: links, IPv4's addresses and routes, IPv6's addresses and routes.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Events of changes. Only that there was one counts: it may also mean that some were lost.
#[derive(Debug)]
pub(super) struct Changes(AsyncFd<Socket>);

impl Changes {
    /// Begins to receive them. Must be called inside a tokio runtime.
    pub(super) fn subscribe(netns: &Netns) -> Result<Self> {
        let failed = failed("listen for changes");
        let socket = netns.run(|| Socket::subscribe(GROUPS))?.map_err(&failed)?;
        // SAFETY: the socket owns its descriptor, always gives the same one, and is never taken out of the
        // `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(registered.map_err(|error| failed(error.into()))?))
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
