//! Claims ports of the host by really binding them, so that a port in use is known before the VM starts.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt},
};

use super::{HostPort, PortMapping, PortProtocol, PortRequest};

/// Most ports that one container can have published: each takes up to two descriptors of husk's.
pub const MAX_PORTS: usize = 4096;

/// How often another random port is tried when one is free for one family only.
const RANDOM_TRIES: usize = 64;
/// Connections that wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// A port of the host that is husk's from now on, until this is dropped.
#[derive(Debug)]
pub struct BoundPort {
    /// What leads where.
    pub mapping: PortMapping,
    /// One per address family. They don't block, and TCP ones listen already.
    pub(super) sockets: Vec<HostSocket>,
}

/// A bound socket.
#[derive(Debug)]
pub(super) enum HostSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Why ports could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("port {port}/{protocol} on {address} is in use: publish another port, or stop what uses it ({})", ss(*.protocol, *.port))]
    InUse {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// Somebody else has each of them.
    #[error("all ports from {first} to {last}/{protocol} on {address} are in use: publish a wider range")]
    RangeInUse {
        /// Address of the host.
        address: IpAddr,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// Their protocol.
        protocol: PortProtocol,
    },
    /// The system has no port left that is free for both families.
    #[error("no free {protocol} port found on {address}: name one that is free")]
    NoneFree {
        /// Address of the host.
        address: IpAddr,
        /// The protocol.
        protocol: PortProtocol,
    },
    /// Two requests for the same port.
    #[error("port {port}/{protocol} of the host is published twice: it can lead to one port only")]
    Twice {
        /// Port of the host.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// More than [`MAX_PORTS`].
    #[error("{0} ports are too many to publish: {MAX_PORTS} at most")]
    TooMany(usize),
    /// The address belongs to another machine, or to none.
    #[error("cannot publish on {0}: this machine does not have that address")]
    NoSuchAddress(IpAddr),
    /// The port is root's.
    #[error(
        "no right to use port {port}/{protocol} on {address}: publish a higher port, run husk as root, or lower the sysctl \
         net.ipv4.ip_unprivileged_port_start"
    )]
    NotAllowed {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
    },
    /// husk has too many descriptors.
    #[error("too many open files while publishing {0} ports: raise the limit (ulimit -n)")]
    TooManyFiles(usize),
    /// The system refused for another reason.
    #[error("cannot use port {port}/{protocol} on {address}")]
    Socket {
        /// Address of the host.
        address: IpAddr,
        /// Port of the host; 0: any.
        port: u16,
        /// Its protocol.
        protocol: PortProtocol,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn ss(protocol: PortProtocol, port: u16) -> String {
    let letter = match protocol {
        PortProtocol::Tcp => 't',
        PortProtocol::Udp => 'u',
    };
    format!("ss -{letter}lnp sport = {port} shows it")
}

/// Claims a port of the host for each request. What comes out is in the order of the requests.
///
/// Ports without an address are bound for IPv4 and IPv6 alike, or for IPv4 alone where the system has no IPv6.
///
/// # Errors
/// When a port can't be had; then none is kept.
pub fn bind(requests: &[PortRequest]) -> Result<Vec<BoundPort>, BindError> {
    if requests.len() > MAX_PORTS {
        return Err(BindError::TooMany(requests.len()));
    }
    refuse_doubles(requests)?;
    // Those that have a choice come last, so that they don't take what others must have.
    let mut order: Vec<_> = requests.iter().enumerate().collect();
    order.sort_by_key(|(_, request)| match &request.host_port {
        HostPort::FirstOf(range) => range.len(),
        HostPort::Any => usize::MAX,
    });
    let mut bound = Vec::with_capacity(requests.len());
    for (at, request) in order {
        let port = bind_one(request).map_err(|error| match error {
            BindError::Socket { source, .. } if source.raw_os_error() == Some(libc::EMFILE) => {
                BindError::TooManyFiles(requests.len())
            }
            other => other,
        })?;
        bound.push((at, port));
    }
    bound.sort_by_key(|(at, _)| *at);
    Ok(bound.into_iter().map(|(_, port)| port).collect())
}

/// Binding would refuse these, too, but the message would send the user looking for another program.
fn refuse_doubles(requests: &[PortRequest]) -> Result<(), BindError> {
    let mut seen: HashMap<_, Vec<Option<IpAddr>>> = HashMap::new();
    for request in requests {
        let HostPort::FirstOf(range) = &request.host_port else { continue };
        let (port, protocol) = (*range.start(), request.protocol);
        if range.len() > 1 {
            continue;
        }
        let others = seen.entry((port, protocol)).or_default();
        if others.iter().any(|other| overlap(*other, request.host_ip)) {
            return Err(BindError::Twice { port, protocol });
        }
        others.push(request.host_ip);
    }
    Ok(())
}

fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.is_ipv4() == other.is_ipv4()
                && (one == other || one.is_unspecified() || other.is_unspecified())
        }
        _ => true,
    }
}

