//! A container's place on a network, as its record tells it.

use std::net::IpAddr;

use husk_network::{Definition, nic::Interface};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An interface of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// The network's name; empty for one that is not husk's own.
    pub network: String,
    /// The network's id; empty for one that is not husk's own.
    pub network_id: String,
    /// The interface's name in the guest.
    pub interface: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its addresses, with the length of their prefixes.
    pub addresses: Vec<IpNet>,
    /// Where its way out begins.
    pub gateways: Vec<IpAddr>,
}

impl Endpoint {
    /// That of an interface on a network of husk's own, or on another.
    pub(super) fn of(interface: &Interface, network: Option<&Definition>) -> Self {
        let defaults = interface.routes.iter().filter(|route| route.destination.prefix_len() == 0);
        Self {
            network: network.map(|network| network.name.clone()).unwrap_or_default(),
            network_id: network.map(|network| network.id.clone()).unwrap_or_default(),
            interface: interface.name.clone(),
            mac: interface.mac.to_string(),
            addresses: interface.addresses.iter().map(|address| address.ip).collect(),
            gateways: defaults.filter_map(|route| route.gateway).collect(),
        }
    }
}
