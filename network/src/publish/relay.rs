//! Passes on to the container what reaches the published ports' sockets on the host.
//!
//! That is traffic from the host itself, above all to its loopback addresses, which the kernel can't translate. What
//! comes from outside is translated in the kernel and never gets here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use super::{
    bind::{BoundPort, HostSocket},
    datagrams::Datagrams,
    tcp,
    udp::{self, Limits},
};

/// Most TCP connections at a time, over all ports of a container. More wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// The relays of a container's ports. When it is dropped they end, with their connections.
#[derive(Debug)]
pub struct Relay {
    tasks: JoinSet<()>,
}

impl Relay {
    /// Begins to relay to `container`, its addresses: the first of a client's own family, or else the first.
    ///
    /// The container need not be up yet: connections wait for it for a while.
    ///
    /// # Errors
    /// When there is no address, or a socket can't be watched.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(ports: Vec<BoundPort>, container: &[IpAddr]) -> io::Result<Self> {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = JoinSet::new();
        for port in ports {
            for socket in port.sockets {
                let local = match &socket {
                    HostSocket::Tcp(socket) => socket.local_addr()?,
                    HostSocket::Udp(socket) => socket.local_addr()?,
                };
                let target = SocketAddr::new(choose(local.ip(), container)?, port.mapping.container_port);
                match socket {
                    HostSocket::Tcp(socket) => {
                        tasks.spawn(tcp::serve(TcpListener::from_std(socket)?, target, permits.clone()));
                    }
                    HostSocket::Udp(socket) => {
                        tasks.spawn(udp::serve(Datagrams::new(socket)?, target, Limits::default()));
                    }
                }
            }
        }
        Ok(Self { tasks })
    }

    /// Ends all relays, and returns when their sockets are closed.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn choose(local: IpAddr, container: &[IpAddr]) -> io::Result<IpAddr> {
    let same = container.iter().find(|ip| ip.is_ipv4() == local.is_ipv4());
    same.or(container.first()).copied().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the container has no address to which ports could lead")
    })
}

#[cfg(test)]
mod tests {
    use super::{super::bind::bind, super::spec::parse, *};

    #[test]
    fn the_own_family_is_preferred() {
        let [v4, v6]: [IpAddr; 2] = ["10.1.2.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        let any: IpAddr = "::".parse().unwrap();
        assert_eq!(choose(any, &[v4, v6]).unwrap(), v6);
        assert_eq!(choose(any, &[v4]).unwrap(), v4);
        assert_eq!(choose("127.0.0.1".parse().unwrap(), &[v6, v4]).unwrap(), v4);
        assert!(choose(any, &[]).is_err());
    }

    #[tokio::test]
    async fn a_relay_that_stops_frees_its_ports() {
        let requests: Vec<_> = ["80", "53/udp"].iter().flat_map(|text| parse(text).unwrap()).collect();
        let bound = bind(&requests).unwrap();
        let again: Vec<_> = bound
            .iter()
            .map(|port| {
                let mapping = &port.mapping;
                format!("{}:{}/{}", mapping.host_port, mapping.container_port, mapping.protocol)
            })
            .flat_map(|text| parse(&text).unwrap())
            .collect();
        let relay = Relay::start(bound, &["127.0.0.1".parse().unwrap()]).unwrap();
        tokio::task::yield_now().await;
        assert!(bind(&again).is_err());
        relay.stop().await;
        bind(&again).unwrap();
    }

    #[tokio::test]
    async fn a_relay_that_is_dropped_frees_its_ports() {
        let bound = bind(&parse("80").unwrap()).unwrap();
        let again = parse(&format!("{}:80", bound[0].mapping.host_port)).unwrap();
        drop(Relay::start(bound, &["127.0.0.1".parse().unwrap()]).unwrap());
        // The runtime drops ended tasks when it next gets to run.
        while bind(&again).is_err() {
            tokio::task::yield_now().await;
        }
    }
}
