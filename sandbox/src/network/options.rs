//! What a user asks of a container's network.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use husk_network::{
    Mac,
    names::{hosts::ExtraHost, resolvers::DnsOptions},
    publish::PortRequest,
};
use husk_vmm::rate_limit::RateLimit;

/// Where a container is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its loopback alone.
    None,
    /// Whatever another running container is connected to, by joining its VM.
    Container(String),
    /// Networks of husk's own, the first of which is its way out.
    Networks(Vec<NetworkWish>),
    /// Networks that CNI's plugins make, by the names of their configurations.
    Cni(Vec<String>),
    /// Whatever a network namespace has that somebody else prepared.
    Namespace(PathBuf),
    /// What pasta has put into husk's own namespace. It delivers what the host itself sends to these published ports to the
    /// namespace's loopback address.
    Pasta(Vec<u16>),
}

/// A network to connect to, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkWish {
    /// The network's name or id.
    pub network: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// A certain address.
    pub ip: Option<Ipv4Addr>,
    /// A certain address.
    pub ip6: Option<Ipv6Addr>,
    /// A certain Ethernet address.
    pub mac: Option<Mac>,
    /// Limit of what the container receives.
    pub limit_rx: RateLimit,
    /// Limit of what it sends.
    pub limit_tx: RateLimit,
}

/// What a user asks of a container's network.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    /// Where it is connected to.
    pub mode: NetworkMode,
    /// Ports of the host that lead to it.
    pub publish: Vec<PortRequest>,
    /// All ports that the image exposes, too.
    pub publish_all: bool,
    /// Where it looks for names.
    pub dns: DnsOptions,
    /// Further names that it knows.
    pub extra_hosts: Vec<ExtraHost>,
}

impl NetworkOptions {
    /// The container whose VM is joined.
    pub fn joined(&self) -> Option<&str> {
        match &self.mode {
            NetworkMode::Container(owner) => Some(owner),
            _ => None,
        }
    }
}
