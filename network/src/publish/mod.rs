//! Ports of the host that lead to a container: what the user asks for ([`spec`]), claiming it before the VM starts
//! ([`bind`]), and passing on what reaches the host's own sockets ([`relay`]).

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

pub mod bind;
mod datagrams;
pub mod relay;
pub mod spec;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use bind::{BindError, BoundPort};
pub use relay::Relay;
pub use spec::{HostPort, PortRequest, SpecError};

/// A port of the host that leads to a container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address of the host; `None`: all of them, of both families.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
    /// Which protocol's ports they are.
    pub protocol: PortProtocol,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for PortProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
