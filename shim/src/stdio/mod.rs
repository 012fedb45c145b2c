//! A process's standard streams on the host's side: FIFOs, files and logging programs, as containerd names them.
//!
//! A FIFO's other end may come late, leave and come back, as containerd does when it is restarted. So the shim keeps both ends
//! of each open: a process never sees its output break, what nobody reads stays in the FIFO and the process waits, and its
//! input ends only when the client's end *and* the shim's own (which CloseIO closes) are closed.
//!
//! Input is opened only when its process is started. A client can't write before, so it can't come to the end of its own input
//! before it knows that there is a process whose input is to be closed: `ctr` would forget to.

mod logger;
mod uri;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use husk_sandbox::{
    pod::StdioFlags,
    stdio::{Stream, Streams},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    task::JoinHandle,
    time::timeout,
};

use self::{logger::Logger, uri::Target};
use crate::{entry::Stdio, error::Error};

const BUFFER: usize = 64 * 1024;
/// How long the last output may take to be read, once its process is to be deleted (as with runc's shim).
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait before a FIFO's reader is looked for again.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(200);

/// Which streams a process needs for this.
pub(crate) fn flags(stdio: &Stdio) -> StdioFlags {
    StdioFlags {
        stdin: !stdio.stdin.is_empty(),
        stdout: !stdio.stdout.is_empty(),
        stderr: !stdio.stderr.is_empty() && !stdio.terminal,
        terminal: stdio.terminal,
    }
}

/// Everything is open that a process's streams will be connected to.
#[derive(Debug)]
pub(crate) struct Prepared {
    stdin: Option<PathBuf>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    logger: Option<Logger>,
}

/// Where output goes.
#[derive(Debug)]
enum Output {
    /// A FIFO, whose reader may still have to come.
    Fifo(PathBuf),
    File(std::fs::File),
    Pipe(pipe::Sender),
}

/// Opens what `stdio` names.
///
/// # Errors
/// When something can't be opened, or a logging program can't be run.
pub(crate) async fn prepare(stdio: &Stdio, id: &str, namespace: &str) -> Result<Prepared, Error> {
    let stdin = (!stdio.stdin.is_empty()).then(|| PathBuf::from(&stdio.stdin));
    if let Some(path) = &stdin {
        path.metadata().map_err(Error::io("find", path))?;
    }
    let mut prepared = Prepared { stdin, stdout: None, stderr: None, logger: None };
    let stderr = if stdio.terminal { "" } else { stdio.stderr.as_str() };
    if let Some(Target::Program { path, args }) = uri::parse(&stdio.stdout)? {
        // One program takes both.
        let (logger, out, err) = Logger::start(&path, &args, id, namespace).await?;
        prepared.logger = Some(logger);
        prepared.stdout = Some(Output::Pipe(out));
        prepared.stderr = (!stderr.is_empty()).then_some(Output::Pipe(err));
        return Ok(prepared);
    }
    prepared.stdout = open_output(&stdio.stdout)?;
    prepared.stderr = open_output(stderr)?;
    Ok(prepared)
}

fn open_stdin(path: &Path) -> Result<(pipe::Receiver, pipe::Sender), Error> {
    let reader = pipe::OpenOptions::new().open_receiver(path).map_err(Error::io("open", path))?;
    let writer = pipe::OpenOptions::new().open_sender(path).map_err(Error::io("open", path))?;
    Ok((reader, writer))
}

fn open_output(text: &str) -> Result<Option<Output>, Error> {
    Ok(match uri::parse(text)? {
        None => None,
        Some(Target::Fifo(path)) => Some(Output::Fifo(path)),
        Some(Target::File(path)) => Some(Output::File(open_file(&path)?)),
        Some(Target::Program { .. }) => {
            return Err(Error::invalid(
                "a logging program takes standard output, or both, but not errors alone",
            ));
        }
    })
}

fn open_file(path: &Path) -> Result<std::fs::File, Error> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    std::fs::File::options().create(true).append(true).open(path).map_err(Error::io("open", path))
}

