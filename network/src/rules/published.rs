//! Maps from ports of the host to containers: for each family one by address, and one for all addresses of the host.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Batch, INET, NLM_F_CREATE,
    expr::{IPV4, IPV6, UDP},
};
use crate::{
    definition::Definition,
    lease::Lease,
    publish::{PortMapping, PortProtocol},
};

const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_SET_MAP: u32 = 8;
const TCP: u8 = 6;
/// An attribute's length has 16 bits; an element takes at most 88 bytes.
const ELEMENTS_PER_MESSAGE: usize = 512;

/// `nft`'s numbers of types; those of a concatenation have 6 bits each.
const TYPE_IPV4_ADDR: u32 = 7;
const TYPE_IPV6_ADDR: u32 = 8;
const TYPE_INET_PROTO: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

/// The map of this family by protocol, address and port of the host.
pub(super) fn by_address(family: u8) -> &'static str {
    if family == IPV4 { "published4" } else { "published6" }
}

/// The map of this family by protocol and port, for all addresses of the host.
pub(super) fn any_address(family: u8) -> &'static str {
    if family == IPV4 { "published_any4" } else { "published_any6" }
}

/// Writes empty maps.
pub(super) fn write(batch: &mut Batch, network: &Definition, table: &str) {
    let mut id = 0;
    for family in families(network) {
        let (address, len) = if family == IPV4 { (TYPE_IPV4_ADDR, 4) } else { (TYPE_IPV6_ADDR, 16) };
        let keys = [
            (by_address(family), concatenation(&[TYPE_INET_PROTO, address, TYPE_INET_SERVICE]), 8 + len),
            (any_address(family), concatenation(&[TYPE_INET_PROTO, TYPE_INET_SERVICE]), 8),
        ];
        for (name, key, key_len) in keys {
            id += 1;
            batch.message("add map", NFT_MSG_NEWSET, NLM_F_CREATE, INET, |attrs| {
                attrs.text(1, table);
                attrs.text(2, name);
                attrs.be32(3, NFT_SET_MAP);
                attrs.be32(4, key);
                attrs.be32(5, key_len);
                attrs.be32(6, concatenation(&[address, TYPE_INET_SERVICE]));
                attrs.be32(7, len + 4);
                attrs.be32(10, id);
            });
        }
    }
}

/// Adds what leases publish.
pub(super) fn add(batch: &mut Batch, network: &Definition, leases: &[Lease]) {
    if network.internal {
        return;
    }
    for family in families(network) {
        let (mut one, mut any) = (Vec::new(), Vec::new());
        for lease in leases {
            for port in &lease.ports {
                let Some(element) = element(lease, port, family) else { continue };
                if element.by_address { one.push(element) } else { any.push(element) }
            }
        }
        for (map, elements) in [(by_address(family), one), (any_address(family), any)] {
            for elements in elements.chunks(ELEMENTS_PER_MESSAGE) {
                batch.message("publish port", NFT_MSG_NEWSETELEM, NLM_F_CREATE, INET, |attrs| {
                    attrs.text(1, &network.bridge());
                    attrs.text(2, map);
                    attrs.nest(3, |attrs| {
                        for element in elements {
                            attrs.nest(1, |attrs| {
                                attrs.nest(1, |attrs| attrs.bytes(1, &element.key));
                                attrs.nest(2, |attrs| attrs.bytes(1, &element.data));
                            });
                        }
                    });
                });
            }
        }
    }
}

/// Empties the maps.
pub(super) fn clear(batch: &mut Batch, network: &Definition) {
    if network.internal {
        return;
    }
    for map in families(network).flat_map(|family| [by_address(family), any_address(family)]) {
        batch.message("withdraw ports", NFT_MSG_DELSETELEM, 0, INET, |attrs| {
            attrs.text(1, &network.bridge());
            attrs.text(2, map);
        });
    }
}

fn families(network: &Definition) -> impl Iterator<Item = u8> {
    std::iter::once(IPV4).chain(network.ipv6.map(|_| IPV6))
}

fn concatenation(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << TYPE_BITS | one)
}

#[derive(Debug, PartialEq, Eq)]
struct Element {
    by_address: bool,
    key: Vec<u8>,
    data: Vec<u8>,
}

/// A port's element of the maps of a family; `None`: it has none, since it is not published there, or on the loopback
/// only, where somebody listens for it.
fn element(lease: &Lease, port: &PortMapping, family: u8) -> Option<Element> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let container: IpAddr = if family == IPV4 { lease.ipv4.into() } else { lease.ipv6?.into() };
    let host =
        port.host_ip.unwrap_or(if family == IPV4 { Ipv4Addr::UNSPECIFIED.into() } else { [0; 16].into() });
    if host.is_loopback() || host.is_ipv4() != (family == IPV4) {
        return None;
    }
    let by_address = !host.is_unspecified();
    let protocol = match port.protocol {
        PortProtocol::Tcp => TCP,
        PortProtocol::Udp => UDP,
    };
    let mut key = vec![protocol, 0, 0, 0];
    if by_address {
        key.extend(octets(host));
    }
    key.extend(port.host_port.to_be_bytes());
    key.extend([0; 2]);
    let mut data = octets(container);
    data.extend(port.container_port.to_be_bytes());
    data.extend([0; 2]);
    Some(Element { by_address, key, data })
}
