//! Conversations over TCP with what containers serve.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use crate::wait::{PATIENCE, wait_for};

/// What a server at this address says by itself, as soon as it is there.
///
/// # Panics
/// When it never is.
pub fn ask(address: impl Into<IpAddr>, port: u16) -> String {
    let address = address.into();
    wait_for("an answer", PATIENCE, || try_to_ask(address, port).ok().filter(|text| !text.is_empty()))
}

/// What a server at this address says by itself, to the end of the connection.
///
/// # Errors
/// When nobody answers there.
pub fn try_to_ask(address: impl Into<IpAddr>, port: u16) -> io::Result<String> {
    say(address.into(), port, "")
}

/// What a server at this address answers to `text`, as soon as it is there. It has to read all of that.
///
/// # Panics
/// When it never is there.
pub fn tell(address: impl Into<IpAddr>, port: u16, text: &str) -> String {
    let address = address.into();
    wait_for("an answer", PATIENCE, || say(address, port, text).ok().filter(|text| !text.is_empty()))
}

fn say(address: IpAddr, port: u16, text: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
