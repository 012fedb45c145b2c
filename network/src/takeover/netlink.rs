//! rtnetlink connections that belong to a namespace.

use futures_util::{Stream, StreamExt};
use rtnetlink::{Error, Handle, MulticastGroup};
use tokio::{sync::watch, task::JoinHandle};

use super::{Result, failed};
use crate::netns::Netns;

/// What the kernel tells about by itself.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// More of anything in one namespace than this is an error, not a network.
const MAX_MESSAGES: usize = 16_384;

/// A task that ends with this value.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Requests to a namespace's kernel.
pub(super) fn requests(netns: &Netns) -> Result<(Handle, Task)> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = netns
        .run(|| {
            let _entered = runtime.enter();
            rtnetlink::new_connection()
        })?
        .map_err(failed("open a netlink socket"))?;
    Ok((handle, Task(tokio::spawn(connection))))
}

/// Tidings of changes. Only that there was one counts: it may also mean that some were lost.
#[derive(Debug)]
pub(super) struct Changes {
    changed: watch::Receiver<()>,
    _task: Task,
}

impl Changes {
    pub(super) fn subscribe(netns: &Netns) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, mut messages) = netns
            .run(|| {
                let _entered = runtime.enter();
                rtnetlink::new_multicast_connection(&GROUPS)
            })?
            .map_err(failed("listen for changes"))?;
        let (tell, changed) = watch::channel(());
        let listen = async move {
            // The connection ends with its last handle.
            let _handle = handle;
            while messages.next().await.is_some() {
                tell.send_replace(());
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = connection => {}
                () = listen => {}
            }
        });
        Ok(Self { changed, _task: Task(task) })
    }

    /// Returns when something has changed since the last time. `false`: nothing will come any more. Can be cancelled.
    pub(super) async fn wait(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}

/// Collects what a dump gives.
///
/// # Errors
/// What the kernel said, or that there is no end to it.
pub(super) async fn collect<T>(
    what: &'static str,
    dump: impl Stream<Item = std::result::Result<T, Error>>,
) -> Result<Vec<T>> {
    let mut dump = std::pin::pin!(dump);
    let mut all = Vec::new();
    while let Some(message) = dump.next().await {
        if all.len() == MAX_MESSAGES {
            return Err(super::Error::TooMany { what, limit: MAX_MESSAGES });
        }
        all.push(message.map_err(failed(what))?);
    }
    Ok(all)
}

/// The error number in an answer; 0: something else failed.
pub(super) fn errno(error: &Error) -> i32 {
    match error {
        Error::NetlinkError(message) => -message.raw_code(),
        _ => 0,
    }
}
