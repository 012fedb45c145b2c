//! The streams of all processes of a pod: the agent dials one port for all, at any time and in any order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use husk_protocol::{StdioKind, StreamHello};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, oneshot},
    task::AbortHandle,
};

use super::options::StdioFlags;
use crate::{
    guest::Guest,
    stdio::{self, Stream, Streams},
};

/// Connections at a time that have not yet said whose they are; further ones wait to be accepted.
const MAX_NAMELESS: usize = 64;
/// How long a connection may take to say whose it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before accepting again when the host has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

type Waiting = Arc<Mutex<HashMap<StreamHello, oneshot::Sender<Stream>>>>;

/// Accepts streams, and hands them to whoever expects them. Strangers are closed.
#[derive(Debug)]
pub(super) struct Hub {
    waiting: Waiting,
    task: AbortHandle,
}

impl Hub {
    /// Begins to accept what `guest` dials.
    pub(super) fn start(guest: Arc<Guest>) -> Self {
        let waiting = Waiting::default();
        let task = tokio::spawn(accept(guest, waiting.clone())).abort_handle();
        Self { waiting, task }
    }

    /// Streams that a process will have; to be called before it is made.
    pub(super) fn expect(&self, container_id: &str, exec_id: &str, flags: StdioFlags) -> Expected {
        let mut streams = Vec::with_capacity(3);
        let mut waiting = lock(&self.waiting);
        for kind in flags.kinds() {
            let hello =
                StreamHello { container_id: container_id.to_owned(), exec_id: exec_id.to_owned(), kind };
            let (sender, receiver) = oneshot::channel();
            waiting.insert(hello.clone(), sender);
            streams.push((hello, receiver));
        }
        Expected { streams, waiting: self.waiting.clone() }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StdioFlags {
    /// The streams that there will be.
    pub(super) fn kinds(self) -> impl Iterator<Item = StdioKind> {
        let all = [
            (self.stdin, StdioKind::Stdin),
            (self.stdout, StdioKind::Stdout),
            (self.stderr && !self.terminal, StdioKind::Stderr),
        ];
        all.into_iter().filter_map(|(wanted, kind)| wanted.then_some(kind))
    }
}

/// Streams that are being waited for; no longer when this is dropped.
#[derive(Debug)]
pub(super) struct Expected {
    streams: Vec<(StreamHello, oneshot::Receiver<Stream>)>,
    waiting: Waiting,
}

impl Expected {
    /// All of them, when all have come.
    pub(super) async fn all(mut self) -> Streams {
        let mut streams = Streams::default();
        for (hello, receiver) in &mut self.streams {
            // The sender is dropped when the pod is, and then nobody looks at the streams.
            let stream = receiver.await.ok();
            match hello.kind {
                StdioKind::Stdin => streams.stdin = stream,
                StdioKind::Stdout => streams.stdout = stream,
                StdioKind::Stderr => streams.stderr = stream,
            }
        }
        streams
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting);
        for (hello, _) in &self.streams {
            waiting.remove(hello);
        }
    }
}

async fn accept(guest: Arc<Guest>, waiting: Waiting) {
    let nameless = Arc::new(Semaphore::new(MAX_NAMELESS));
    loop {
        // It is never closed.
        let Ok(permit) = nameless.clone().acquire_owned().await else { return };
        let Ok((socket, _)) = guest.stdio().accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let waiting = waiting.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // Whoever says nothing is closed.
            let _ = tokio::time::timeout(HELLO_TIMEOUT, hand_over(socket, &waiting)).await;
        });
    }
}

async fn hand_over(mut socket: UnixStream, waiting: &Waiting) -> Option<()> {
    let (hello, early) = stdio::read_hello(&mut socket).await?;
    let expected = lock(waiting).remove(&hello)?;
    expected.send(Stream::new(socket, early).ok()?).ok()
}

fn lock(
    waiting: &Mutex<HashMap<StreamHello, oneshot::Sender<Stream>>>,
) -> MutexGuard<'_, HashMap<StreamHello, oneshot::Sender<Stream>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
