//! A process's stdio streams on the host: accepting what the agent dials, and copying to and from descriptors.
//!
//! Copying is done by plain threads with blocking calls: a slow reader of husk's output then holds up nothing but that
//! stream, and backpressure reaches the guest through the socket.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    thread::JoinHandle,
};

use husk_protocol::{StdioKind, StreamHello, StreamName, StreamToken};
use tokio::{io::AsyncReadExt, net::UnixListener};

const BUFFER: usize = 64 * 1024;

/// A stream that the agent has dialled, and what had already been read of it beyond its first line.
#[derive(Debug)]
pub struct Stream {
    socket: UnixStream,
    early: Vec<u8>,
}

/// The streams of one process.
#[derive(Debug, Default)]
pub struct Streams {
    /// To the process.
    pub stdin: Option<Stream>,
    /// From the process.
    pub stdout: Option<Stream>,
    /// From the process.
    pub stderr: Option<Stream>,
}

/// Accepts the streams named in `wanted`, which begin with `token`. Connections that begin with anything else are closed.
///
/// # Errors
/// When accepting fails.
pub async fn accept(
    listener: &UnixListener,
    token: &StreamToken,
    container_id: &str,
    wanted: &[StdioKind],
) -> io::Result<Streams> {
    let mut streams = Streams::default();
    let mut missing = wanted.to_vec();
    while !missing.is_empty() {
        let (mut socket, _) = listener.accept().await?;
        let Some((name, early)) = read_hello(&mut socket, token).await else { continue };
        let Some(at) = missing.iter().position(|kind| *kind == name.kind) else { continue };
        if name.container_id != container_id || !name.exec_id.is_empty() {
            continue;
        }
        missing.swap_remove(at);
        let stream = Some(Stream::new(socket, early)?);
        match name.kind {
            StdioKind::Stdin => streams.stdin = stream,
            StdioKind::Stdout => streams.stdout = stream,
            StdioKind::Stderr => streams.stderr = stream,
        }
    }
    Ok(streams)
}

/// The stream that the first line names, and what came with that line. `None`: not a hello, or not of the agent, which
/// alone knows the token.
pub(crate) async fn read_hello(
    socket: &mut tokio::net::UnixStream,
    token: &StreamToken,
) -> Option<(StreamName, Vec<u8>)> {
    let mut seen = Vec::with_capacity(StreamHello::MAX_LEN);
    loop {
        if let Some(end) = seen.iter().position(|byte| *byte == b'\n') {
            let early = seen.split_off(end + 1);
            let hello: StreamHello = std::str::from_utf8(&seen).ok()?.parse().ok()?;
            return (hello.token == *token).then_some((hello.name, early));
        }
        if seen.len() >= StreamHello::MAX_LEN || socket.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
}

impl Stream {
    /// The stream of a connection of which `early` was read beyond its first line.
    pub(crate) fn new(socket: tokio::net::UnixStream, early: Vec<u8>) -> io::Result<Self> {
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(Self { socket, early })
    }

    /// The connection, on which calls wait, and what had already been read of it. For a stream from the process, that comes
    /// first; a stream to the process ends by shutting it down for writing.
    pub fn into_parts(self) -> (UnixStream, Vec<u8>) {
        (self.socket, self.early)
    }

    /// Copies everything the process writes to `out`, on a thread of its own, until the stream ends. When `out` takes
    /// no more (its reader is gone), the stream is closed, so that the process gets SIGPIPE as it would with a pipe.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn copy_to(self, mut out: File, name: &str) -> io::Result<JoinHandle<io::Result<()>>> {
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let Self { mut socket, early } = self;
            let result = out.write_all(&early).and_then(|()| copy(&mut socket, &mut out));
            let _ = socket.shutdown(Shutdown::Both);
            result
        })
    }

    /// Copies `input` to the process, on a thread of its own; its end becomes the process's end of file.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn copy_from(self, mut input: File, name: &str) -> io::Result<JoinHandle<io::Result<()>>> {
        std::thread::Builder::new().name(name.into()).spawn(move || {
            let Self { mut socket, .. } = self;
            let result = copy(&mut input, &mut socket);
            let _ = socket.shutdown(Shutdown::Write);
            result
        })
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    /// Connects to `path` and sends `bytes`.
    fn dial(path: &std::path::Path, bytes: &[u8]) -> UnixStream {
        let mut socket = UnixStream::connect(path).unwrap();
        socket.write_all(bytes).unwrap();
        socket
    }

    #[tokio::test]
    async fn streams_are_told_apart_and_strangers_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdio");
        let listener = UnixListener::bind(&path).unwrap();
        let mut stranger = dial(&path, b"GET / HTTP/1.0\r\n\r\n");
        let token: StreamToken = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let mut other = dial(&path, format!("{token} c2 stdout\n").as_bytes());
        let mut guess = dial(&path, b"1123456789abcdef0123456789abcdef c1 stdout\n");
        let err = dial(&path, format!("{token} c1 stderr\n").as_bytes());
        let mut out = dial(&path, format!("{token} c1 stdout\nearly ").as_bytes());
        let streams = accept(&listener, &token, "c1", &[StdioKind::Stdout, StdioKind::Stderr]).await.unwrap();
        assert!(streams.stdin.is_none() && streams.stderr.is_some());

        out.write_all(b"late").unwrap();
        drop((out, err));
        let copied = dir.path().join("copied");
        let file = File::create(&copied).unwrap();
        streams.stdout.unwrap().copy_to(file, "out").unwrap().join().unwrap().unwrap();
        assert_eq!(std::fs::read(&copied).unwrap(), b"early late");
        for socket in [&mut stranger, &mut other, &mut guess] {
            let mut rest = Vec::new();
            // Unread bytes make the close a reset; either way the connection is over.
            let closed = socket.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{closed:?}");
        }
    }

    #[test]
    fn a_reader_that_leaves_closes_the_stream() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let stream = Stream { socket: host, early: Vec::new() };
        let copier = stream.copy_to(File::from(OwnedFd::from(writer)), "out").unwrap();
        guest.write_all(b"x").unwrap();
        assert!(copier.join().unwrap().is_err());
        assert!(guest.write_all(b"y").is_err());
    }

    #[test]
    fn the_end_of_input_is_passed_on() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let stream = Stream { socket: host, early: Vec::new() };
        let copier = stream.copy_from(File::from(OwnedFd::from(reader)), "in").unwrap();
        writer.write_all(b"all").unwrap();
        drop(writer);
        let mut got = Vec::new();
        guest.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"all");
        copier.join().unwrap().unwrap();
    }
}
