//! The streams of all processes of a pod: the agent dials one port for all, at any time and in any order.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use husk_protocol::{StdioKind, StreamName, StreamToken};
use tokio::{
    net::UnixStream,
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
};

use super::options::StdioFlags;
use crate::{
    guest::Guest,
    stdio::{self, Stream, Streams},
};

/// Connections at a time that have not yet said which stream they are.
const MAX_NAMELESS: usize = 64;
/// How long a connection may take to say it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the host has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

type Waiting = Arc<Mutex<HashMap<StreamName, oneshot::Sender<Stream>>>>;

/// Accepts streams, and hands each to the request that expects it. Other connections are closed.
#[derive(Debug)]
pub(super) struct Hub {
    waiting: Waiting,
    task: AbortHandle,
}

impl Hub {
    /// Begins to accept what `guest` dials.
    pub(super) fn start(guest: Arc<Guest>) -> Self {
        Self::with_patience(guest, PATIENCE)
    }

    fn with_patience(guest: Arc<Guest>, patience: Duration) -> Self {
        let waiting = Waiting::default();
        let task = tokio::spawn(accept(guest, waiting.clone(), patience)).abort_handle();
        Self { waiting, task }
    }

    /// Streams that a process will have; to be called before it is made.
    pub(super) fn expect(&self, container_id: &str, exec_id: &str, flags: StdioFlags) -> Expected {
        let mut streams = Vec::with_capacity(3);
        let mut waiting = lock(&self.waiting);
        for kind in flags.kinds() {
            let name =
                StreamName { container_id: container_id.to_owned(), exec_id: exec_id.to_owned(), kind };
            let (sender, receiver) = oneshot::channel();
            waiting.insert(name.clone(), sender);
            streams.push((name, receiver));
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
    streams: Vec<(StreamName, oneshot::Receiver<Stream>)>,
    waiting: Waiting,
}

impl Expected {
    /// All of them, when all have come.
    pub(super) async fn all(mut self) -> Streams {
        let mut streams = Streams::default();
        for (name, receiver) in &mut self.streams {
            // The sender is dropped when the pod is, and then nobody looks at the streams.
            let stream = receiver.await.ok();
            match name.kind {
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
        for (name, _) in &self.streams {
            waiting.remove(name);
        }
    }
}

/// Accepts connections, and hands over those that begin with the guest's token and the name of an expected stream within
/// `patience`. Any process in the guest can dial: one too many closes the oldest that has not yet said what it is, so that those
/// of the agent, which says it at once, get through.
async fn accept(guest: Arc<Guest>, waiting: Waiting, patience: Duration) {
    let mut nameless: VecDeque<JoinHandle<()>> = VecDeque::with_capacity(MAX_NAMELESS);
    loop {
        let Ok((socket, _)) = guest.stdio().accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        nameless.retain(|task| !task.is_finished());
        if nameless.len() >= MAX_NAMELESS
            && let Some(oldest) = nameless.pop_front()
        {
            oldest.abort();
        }
        let (guest, waiting) = (guest.clone(), waiting.clone());
        nameless.push_back(tokio::spawn(async move {
            // A connection that is not handed over is closed.
            let _ = tokio::time::timeout(patience, hand_over(socket, guest.token(), &waiting)).await;
        }));
    }
}

async fn hand_over(mut socket: UnixStream, token: &StreamToken, waiting: &Waiting) -> Option<()> {
    let (name, early) = stdio::read_hello(&mut socket, token).await?;
    let expected = lock(waiting).remove(&name)?;
    expected.send(Stream::new(socket, early).ok()?).ok()
}

fn lock(
    waiting: &Mutex<HashMap<StreamName, oneshot::Sender<Stream>>>,
) -> MutexGuard<'_, HashMap<StreamName, oneshot::Sender<Stream>>> {
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

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    /// Longer than any test.
    const AGES: Duration = Duration::from_secs(100_000);

    async fn hub(path: &Path, patience: Duration) -> Hub {
        let listener = UnixListener::bind(path).unwrap();
        let (connection, _agent) = UnixStream::pair().unwrap();
        let guest = Guest::new(connection, listener, 1, TOKEN.parse().unwrap(), Duration::from_secs(30));
        Hub::with_patience(Arc::new(guest), patience)
    }

    /// Waits for the end of a connection.
    async fn ends(mut socket: Dialled) {
        let ended = tokio::task::spawn_blocking(move || socket.read(&mut [0]));
        assert!(matches!(ended.await.unwrap(), Ok(0) | Err(_)));
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
        let hub = hub(&path, AGES).await;
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
            drop(dial(&path, format!("{TOKEN} {hello}{said}").as_bytes()));
        }
        let (first, exec) = tokio::join!(first.all(), exec.all());
        assert_eq!((text(first.stdout), text(first.stderr)), ("out".into(), "err".into()));
        assert_eq!((text(exec.stdout), text(exec.stderr)), ("exec out".into(), "exec err".into()));
        // Strangers, and a stream that comes a second time, are closed.
        for hello in ["gone stdout\n", "c stdout\n"] {
            ends(dial(&path, format!("{TOKEN} {hello}").as_bytes())).await;
        }
        ends(dial(&path, b"GET / HTTP/1.0\r\n")).await;
        silent.write_all(b"x").unwrap();
    }

    #[tokio::test]
    async fn a_guessed_name_without_the_token_gets_no_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let hub = hub(&path, AGES).await;
        let stdout = StdioFlags { stdout: true, ..Default::default() };
        let expected = hub.expect("c", "e", stdout);
        let other = TOKEN.replace('0', "1");
        for hello in [format!("{other} c/e stdout\n"), "c/e stdout\n".into(), " c/e stdout\n".into()] {
            ends(dial(&path, format!("{hello}stolen").as_bytes())).await;
        }
        drop(dial(&path, format!("{TOKEN} c/e stdout\nown").as_bytes()));
        assert_eq!(text(expected.all().await.stdout), "own");
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_the_agent_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let hub = hub(&path, AGES).await;
        let stdout = StdioFlags { stdout: true, ..Default::default() };
        let expected = hub.expect("c", "", stdout);
        let mut silent: Vec<Dialled> = Vec::new();
        for _ in 0..MAX_NAMELESS + 3 {
            let path = path.clone();
            // The listener's queue may be full until the hub has accepted some.
            let dialled = tokio::task::spawn_blocking(move || Dialled::connect(path));
            silent.push(dialled.await.unwrap().unwrap());
        }
        drop(dial(&path, format!("{TOKEN} c stdout\nout").as_bytes()));
        assert_eq!(text(expected.all().await.stdout), "out");
        // The oldest made room.
        for socket in silent.drain(..3) {
            ends(socket).await;
        }
        silent.last_mut().unwrap().write_all(b"x").unwrap();
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_after_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _hub = hub(&path, Duration::from_millis(1)).await;
        ends(Dialled::connect(&path).unwrap()).await;
    }
}