/// A process's streams, being copied.
#[derive(Debug)]
pub(crate) struct Copying {
    /// Input that is not open yet.
    unopened: Option<(PathBuf, Stream)>,
    /// The shim's own end of the input.
    stdin: Option<pipe::Sender>,
    input: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
    logger: Option<Logger>,
}

impl Prepared {
    /// Starts copying output.
    pub(crate) fn connect(self, streams: Streams) -> Copying {
        let unopened = self.stdin.zip(streams.stdin);
        let mut copying =
            Copying { unopened, stdin: None, input: None, outputs: Vec::new(), logger: self.logger };
        for (output, stream) in [(self.stdout, streams.stdout), (self.stderr, streams.stderr)] {
            if let (Some(output), Some(stream)) = (output, stream) {
                copying.outputs.push(tokio::spawn(async move { told(drain(stream, output).await) }));
            }
        }
        copying
    }
}

impl Copying {
    /// Starts copying input. With `closed`, the shim has closed its own end already. A FIFO that is gone is at its end.
    pub(crate) fn open_stdin(&mut self, closed: bool) {
        let Some((path, stream)) = self.unopened.take() else { return };
        match open_stdin(&path) {
            Ok((reader, writer)) => {
                self.stdin = (!closed).then_some(writer);
                self.input = Some(tokio::spawn(async move { told(feed(reader, stream).await) }));
            }
            Err(error) => tracing::error!("a process has no input: {}", error.text()),
        }
    }

    /// The process's input ends when the client's end is closed, too.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until all output of a process that has ended is where it goes; not for long.
    pub(crate) async fn finish(self) {
        if let Some(input) = self.input {
            input.abort();
        }
        for mut output in self.outputs {
            if timeout(DRAIN, &mut output).await.is_err() {
                tracing::warn!("nobody reads the last output of a process that is deleted: it is lost");
                output.abort();
            }
        }
        if let Some(logger) = self.logger {
            logger.finish().await;
        }
    }
}

fn told(copied: io::Result<()>) {
    if let Err(error) = copied {
        tracing::debug!("a standard stream broke: {error}");
    }
}

async fn feed(from: pipe::Receiver, stream: Stream) -> io::Result<()> {
    copy_in(from, connection(stream)?.0).await
}

async fn drain(stream: Stream, output: Output) -> io::Result<()> {
    let (from, early) = connection(stream)?;
    copy_out(from, early, output).await
}

async fn copy_in(mut from: pipe::Receiver, mut to: UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

async fn copy_out(mut from: UnixStream, early: Vec<u8>, output: Output) -> io::Result<()> {
    match output {
        Output::Fifo(path) => {
            let mut to = open_when_read(&path).await?;
            // The client may leave, and another come.
            let _reader = pipe::OpenOptions::new().open_receiver(&path)?;
            pump(&mut from, early, &mut to).await
        }
        Output::File(file) => {
            let mut to = tokio::fs::File::from_std(file);
            pump(&mut from, early, &mut to).await?;
            to.flush().await
        }
        Output::Pipe(mut to) => pump(&mut from, early, &mut to).await,
    }
}

async fn pump(
    from: &mut UnixStream,
    early: Vec<u8>,
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
) -> io::Result<()> {
    to.write_all(&early).await?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            n => to.write_all(&buffer[..n]).await?,
        }
    }
}

/// A stream's connection, and what had been read of it already.
fn connection(stream: Stream) -> io::Result<(UnixStream, Vec<u8>)> {
    let (socket, early) = stream.into_parts();
    socket.set_nonblocking(true)?;
    Ok((UnixStream::from_std(socket)?, early))
}

/// Opens a FIFO once somebody reads it: what is written to one that nobody has open yet is lost if we close it first.
async fn open_when_read(path: &Path) -> io::Result<pipe::Sender> {
    let mut pause = RETRY_MIN;
    loop {
        match pipe::OpenOptions::new().open_sender(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
