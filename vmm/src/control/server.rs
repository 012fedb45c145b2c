//! The socket's side of the VMM: never blocks, bounded in everything.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use super::{MAX_LINE, Request, Response, receive::receive};

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
    /// A descriptor that came along with the line that is not complete yet, or with the next.
    passed: Option<OwnedFd>,
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
        self.connections.insert(fd, Connection { stream, received: Vec::new(), passed: None });
        Some(fd)
    }

    /// Reads what a connection has and answers each complete line with what `answer` makes of it, and of the descriptor
    /// that was passed along with it.
    pub fn serve(&mut self, fd: RawFd, answer: impl FnMut(Request, Option<OwnedFd>) -> String) -> Progress {
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
    fn serve(&mut self, mut answer: impl FnMut(Request, Option<OwnedFd>) -> String) -> io::Result<()> {
        let mut bytes = [0; MAX_LINE];
        loop {
            // More than one descriptor at a time is an error.
            match receive(&self.stream, &mut bytes) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, passed)) => {
                    self.received.extend_from_slice(&bytes[..count]);
                    self.passed = passed.or(self.passed.take());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                let passed = self.passed.take();
                let mut response = match serde_json::from_slice(&line) {
                    Ok(request) => answer(request, passed),
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
    use std::{
        fs::File,
        io::{BufRead, BufReader, Read},
    };

    use vmm_sys_util::sock_ctrl_msg::ScmSocket;

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

    fn ok(_: Request, _: Option<OwnedFd>) -> String {
        to_line(&Response::Ok(Nothing {}))
    }

    #[test]
    fn each_line_is_answered() {
        let (_dir, mut server, mut client, fd) = pair();
        client.write_all(b"{\"op\":\"pause\"}\n{\"op\":\"explode\"}\n{\"op\"").unwrap();
        let mut seen = Vec::new();
        let progress = server.serve(fd, |request, passed| {
            seen.push(request.clone());
            ok(request, passed)
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
    fn a_descriptor_belongs_to_the_line_it_came_with() {
        let (_dir, mut server, client, fd) = pair();
        let (mut end, passed) = io::pipe().unwrap();
        (&client).write_all(b"{\"op\":\"state\"}\n{\"op\":\"pa").unwrap();
        let mut seen = Vec::new();
        server.serve(fd, |request, passed| {
            seen.push((request.clone(), passed.is_some()));
            ok(request, passed)
        });
        let rest: &[u8] = b"use\"}\n{\"op\":\"resume\"}\n";
        client.send_with_fd(rest, passed.as_raw_fd()).unwrap();
        drop(passed);
        let progress = server.serve(fd, |request, passed| {
            seen.push((request.clone(), passed.is_some()));
            if let Some(passed) = passed {
                File::from(passed).write_all(b"it is the pipe").unwrap();
            }
            to_line(&Response::Ok(Nothing {}))
        });
        assert_eq!(progress, Progress::Open);
        let expected = [(Request::State {}, false), (Request::Pause {}, true), (Request::Resume {}, false)];
        assert_eq!(seen, expected);
        let mut text = String::new();
        end.read_to_string(&mut text).unwrap();
        assert_eq!(text, "it is the pipe");
    }

    #[test]
    fn several_descriptors_at_once_end_the_connection_and_none_stays() {
        let (_dir, mut server, client, fd) = pair();
        let (mut end, passed) = io::pipe().unwrap();
        let line: &[u8] = b"{\"op\":\"state\"}\n";
        client.send_with_fds(&[line], &[passed.as_raw_fd(); 3]).unwrap();
        drop(passed);
        assert_eq!(server.serve(fd, ok), Progress::Closed);
        // The end comes only when nobody holds the pipe any more.
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
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
