//! A process's stdio: pipes or a terminal on the process's side, streams to the host on the other, and the tasks that
//! copy between them. A process never holds a socket.

mod pipe;
mod pump;
mod tty;

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    pin::Pin,
    sync::Arc,
};

use husk_protocol::{StdioKind, StreamHello, StreamName, StreamToken, agent::Stdio as Request, port};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
};

pub(crate) use self::tty::{Console, Tty, WindowSize};
use self::{
    pipe::NonBlocking,
    pump::{Output, copy_in, copy_out},
};

/// A connection to the host.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Connects to a port on the host.
pub(crate) type Dial = Arc<dyn Fn(u32) -> Dialling + Send + Sync>;
/// A connection in the making.
pub(crate) type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// The streams of one process, dialled.
#[derive(Default)]
pub(crate) struct Streams {
    stdin: Option<Box<dyn Stream>>,
    stdout: Option<Box<dyn Stream>>,
    stderr: Option<Box<dyn Stream>>,
}

/// What the process gets as its descriptors 0, 1 and 2. None: /dev/null. All None with a terminal.
#[derive(Debug, Default)]
pub(crate) struct ChildEnds {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl ChildEnds {
    /// The open ones.
    pub(crate) fn open(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten()
    }

    /// The numbers of the open ones.
    pub(crate) fn fds(&self) -> Vec<RawFd> {
        self.open().map(AsRawFd::as_raw_fd).collect()
    }
}

/// The agent's ends of the pipes.
#[derive(Debug, Default)]
pub(crate) struct AgentEnds {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Makes the pipes that `request` asks for; none with a terminal.
pub(crate) fn pipes(request: &Request) -> io::Result<(AgentEnds, ChildEnds)> {
    let (mut agent, mut child) = (AgentEnds::default(), ChildEnds::default());
    if request.terminal {
        return Ok((agent, child));
    }
    if request.stdin {
        let (read, write) = pipe::pipe()?;
        (child.stdin, agent.stdin) = (Some(read), Some(write));
    }
    for (wanted, child, agent) in [
        (request.stdout, &mut child.stdout, &mut agent.stdout),
        (request.stderr, &mut child.stderr, &mut agent.stderr),
    ] {
        if wanted {
            let (read, write) = pipe::pipe()?;
            (*agent, *child) = (Some(read), Some(write));
        }
    }
    Ok((agent, child))
}

/// Dials every stream that `request` asks for, all at once.
pub(crate) async fn dial(
    dial: &Dial,
    request: &Request,
    token: &StreamToken,
    container_id: &str,
    exec_id: &str,
) -> io::Result<Streams> {
    let port = if request.port == 0 { port::STDIO } else { request.port };
    let open = |wanted: bool, kind: StdioKind| async move {
        if !wanted {
            return Ok(None);
        }
        let name = StreamName { container_id: container_id.to_owned(), exec_id: exec_id.to_owned(), kind };
        let hello = StreamHello { token: token.clone(), name };
        let mut stream = dial(port).await?;
        stream.write_all(hello.to_string().as_bytes()).await?;
        Ok::<_, io::Error>(Some(stream))
    };
    let (stdin, stdout, stderr) = tokio::try_join!(
        open(request.stdin, StdioKind::Stdin),
        open(request.stdout, StdioKind::Stdout),
        open(request.stderr && !request.terminal, StdioKind::Stderr),
    )?;
    Ok(Streams { stdin, stdout, stderr })
}

/// The copying of one process's stdio.
#[derive(Debug)]
pub(crate) struct Copying {
    exited: watch::Sender<bool>,
    outputs: Vec<Output>,
}

impl Copying {
    /// Starts copying between pipes and streams.
    pub(crate) fn of_pipes(ends: AgentEnds, streams: Streams) -> io::Result<Self> {
        let (exited, ending) = watch::channel(false);
        let mut outputs = Vec::with_capacity(2);
        if let (Some(fd), Some(stream)) = (ends.stdin, streams.stdin) {
            tokio::spawn(copy_in(stream, Arc::new(NonBlocking::new(fd)?), ending.clone()));
        }
        for (fd, stream) in [(ends.stdout, streams.stdout), (ends.stderr, streams.stderr)] {
            if let (Some(fd), Some(stream)) = (fd, stream) {
                outputs.push(copy_out(Arc::new(NonBlocking::new(fd)?), stream, ending.clone()));
            }
        }
        Ok(Self { exited, outputs })
    }

    /// Starts copying between a terminal and streams.
    pub(crate) fn of_tty(tty: &Tty, streams: Streams) -> Self {
        let (exited, ending) = watch::channel(false);
        let mut outputs = Vec::with_capacity(1);
        if let Some(stream) = streams.stdin {
            tokio::spawn(copy_in(stream, tty.master(), ending.clone()));
        }
        if let Some(stream) = streams.stdout {
            outputs.push(copy_out(tty.master(), stream, ending));
        }
        Self { exited, outputs }
    }

    /// Call when the process has ended: returns when all it wrote is in its streams. What its children may still write
    /// goes on being copied.
    pub(crate) async fn finish(mut self) {
        self.exited.send_replace(true);
        for output in &mut self.outputs {
            output.drained().await;
        }
    }
}
