//! One process's standard streams between its guest and the clients that are attached to it: what it writes goes to the log and to
//! all of them, what they write goes to it.
//!
//! A client that does not read holds the process up, as a pipe would; one that is gone does not.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use husk_protocol::StdioKind;
use husk_sandbox::{
    logs::Writer,
    stdio::{Stream, Streams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::timeout,
};

const BUFFER: usize = 32 * 1024;
/// How long a process that has ended may keep a stream open, by handing it to another, while nothing comes.
const SILENCE: Duration = Duration::from_secs(2);

/// A container's log; `None`: it keeps none.
pub(crate) type Log = Arc<Mutex<Option<Writer>>>;

/// A process's streams.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// How many copying tasks wait for a client just now.
    held_up: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    stdout: Output,
    stderr: Output,
    stdin: Input,
    /// Its input ends with the first client's.
    stdin_once: bool,
    ended: bool,
}

/// Where what the process writes goes.
#[derive(Debug, Default)]
struct Output {
    clients: Vec<Arc<tokio::sync::Mutex<UnixStream>>>,
    copying: Option<JoinHandle<()>>,
}

/// Where what it reads comes from.
#[derive(Debug, Default)]
struct Input {
    /// Clients from before the process was made.
    waiting: Vec<OwnedReadHalf>,
    guest: Option<Arc<tokio::sync::Mutex<OwnedWriteHalf>>>,
}

impl Hub {
    /// One of a process that does not run yet.
    pub(crate) fn new(stdin_once: bool) -> Arc<Self> {
        let state = State { stdin_once, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// Attaches a client's connection. `false`: the process has ended.
    pub(crate) fn attach(self: &Arc<Self>, kind: StdioKind, client: UnixStream) -> bool {
        let mut state = self.state();
        if state.ended {
            return false;
        }
        let client_output = |client| Arc::new(tokio::sync::Mutex::new(client));
        match kind {
            StdioKind::Stdout => state.stdout.clients.push(client_output(client)),
            StdioKind::Stderr => state.stderr.clients.push(client_output(client)),
            StdioKind::Stdin => {
                // The other half would tell the client of the end of the process, which its outputs do.
                let (reader, _) = client.into_split();
                match state.stdin.guest.clone() {
                    Some(guest) => drop(tokio::spawn(feed(self.clone(), reader, guest))),
                    None => state.stdin.waiting.push(reader),
                }
            }
        }
        true
    }

    /// Begins to copy: the process is made.
    ///
    /// # Errors
    /// When a stream can't be used.
    pub(crate) fn connect(self: &Arc<Self>, streams: Streams, log: &Log) -> io::Result<()> {
        let Streams { stdin, stdout, stderr } = streams;
        let mut state = self.state();
        if let Some(stdin) = stdin {
            let (_, writer) = open(stdin)?.0.into_split();
            let guest = Arc::new(tokio::sync::Mutex::new(writer));
            for reader in std::mem::take(&mut state.stdin.waiting) {
                tokio::spawn(feed(self.clone(), reader, guest.clone()));
            }
            state.stdin.guest = Some(guest);
        }
        for (kind, stream) in [(StdioKind::Stdout, stdout), (StdioKind::Stderr, stderr)] {
            if let Some(stream) = stream {
                let copying = drain(self.clone(), kind, open(stream)?, log.clone());
                state.output(kind).copying = Some(tokio::spawn(copying));
            }
        }
        Ok(())
    }

    /// Closes the guest's end of an output: the process gets SIGPIPE when it writes on.
    pub(crate) fn close_output(&self, kind: StdioKind) {
        if let Some(copying) = self.state().output(kind).copying.take() {
            copying.abort();
        }
    }

    /// Returns when all that the process has written is where it goes; the clients' connections end then. For a process that has
    /// ended: what others have of its streams is waited for only as long as something comes, and a client that does not read only
    /// as long as `patient` says so.
    pub(crate) async fn finish(&self, patient: impl Fn() -> bool) {
        for kind in [StdioKind::Stdout, StdioKind::Stderr] {
            let copying = self.state().output(kind).copying.take();
            let Some(mut copying) = copying else { continue };
            while timeout(SILENCE, &mut copying).await.is_err() {
                if self.held_up.load(Ordering::Relaxed) == 0 || !patient() {
                    copying.abort();
                    break;
                }
            }
        }
        self.end();
    }

    /// Closes everything.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        for kind in [StdioKind::Stdout, StdioKind::Stderr] {
            let output = state.output(kind);
            output.clients.clear();
            if let Some(copying) = output.copying.take() {
                copying.abort();
            }
        }
        state.stdin = Input::default();
    }

    /// Gives a piece of output to all clients; those that are gone are forgotten.
    async fn deliver(&self, kind: StdioKind, piece: &[u8]) {
        let clients = self.state().output(kind).clients.clone();
        for client in clients {
            self.held_up.fetch_add(1, Ordering::Relaxed);
            let written = client.lock().await.write_all(piece).await;
            self.held_up.fetch_sub(1, Ordering::Relaxed);
            if written.is_err() {
                self.state().output(kind).clients.retain(|other| !Arc::ptr_eq(other, &client));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn output(&mut self, kind: StdioKind) -> &mut Output {
        if kind == StdioKind::Stderr { &mut self.stderr } else { &mut self.stdout }
    }
}

/// A guest's stream, and what had been read of it already.
fn open(stream: Stream) -> io::Result<(UnixStream, Vec<u8>)> {
    let (socket, early) = stream.into_parts();
    socket.set_nonblocking(true)?;
    Ok((UnixStream::from_std(socket)?, early))
}

async fn drain(hub: Arc<Hub>, kind: StdioKind, (mut guest, early): (UnixStream, Vec<u8>), log: Log) {
    let mut buffer = early;
    buffer.reserve_exact(BUFFER.saturating_sub(buffer.len()));
    loop {
        if !buffer.is_empty() {
            if let Some(log) = log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                log.write(kind, &buffer, jiff::Timestamp::now());
            }
            hub.deliver(kind, &buffer).await;
            buffer.clear();
        }
        match guest.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

/// Copies what a client writes. Its end is the process's end of input only where that is to be so.
async fn feed(hub: Arc<Hub>, mut client: OwnedReadHalf, guest: Arc<tokio::sync::Mutex<OwnedWriteHalf>>) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match client.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) if guest.lock().await.write_all(&buffer).await.is_err() => return,
            Ok(_) => {}
        }
    }
    let once = hub.state().stdin_once;
    if once {
        // A process that has ended has no input.
        let _ = guest.lock().await.shutdown().await;
    }
}
