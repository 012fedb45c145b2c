//! vsock streams, as files.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, VsockAddr, accept, bind, connect, listen, shutdown,
    socket,
};

fn stream_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Connects to a port of the host.
pub(crate) fn dial(port: u32) -> io::Result<File> {
    let socket = stream_socket()?;
    connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port))?;
    Ok(socket.into())
}

/// Listens on a port.
pub(crate) fn listener(port: u32) -> io::Result<OwnedFd> {
    let socket = stream_socket()?;
    bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, port))?;
    listen(&socket, Backlog::new(128)?)?;
    Ok(socket)
}

/// Takes the next connection.
pub(crate) fn accept_next(listener: &OwnedFd) -> io::Result<File> {
    let fd = accept(listener.as_raw_fd())?;
    // SAFETY: accept has just returned this descriptor, and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Sends nothing more on a stream.
pub(crate) fn end_writing(stream: &File) -> io::Result<()> {
    Ok(shutdown(stream.as_raw_fd(), Shutdown::Write)?)
}
