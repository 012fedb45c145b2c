//! The guest's network interfaces.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    thread,
};

use husk_tests::net;

/// What is known of an interface.
pub(crate) fn describe(interface: &str) -> io::Result<String> {
    let read = |file: &str| fs::read_to_string(format!("/sys/class/net/{interface}/{file}"));
    let queues = fs::read_dir(format!("/sys/class/net/{interface}/queues"))?.flatten();
    let receiving = queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).count();
    Ok(format!("mac={} mtu={} queues={receiving}", read("address")?.trim(), read("mtu")?.trim()))
}

/// Gives an interface an address and brings it up.
pub(crate) fn bring_up(interface: &str, address: Ipv4Addr) -> io::Result<String> {
    net::bring_up(interface, address, 24)?;
    Ok("ok".into())
}

/// Serves transfers on any number of connections.
pub(crate) fn serve_tcp(port: u16) -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                if let Err(error) = net::serve(&stream) {
                    crate::log(&format!("a transfer failed: {error}"));
                }
            });
        }
    });
    Ok("ok".into())
}

/// Sends datagrams back.
pub(crate) fn echo_udp(port: u16) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || -> io::Result<()> {
        let mut datagram = vec![0; 1 << 16];
        loop {
            let (len, from) = socket.recv_from(&mut datagram)?;
            socket.send_to(&datagram[..len], from)?;
        }
    });
    Ok("ok".into())
}
