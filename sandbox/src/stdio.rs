//! A process's standard streams on the host: connections that the agent has dialled.

use std::{io, os::unix::net::UnixStream};

use husk_protocol::{StreamHello, StreamName, StreamToken};
use tokio::io::AsyncReadExt;

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
}
