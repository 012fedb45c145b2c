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
        let (waiting, limit) = (waiting.clone(), guest.timeout());
        tokio::spawn(async move {
            let _permit = permit;
            // Whoever says nothing, for as long as an agent may take to answer, is closed.
            let _ = tokio::time::timeout(limit, hand_over(socket, &waiting)).await;
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream as Dialled,
        path::Path,
    };

    use tokio::net::UnixListener;

    use super::*;

    const OUTPUT: StdioFlags = StdioFlags { stdin: false, stdout: true, stderr: true, terminal: false };

    async fn hub(path: &Path) -> Hub {
        let listener = UnixListener::bind(path).unwrap();
        let (connection, _agent) = UnixStream::pair().unwrap();
        Hub::start(Arc::new(Guest::new(connection, listener, 1, Duration::from_secs(30))))
    }

    fn dial(path: &Path, bytes: &[u8]) -> Dialled {
        let mut socket = Dialled::connect(path).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    }

    fn text(stream: Option<Stream>) -> String {
        let (mut socket, mut text) = stream.unwrap().into_parts();
        socket.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_terminal_has_no_errors_of_its_own() {
        let kinds = |flags: StdioFlags| flags.kinds().collect::<Vec<_>>();
        assert_eq!(kinds(OUTPUT), [StdioKind::Stdout, StdioKind::Stderr]);
        let all = StdioFlags { stdin: true, terminal: true, ..OUTPUT };
        assert_eq!(kinds(all), [StdioKind::Stdin, StdioKind::Stdout]);
        assert!(kinds(StdioFlags::default()).is_empty());
    }

    #[tokio::test]
    async fn each_process_gets_its_own_streams_whatever_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let hub = hub(&path).await;
        let (first, exec) = (hub.expect("c", "", OUTPUT), hub.expect("c", "e", OUTPUT));
        let forgotten = hub.expect("gone", "", OUTPUT);
        drop(forgotten);
        let mut silent = Dialled::connect(&path).unwrap();
        for (hello, said) in [
            ("c/e stderr\n", "exec err"),
            ("c stderr\n", "err"),
            ("c stdout\n", "out"),
            ("c/e stdout\n", "exec out"),
        ] {
            drop(dial(&path, format!("{hello}{said}").as_bytes()));
        }
        let (first, exec) = tokio::join!(first.all(), exec.all());
        assert_eq!((text(first.stdout), text(first.stderr)), ("out".into(), "err".into()));
        assert_eq!((text(exec.stdout), text(exec.stderr)), ("exec out".into(), "exec err".into()));
        // Strangers, and whoever comes a second time, are closed.
        for hello in ["gone stdout\n", "c stdout\n", "GET / HTTP/1.0\r\n"] {
            let mut stranger = dial(&path, hello.as_bytes());
            let closed = tokio::task::spawn_blocking(move || stranger.read(&mut [0]));
            assert!(matches!(closed.await.unwrap(), Ok(0) | Err(_)), "{hello}");
        }
        silent.write_all(b"x").unwrap();
    }
}
