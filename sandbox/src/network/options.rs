//! What a user asks of a container's network.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use husk_base::Mac;
use husk_network::{
    definition::DEFAULT_NETWORK,
    names::{hosts::ExtraHost, resolvers::DnsOptions},
    publish::{PortRequest, spec},
};
use husk_vmm::rate_limit::RateLimit;
use serde::{Deserialize, Serialize};

/// Where a container is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What pasta has put into husk's own namespace. It delivers what the host itself sends to these
    /// published ports to the namespace's loopback address.
    Pasta(Vec<u16>),
}

/// A network to connect to, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Everything that a container's network is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// What the user asks for.
    pub options: NetworkOptions,
    /// The container's name on husk's own networks.
    pub name: Option<String>,
    /// The name that the container has for itself.
    pub hostname: String,
    /// Ports that the image exposes, as in "80/tcp".
    pub exposed_ports: Vec<String>,
}

impl NetworkPlan {
    /// No network but loopback.
    pub fn none(hostname: &str) -> Self {
        let options = NetworkOptions {
            mode: NetworkMode::None,
            publish: Vec::new(),
            publish_all: false,
            dns: DnsOptions::default(),
            extra_hosts: Vec::new(),
        };
        Self { options, name: None, hostname: hostname.to_owned(), exposed_ports: Vec::new() }
    }

    /// Whether a user who has seen the container end may want at once what it had: a port, a certain address, or a network
    /// without users. Elsewhere, nobody need wait for the host to take the network apart.
    pub fn is_wanted_by_others(&self) -> bool {
        let options = &self.options;
        let published = options.publish_all || !options.publish.is_empty();
        match &options.mode {
            NetworkMode::None | NetworkMode::Container(_) | NetworkMode::Namespace(_) => false,
            NetworkMode::Pasta(_) => published,
            NetworkMode::Cni(_) => true,
            NetworkMode::Networks(wishes) => {
                let fixed = |wish: &NetworkWish| {
                    wish.network != DEFAULT_NETWORK
                        || wish.ip.is_some()
                        || wish.ip6.is_some()
                        || wish.mac.is_some()
                };
                published || wishes.iter().any(fixed)
            }
        }
    }

    /// The ports to publish: those that the user names, and with `publish_all` those that the image exposes.
    pub(super) fn wanted_ports(&self) -> Vec<PortRequest> {
        if let NetworkMode::Pasta(_) = self.options.mode {
            // Pasta has them.
            return Vec::new();
        }
        let mut ports = self.options.publish.clone();
        if self.options.publish_all {
            let exposed = self.exposed_ports.iter().map(String::as_str);
            let all = spec::publish_all(exposed, &ports);
            ports.extend(all);
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use husk_network::publish::{HostPort, PortProtocol};
    use husk_vmm::rate_limit::BucketConfig;

    use super::*;

    fn plan(mode: NetworkMode) -> NetworkPlan {
        let port = |host_port, container_port, protocol| PortRequest {
            host_ip: Some(Ipv6Addr::LOCALHOST.into()),
            host_port,
            container_port,
            protocol,
        };
        let options = NetworkOptions {
            mode,
            publish: vec![
                port(HostPort::FirstOf(8000..=8010), 80, PortProtocol::Tcp),
                port(HostPort::Any, 53, PortProtocol::Udp),
            ],
            publish_all: true,
            dns: DnsOptions {
                servers: vec![Ipv4Addr::new(10, 0, 0, 1).into()],
                search: vec!["example.com".into()],
                options: vec!["ndots:1".into()],
            },
            extra_hosts: vec!["db:10.0.0.9".parse().unwrap(), "host:host-gateway".parse().unwrap()],
        };
        let exposed_ports = vec!["80/tcp".into(), "443".into(), "22/sctp".into()];
        NetworkPlan { options, name: Some("web".into()), hostname: "web.example".into(), exposed_ports }
    }

    #[test]
    fn a_stored_plan_reads_back_equal() {
        let wish = NetworkWish {
            network: "backend".into(),
            aliases: vec!["db".into()],
            ip: Some(Ipv4Addr::new(172, 30, 0, 9)),
            ip6: Some("fd00::9".parse().unwrap()),
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            limit_rx: RateLimit {
                bytes: Some(BucketConfig { size: 1 << 20, burst: 7, refill_ms: 100 }),
                ops: None,
            },
            limit_tx: RateLimit { bytes: None, ops: Some(BucketConfig { size: 1, burst: 0, refill_ms: 1 }) },
        };
        for mode in [
            NetworkMode::None,
            NetworkMode::Container("owner".into()),
            NetworkMode::Networks(vec![wish, NetworkWish::default()]),
            NetworkMode::Cni(vec!["a".into()]),
            NetworkMode::Namespace("/run/netns/x".into()),
            NetworkMode::Pasta(vec![8080]),
        ] {
            let plan = plan(mode);
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<NetworkPlan>(&text).unwrap(), plan, "{text}");
        }
    }

    #[test]
    fn exposed_ports_are_published_on_demand_and_once() {
        let mut plan = plan(NetworkMode::None);
        let containers_ports = |plan: &NetworkPlan| -> Vec<u16> {
            plan.wanted_ports().iter().map(|port| port.container_port).collect()
        };
        assert_eq!(containers_ports(&plan), [80, 53, 443]);
        plan.options.publish_all = false;
        assert_eq!(containers_ports(&plan), [80, 53]);
    }
}
