//! Addresses and permanent neighbours of interfaces, as the agent is told.

use std::net::IpAddr;

use husk_protocol::agent::{Address, Neighbour};
use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

/// An address of the interface `index`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    /// With the length of its network's prefix.
    pub(super) ip: IpNet,
    peer: Option<IpAddr>,
    scope: u8,
}

impl Found {
    /// Reads a message. `None`: an address that the guest is not to have, or none at all. Addresses that somebody else
    /// has too (DAD failed), and temporary ones, which the guest makes for itself, are not.
    pub(super) fn read(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let own = local.or(address)?;
        // IFA_F_SECONDARY is IFA_F_TEMPORARY of IPv6; among IPv4 addresses, it is a mere remark.
        if flags.contains(AddressFlags::Dadfailed) || own.is_ipv6() && flags.contains(AddressFlags::Secondary)
        {
            return None;
        }
        Some(Self {
            index: message.header.index,
            ip: IpNet::new(own, message.header.prefix_len).ok()?,
            peer: address.filter(|peer| *peer != own),
            scope: message.header.scope.into(),
        })
    }

    /// What the agent is told. The kernel gives an address with a prefix a route to that network. Where somebody has
    /// taken that route away (`on_link` is false), the address goes without its prefix.
    pub(super) fn to_agent(&self, on_link: bool) -> Address {
        let addr = self.ip.addr();
        let bare = if addr.is_ipv4() { 32 } else { 128 };
        let len = if on_link || self.peer.is_some() { self.ip.prefix_len() } else { bare };
        Address {
            prefix: format!("{addr}/{len}"),
            peer: self.peer.map(|ip| ip.to_string()).unwrap_or_default(),
            scope: self.scope.into(),
            ..Address::default()
        }
    }
}

/// Reads an entry of the neighbour table: interface, and entry if it never expires.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(u32, Neighbour)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = text(bytes),
            _ => {}
        }
    }
    let neighbour = Neighbour { ip: ip?.to_string(), mac: mac?, ..Neighbour::default() };
    Some((message.header.ifindex, neighbour))
}

/// A MAC address as text; `None` when it is not one of Ethernet's.
pub(super) fn text(mac: &[u8]) -> Option<String> {
    let [a, b, c, d, e, f] = mac else { return None };
    Some(format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"))
}
