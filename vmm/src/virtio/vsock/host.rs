//! The host's side: unix sockets, the CONNECT line, and bytes held for a slow reader.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    mem::size_of,
    net::Shutdown,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use super::chain::Buffers;

/// Connections that may wait in the listening socket to be accepted.
const BACKLOG: libc::c_int = 128;
/// Longest line with which a host peer may begin, its end included: `CONNECT 4294967295\n` with some slack.
const MAX_LINE_LEN: usize = 32;

/// The vsock device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The context id is one of those with a special meaning.
    #[error("vsock guest context id {0} is reserved: choose one from 3 to 4294967294")]
    Cid(u32),
    /// The socket path leaves no room for a port number behind it.
    #[error("vsock socket path {0} is too long: a path may have 96 bytes")]
    PathTooLong(PathBuf),
    /// There is something at the socket path that is not a socket.
    #[error("{0} exists and is not a socket: choose another vsock socket path")]
    NotASocket(PathBuf),
    /// Another process listens on the socket path.
    #[error("another process listens on vsock socket {0}")]
    InUse(PathBuf),
    /// The socket could not be made.
    #[error("cannot listen on vsock socket {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The path on which the host's side of port `port` listens.
pub(super) fn port_path(socket: &Path, port: u32) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(format!("_{port}"));
    path.into()
}

/// Listens on `path`, for this user alone. A socket that nobody listens on any more is replaced.
pub(super) fn listen(path: &Path) -> Result<UnixListener, VsockError> {
    let failed = |source| VsockError::Listen { path: path.to_owned(), source };
    if address(&port_path(path, u32::MAX)).is_err() {
        return Err(VsockError::PathTooLong(path.to_owned()));
    }
    match try_listen(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(failed),
    }
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(VsockError::NotASocket(path.to_owned()));
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return Err(VsockError::InUse(path.to_owned())),
    }
    std::fs::remove_file(path).and_then(|()| try_listen(path)).map_err(failed)
}

fn try_listen(path: &Path) -> io::Result<UnixListener> {
    let (address, len) = address(path)?;
    let socket = new_socket()?;
    let fd = socket.as_raw_fd();
    // The mode of the descriptor becomes that of the file, so that nobody else can connect at any time.
    // SAFETY: `fd` is open; the call touches no memory.
    check(unsafe { libc::fchmod(fd, 0o600) })?;
    // SAFETY: `fd` is open, and `address` is a whole sockaddr_un of which `len` bytes count.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), len) })?;
    // SAFETY: `fd` is open; the call touches no memory.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(socket.into())
}

/// Connects to `path` without waiting.
///
/// # Errors
/// As connect(2); also when the listener has too many connections waiting.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let (address, len) = address(path)?;
    let socket = new_socket()?;
    // SAFETY: the descriptor is open, and `address` is a whole sockaddr_un of which `len` bytes count.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket.into())
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call touches no memory.
    let fd = unsafe { libc::socket(libc::AF_UNIX, flags, 0) };
    check(fd)?;
    // SAFETY: socket(2) just made `fd`, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The socket address of a path, and its length.
fn address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all bytes zero is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    // One byte stays zero as the end of the path.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    // AF_UNIX is 1.
    address.sun_family = libc::AF_UNIX.try_into().unwrap_or_default();
    let len = size_of::<libc::sockaddr_un>().try_into().unwrap_or_default();
    Ok((address, len))
}

/// What a host peer has said in its first line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Not everything yet.
    Incomplete,
    /// That it wants this port of the guest.
    Connect(u32),
    /// Nonsense, or it went away.
    Bad,
}

/// The line with which a host peer begins.
#[derive(Debug, Default)]
pub(super) struct GreetingReader {
    line: Vec<u8>,
}

impl GreetingReader {
    /// Reads on, never past the end of the line: what follows is for the guest.
    pub(super) fn read(&mut self, mut from: impl Read) -> Greeting {
        let mut byte = [0];
        while self.line.len() < MAX_LINE_LEN {
            match from.read(&mut byte) {
                Ok(1) if byte == *b"\n" => {
                    return parse_greeting(&self.line).map_or(Greeting::Bad, Greeting::Connect);
                }
                Ok(1) => self.line.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Greeting::Incomplete,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        Greeting::Bad
    }
}

fn parse_greeting(line: &[u8]) -> Option<u32> {
    let digits = str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    // A number may not begin with a sign here.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Bytes from the guest that wait until the host's peer takes them.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// How many of `bytes` are gone.
    sent: usize,
}

impl Held {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == self.sent
    }

    /// Adds the bytes of a packet.
    pub(super) fn push(&mut self, data: &Buffers<'_>) {
        // Moves what is left only when that is less than what it frees.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        let old_len = self.bytes.len();
        self.bytes.resize(old_len + data.len(), 0);
        data.copy_to(&mut self.bytes[old_len..]);
    }

    /// Sends as much as the socket takes now; returns how much that was.
    ///
    /// # Errors
    /// What the socket said, other than that it is full.
    pub(super) fn send(&mut self, mut to: &UnixStream) -> io::Result<usize> {
        let before = self.sent;
        while !self.is_empty() {
            match to.write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let count = self.sent - before;
        if self.is_empty() {
            *self = Self::default();
        }
        Ok(count)
    }
}

/// Takes no more from a host peer. What it has sent already is dropped, so that the peer reads an end of the stream and
/// not an error once this side closes.
pub(super) fn refuse_input(mut from: &UnixStream) {
    // Fails only when the peer is gone.
    let _ = from.shutdown(Shutdown::Read);
    let mut scratch = [0; 4096];
    // Ends: nothing can be added any more, and what is there is bounded by the socket's buffer.
    while matches!(from.read(&mut scratch), Ok(1..)) {}
}
