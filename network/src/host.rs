//! What the host's network takes, and what a new network shall be like.

use std::{fs, net::Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use husk_base::netlink::{Socket, attributes, find, read_ip, read_text, read_u32};

use crate::{Error, Result};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
/// Routes to more than this are default routes by another name (VPNs use 0.0.0.0/1), not places of their own.
const SHORTEST_PREFIX: u8 = 8;
const USUAL_MTU: u32 = 1500;

/// Where subnets come from that nobody chose: 256 of 4096 addresses each.
const POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 208, 0, 0), 12);
const POOL_PIECE: u8 = 20;

/// What the host's network looks like.
#[derive(Debug)]
pub(crate) struct HostNetwork {
    /// Subnets of its routes and addresses, with their interfaces' names.
    used: Vec<(IpNet, String)>,
    /// The MTU of the interface of the default route; the usual one when there is none.
    pub(crate) mtu: u32,
}

impl HostNetwork {
    /// Asks the kernel: three dumps.
    pub(crate) fn read() -> Result<Self> {
        let socket = Socket::route().map_err(Error::io("open", "a netlink socket"))?;
        let mut links = Vec::new();
        let mut used = Vec::new();
        let mut default = None;
        let failed = || Error::kernel("the host");
        socket
            .dump("list interfaces", RTM_GETLINK, &[0; LINK_HEADER], |link| links.extend(read_link(link)))
            .map_err(failed())?;
        socket
            .dump("list addresses", RTM_GETADDR, &[0; ADDRESS_HEADER], |bytes| {
                used.extend(read_address(bytes))
            })
            .map_err(failed())?;
        socket
            .dump("list routes", RTM_GETROUTE, &[0; ROUTE_HEADER], |bytes| {
                let Some(route) = read_route(bytes) else { return };
                if let Some(subnet) = route.subnet {
                    used.push((subnet, route.index));
                } else if default.is_none_or(|(metric, _)| route.metric < metric) && route.index != 0 {
                    default = Some((route.metric, route.index));
                }
            })
            .map_err(failed())?;

        let link = |index| links.iter().find(|link: &&Link| link.index == index);
        let name = |index| link(index).map_or_else(|| "a route".into(), |link| link.name.clone());
        let mtu = default.and_then(|(_, index)| link(index)).map_or(USUAL_MTU, |link| link.mtu);
        Ok(Self { used: used.into_iter().map(|(subnet, index)| (subnet, name(index))).collect(), mtu })
    }

    /// What of the host's a subnet overlaps: the other subnet and its interface.
    pub(crate) fn overlap(&self, subnet: IpNet) -> Option<(IpNet, &str)> {
        let overlapping = self.used.iter().find(|(used, _)| overlaps(subnet, *used));
        overlapping.map(|(used, name)| (*used, name.as_str()))
    }

    /// A subnet of the pool that neither the host nor one of `taken` overlaps.
    pub(crate) fn free_subnet(&self, taken: &[Ipv4Net]) -> Result<Ipv4Net> {
        let pool = Ipv4Net::new(POOL.0, POOL.1).map_err(|_| Error::NoSubnet)?;
        let mut pieces = pool.subnets(POOL_PIECE).map_err(|_| Error::NoSubnet)?;
        let free = |piece: &Ipv4Net| {
            let piece = IpNet::V4(*piece);
            self.overlap(piece).is_none() && !taken.iter().any(|taken| overlaps(piece, IpNet::V4(*taken)))
        };
        pieces.find(free).ok_or(Error::NoSubnet)
    }
}

/// Whether two subnets have an address in common.
pub(crate) fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Whether IPv6 is switched off, or not there.
pub(crate) fn ipv6_disabled() -> bool {
    let off = |which: &str| {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        fs::read(path).map_or(true, |value| value.first() != Some(&b'0'))
    };
    off("all") || off("default")
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    husk_base::id::random_bytes().map_err(Error::io("read", "the system's random numbers"))
}

/// A /64 for local use that most likely nobody else has (RFC 4193).
pub(crate) fn random_ula() -> Result<Ipv6Net> {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&random::<8>()?);
    octets[0] = 0xfd;
    Ipv6Net::new(octets.into(), 64).map_err(|_| Error::NoSubnet)
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    mtu: u32,
}

fn read_link(bytes: &[u8]) -> Option<Link> {
    let index = read_u32(bytes.get(4..)?)?;
    let attrs = bytes.get(LINK_HEADER..)?;
    let name = find(attrs, IFLA_IFNAME)?;
    Some(Link { index, name: read_text(name), mtu: find(attrs, IFLA_MTU).and_then(read_u32)? })
}

fn read_address(bytes: &[u8]) -> Option<(IpNet, u32)> {
    let (prefix_len, index) = (*bytes.get(1)?, read_u32(bytes.get(4..)?)?);
    let address = find(bytes.get(ADDRESS_HEADER..)?, IFA_ADDRESS).and_then(read_ip)?;
    Some((IpNet::new(address, prefix_len).ok()?.trunc(), index))
}

#[derive(Debug)]
struct Route {
    /// `None`: a default route.
    subnet: Option<IpNet>,
    /// 0: none, or several.
    index: u32,
    metric: u32,
}

fn read_route(bytes: &[u8]) -> Option<Route> {
    let prefix_len = *bytes.get(1)?;
    let attrs = bytes.get(ROUTE_HEADER..)?;
    let mut route = Route { subnet: None, index: 0, metric: 0 };
    let mut destination = None;
    for (kind, value) in attributes(attrs) {
        match kind {
            RTA_DST => destination = read_ip(value),
            RTA_OIF => route.index = read_u32(value)?,
            RTA_PRIORITY => route.metric = read_u32(value)?,
            _ => {}
        }
    }
    if prefix_len >= SHORTEST_PREFIX {
        route.subnet = Some(IpNet::new(destination?, prefix_len).ok()?);
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(used: &[&str]) -> HostNetwork {
        let used = used.iter().map(|net| (net.parse().unwrap(), "eth0".to_owned())).collect();
        HostNetwork { used, mtu: 1500 }
    }

    #[test]
    fn a_free_subnet_overlaps_nothing() {
        let host = host(&["10.208.0.0/24", "10.208.47.7/32", "192.168.0.0/16"]);
        let first: Ipv4Net = "10.208.16.0/20".parse().unwrap();
        assert_eq!(host.free_subnet(&[]).unwrap(), first);
        assert_eq!(host.free_subnet(&[first]).unwrap(), "10.208.48.0/20".parse().unwrap());
    }

    #[test]
    fn an_exhausted_pool_is_said() {
        assert!(matches!(host(&["10.0.0.0/8"]).free_subnet(&[]), Err(Error::NoSubnet)));
        let mut taken = Vec::new();
        while let Ok(subnet) = host(&[]).free_subnet(&taken) {
            taken.push(subnet);
        }
        assert_eq!(taken.len(), 256);
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read_link(&bytes), read_address(&bytes), read_route(&bytes));
        }
    }
}
