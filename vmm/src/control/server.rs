//! The socket's side of the VMM: never blocks, bounded in everything.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use super::{MAX_LINE, Request, Response};

/// Most connections at a time; further ones are closed at once.
pub const MAX_CONNECTIONS: usize = 16;

/// The listening socket and its connections, each known by its descriptor.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    connections: BTreeMap<RawFd, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

/// What came of a connection that was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for more.
    Open,
    /// It is gone.
    Closed,
}

impl Server {
    /// Listens at `path`, where nothing may be yet.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, connections: BTreeMap::new() })
    }

    /// The listening socket's descriptor.
    pub fn listener(&self) -> RawFd {
        self.listener.as_raw_fd()
    }

    /// Accepts a connection and returns its descriptor; `None` if there is none, or there are too many.
    pub fn accept(&mut self) -> Option<RawFd> {
        let (stream, _) = self.listener.accept().ok()?;
        if self.connections.len() == MAX_CONNECTIONS || stream.set_nonblocking(true).is_err() {
            return None;
        }
        let fd = stream.as_raw_fd();
        self.connections.insert(fd, Connection { stream, received: Vec::new() });
        Some(fd)
    }

    /// Reads what a connection has and answers each complete line with what `answer` makes of it.
    pub fn serve(&mut self, fd: RawFd, answer: impl FnMut(Request) -> String) -> Progress {
        let Some(connection) = self.connections.get_mut(&fd) else { return Progress::Closed };
        if connection.serve(answer).is_ok() {
            return Progress::Open;
        }
        self.connections.remove(&fd);
        Progress::Closed
    }
}

impl Connection {
    /// An error means the end of the connection.
    fn serve(&mut self, mut answer: impl FnMut(Request) -> String) -> io::Result<()> {
        let mut bytes = [0; MAX_LINE];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let mut response = match serde_json::from_slice(&line) {
                    Ok(request) => answer(request),
                    Err(error) => to_line(&Response::<()>::Error(format!("not a request: {error}"))),
                };
                response.push('\n');
                // Who does not read answers is not worth waiting for.
                self.stream.write_all(response.as_bytes())?;
            }
            if self.received.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// A response as a line, without its end.
pub(crate) fn to_line<T: serde::Serialize>(response: &Response<T>) -> String {
    serde_json::to_string(response).unwrap_or_else(|_| r#"{"error":"the answer is not JSON"}"#.to_owned())
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;
    use crate::control::Nothing;

    fn pair() -> (tempfile::TempDir, Server, UnixStream, RawFd) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let mut server = Server::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let fd = server.accept().unwrap();
        (dir, server, client, fd)
    }

    fn ok(_: Request) -> String {
        to_line(&Response::Ok(Nothing {}))
    }

    #[test]
    fn each_line_is_answered() {
        let (_dir, mut server, mut client, fd) = pair();
        client.write_all(b"{\"op\":\"pause\"}\n{\"op\":\"explode\"}\n{\"op\"").unwrap();
        let mut seen = Vec::new();
        let progress = server.serve(fd, |request| {
            seen.push(request.clone());
            ok(request)
        });
        assert_eq!((progress, seen), (Progress::Open, vec![Request::Pause {}]));
        let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), r#"{"ok":{}}"#);
        assert!(lines.next().unwrap().unwrap().starts_with(r#"{"error":"not a request: unknown variant"#));
        client.write_all(b":\"state\"}\n").unwrap();
        assert_eq!(server.serve(fd, ok), Progress::Open);
        assert_eq!(lines.next().unwrap().unwrap(), r#"{"ok":{}}"#);
    }

    #[test]
    fn an_endless_line_ends_the_connection() {
        let (_dir, mut server, mut client, fd) = pair();
        client.write_all(&[b' '; MAX_LINE + 1]).unwrap();
        assert_eq!(server.serve(fd, ok), Progress::Closed);
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }

    #[test]
    fn a_closed_connection_is_forgotten() {
        let (_dir, mut server, client, fd) = pair();
        drop(client);
        assert_eq!(server.serve(fd, ok), Progress::Closed);
        assert!(server.connections.is_empty());
    }

    #[test]
    fn connections_are_limited() {
        let (dir, mut server, _client, _) = pair();
        let path = dir.path().join("control");
        let clients: Vec<_> = (1..MAX_CONNECTIONS).map(|_| UnixStream::connect(&path).unwrap()).collect();
        assert!(clients.iter().all(|_| server.accept().is_some()));
        let mut rejected = UnixStream::connect(&path).unwrap();
        assert_eq!(server.accept(), None);
        assert_eq!(rejected.read(&mut [0]).unwrap(), 0);
    }
}
