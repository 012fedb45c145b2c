//! A UDP socket that answers from the very address that was asked.
//!
//! A socket bound to all addresses would answer from one of the kernel's choice, and clients drop answers that come
//! from elsewhere. So each datagram's destination is noted and becomes its answer's source (ip(7), ipv6(7): PKTINFO).

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};

/// Who sent a datagram, and to which of the host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    pub(super) client: SocketAddr,
    pub(super) local: IpAddr,
}

#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Takes a bound socket that does not block.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        if socket.local_addr()?.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket: UdpSocket::from_std(socket)? })
    }

    /// The next datagram's length and sender. Cut off at the buffer's end.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        self.socket.async_io(Interest::READABLE, || receive(&self.socket, buffer)).await
    }

    /// Answers, if the system takes the datagram at once: as with all of UDP, it may be lost.
    pub(super) fn answer(&self, peer: &Peer, data: &[u8]) {
        let to = SockaddrStorage::from(peer.client);
        let fd = self.socket.as_raw_fd();
        let data = [IoSlice::new(data)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = match peer.local {
            IpAddr::V4(local) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                sendmsg(fd, &data, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
            }
            IpAddr::V6(local) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: local.octets() },
                    ipi6_ifindex: 0,
                };
                sendmsg(fd, &data, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
            }
        };
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut buffers = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let mut local = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local = Some(IpAddr::from(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes())));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                local = Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            _ => {}
        }
    }
    let from = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from(SocketAddrV4::from(*v4)));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from(SocketAddrV6::from(*v6))))
    });
    match (from, local) {
        (Some(client), Some(local)) => Ok((message.bytes, Peer { client, local })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