fn bind_one(request: &PortRequest) -> Result<BoundPort, BindError> {
    let protocol = request.protocol;
    let bound = |(port, sockets)| BoundPort {
        mapping: PortMapping {
            host_ip: request.host_ip,
            host_port: port,
            container_port: request.container_port,
            protocol,
        },
        sockets,
    };
    let mut in_use = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let mut attempt = |port| match bind_families(request.host_ip, port, protocol) {
        Ok(done) => Some(Ok(bound(done))),
        Err(BindError::InUse { address, .. }) => {
            in_use = address;
            None
        }
        Err(error) => Some(Err(error)),
    };
    let found = match &request.host_port {
        HostPort::Any => (0..RANDOM_TRIES).find_map(|_| attempt(0)),
        HostPort::FirstOf(range) => range.clone().find_map(&mut attempt),
    };
    let address = in_use;
    found.unwrap_or_else(|| {
        Err(match &request.host_port {
            HostPort::Any => BindError::NoneFree { address, protocol },
            HostPort::FirstOf(range) => match (*range.start(), *range.end()) {
                (port, last) if port == last => BindError::InUse { address, port, protocol },
                (first, last) => BindError::RangeInUse { address, first, last, protocol },
            },
        })
    })
}

/// Binds one port for all families that `host_ip` stands for; port 0: the same random one.
fn bind_families(
    host_ip: Option<IpAddr>,
    mut port: u16,
    protocol: PortProtocol,
) -> Result<(u16, Vec<HostSocket>), BindError> {
    let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = host_ip.as_ref().map_or(&both[..], std::slice::from_ref);
    let mut sockets = Vec::with_capacity(addresses.len());
    for &address in addresses {
        match open(SocketAddr::new(address, port), protocol) {
            Ok((socket, actual)) => {
                port = actual;
                sockets.push(socket);
            }
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) if !sockets.is_empty() => {}
            Err(errno) => {
                return Err(match errno {
                    Errno::EADDRINUSE => BindError::InUse { address, port, protocol },
                    Errno::EACCES => BindError::NotAllowed { address, port, protocol },
                    Errno::EADDRNOTAVAIL => BindError::NoSuchAddress(address),
                    errno => BindError::Socket { address, port, protocol, source: errno.into() },
                });
            }
        }
    }
    Ok((port, sockets))
}

fn open(address: SocketAddr, protocol: PortProtocol) -> nix::Result<(HostSocket, u16)> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        PortProtocol::Tcp => SockType::Stream,
        PortProtocol::Udp => SockType::Datagram,
    };
    let fd = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if protocol == PortProtocol::Tcp {
        // Connections of an earlier run that are still closing don't keep the port. Listening sockets still do.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if protocol == PortProtocol::Tcp {
        socket::listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    let port = local_port(&fd)?;
    let socket = match protocol {
        PortProtocol::Tcp => HostSocket::Tcp(fd.into()),
        PortProtocol::Udp => HostSocket::Udp(fd.into()),
    };
    Ok((socket, port))
}

fn local_port(fd: &OwnedFd) -> nix::Result<u16> {
    let address: SockaddrStorage = socket::getsockname(fd.as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(socket::SockaddrIn::port);
    v4.or_else(|| address.as_sockaddr_in6().map(socket::SockaddrIn6::port)).ok_or(Errno::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::{super::spec, *};

    fn requests(texts: &[&str]) -> Vec<PortRequest> {
        texts.iter().flat_map(|text| spec::parse(text).unwrap()).collect()
    }

    fn bind_texts(texts: &[&str]) -> Result<Vec<BoundPort>, BindError> {
        bind(&requests(texts))
    }

    fn message(texts: &[&str]) -> String {
        bind_texts(texts).unwrap_err().to_string()
    }

    #[test]
    fn without_an_address_both_families_get_the_same_random_port() {
        for protocol in ["tcp", "udp"] {
            let bound = bind_texts(&[&format!("80/{protocol}")]).unwrap();
            let port = bound[0].mapping.host_port;
            assert_ne!(port, 0);
            let locals: Vec<_> = bound[0]
                .sockets
                .iter()
                .map(|socket| match socket {
                    HostSocket::Tcp(socket) => socket.local_addr().unwrap(),
                    HostSocket::Udp(socket) => socket.local_addr().unwrap(),
                })
                .collect();
            let expected = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
            assert_eq!(locals, expected.map(|text| text.parse::<SocketAddr>().unwrap()));
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let text = message(&[&format!("{port}:80")]);
        assert!(text.starts_with(&format!("port {port}/tcp on 0.0.0.0 is in use: ")), "{text}");
        assert!(text.contains(&format!("ss -tlnp sport = {port}")), "{text}");
        // Another address, and another protocol, are free.
        bind_texts(&[&format!("127.0.0.2:{port}:80")]).unwrap();
        drop(tcp);
        bind_texts(&[&format!("{port}:80")]).unwrap();

        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let port = udp.local_addr().unwrap().port();
        let text = message(&[&format!("{port}:53/udp")]);
        assert!(text.starts_with(&format!("port {port}/udp on :: is in use: ")), "{text}");
        bind_texts(&[&format!("127.0.0.1:{port}:53/udp")]).unwrap();
    }

    #[test]
    fn the_same_port_twice_is_refused() {
        for pair in [
            ["8080:80", "8080:81"],
            ["8080:80", "[::1]:8080:81"],
            ["0.0.0.0:8080:80", "127.0.0.1:8080:81"],
            ["127.0.0.1:8080:80", "127.0.0.1:8080:80"],
        ] {
            assert!(message(&pair).contains("8080/tcp of the host is published twice"), "{pair:?}");
        }
        let free = bind_texts(&["127.0.0.1::1"]).unwrap()[0].mapping.host_port;
        let apart = [
            format!("127.0.0.1:{free}:80"),
            format!("127.0.0.2:{free}:80"),
            format!("[::]:{free}:80"),
            format!("127.0.0.1:{free}:80/udp"),
        ];
        assert_eq!(bind_texts(&apart.each_ref().map(String::as_str)).unwrap().len(), 4);
    }

    /// Three neighbouring ports of which the middle one is taken.
    fn taken_in_the_middle() -> (u16, TcpListener) {
        (0..100)
            .find_map(|_| {
                let listener = TcpListener::bind("127.0.0.3:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                let sides = [port.checked_sub(1)?, port.checked_add(1)?];
                let free = sides.iter().all(|side| TcpListener::bind(("127.0.0.3", *side)).is_ok());
                free.then_some((port, listener))
            })
            .unwrap()
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_leaves_to_others_what_they_must_have() {
        let (taken, _listener) = taken_in_the_middle();
        let range = format!("127.0.0.3:{}-{}:80", taken - 1, taken + 1);
        let ports =
            |bound: Vec<BoundPort>| -> Vec<u16> { bound.iter().map(|port| port.mapping.host_port).collect() };
        assert_eq!(ports(bind_texts(&[&range]).unwrap()), [taken - 1]);
        let exact = format!("127.0.0.3:{}:81", taken - 1);
        assert_eq!(ports(bind_texts(&[&range, &exact]).unwrap()), [taken + 1, taken - 1]);
        let text = message(&[&range, &range, &range]);
        assert!(text.contains(&format!("all ports from {} to {}/tcp", taken - 1, taken + 1)), "{text}");
        let text = message(&[&format!("127.0.0.3:{taken}:80")]);
        assert!(text.starts_with(&format!("port {taken}/tcp on 127.0.0.3 is in use")), "{text}");
    }

    #[test]
    fn nothing_is_kept_after_a_failure() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = bind_texts(&["127.0.0.1::1"]).unwrap()[0].mapping.host_port;
        let taken = format!("127.0.0.1:{}:81", taken.local_addr().unwrap().port());
        let free = format!("127.0.0.1:{free}:80");
        assert!(bind_texts(&[&free, &taken]).is_err());
        bind_texts(&[&free]).unwrap();
    }

    #[test]
    fn bounds_and_strange_addresses() {
        assert!(message(&["1-65535"]).contains("65535 ports are too many"));
        // TEST-NET-1 (RFC 5737) is nobody's.
        assert!(message(&["192.0.2.1:8080:80"]).contains("cannot publish on 192.0.2.1"));
    }
}
