//! Routes of the main table, as the agent is told.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use husk_protocol::agent::Route;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RouteProtocol, RouteType, RouteVia,
    },
};

/// A route of the main table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// Its interface; `None`: it leads nowhere, as a blackhole does.
    pub(super) index: Option<u32>,
    pub(super) destination: IpNet,
    gateway: Option<IpAddr>,
    /// Made by the kernel, as a consequence of an address.
    pub(super) from_kernel: bool,
    route: Route,
}

impl Found {
    /// Reads a message. `None`: it is of another table, a cached or dead one, or of a kind that guests don't get.
    pub(super) fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let kind = u8::from(header.kind);
        let leads_nowhere =
            matches!(header.kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit);
        if table(message) != u32::from(RouteHeader::RT_TABLE_MAIN)
            || header.flags.contains(RouteFlags::Cloned)
            || header.flags.contains(RouteFlags::Dead)
            || !(leads_nowhere || header.kind == RouteType::Unicast)
        {
            return None;
        }
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let mut route = Route { kind: kind.into(), scope: u8::from(header.scope).into(), ..Route::default() };
        route.onlink = header.flags.contains(RouteFlags::Onlink);
        let (mut index, mut gateway) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => destination = ip(to)?,
                RouteAttribute::PrefSource(source) => route.source = ip(source)?.to_string(),
                RouteAttribute::Priority(metric) => route.metric = *metric,
                RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
                // The guest has but one way per route: the first.
                RouteAttribute::MultiPath(hops) => {
                    let hop = hops.first()?;
                    (index, gateway) = (Some(hop.interface_index), hop_gateway(hop));
                    route.onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
                }
                RouteAttribute::Oif(oif) => index = Some(*oif),
                other => gateway = gateway.or_else(|| gateway_in(other)),
            }
        }
        let destination = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
        route.destination = destination.to_string();
        route.gateway = gateway.map(|ip| ip.to_string()).unwrap_or_default();
        Some(Self {
            // IPv6 has those on the loopback.
            index: index.filter(|_| !leads_nowhere),
            destination,
            gateway,
            from_kernel: header.protocol == RouteProtocol::Kernel,
            route,
        })
    }

    pub(super) fn to_agent(&self) -> Route {
        self.route.clone()
    }

    /// Sorts by this, a route comes after those that its gateway needs: what is on the link first, and the narrower first.
    pub(super) fn order(&self) -> impl Ord + use<> {
        (self.gateway.is_some(), Reverse(self.destination.prefix_len()))
    }
}

fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or_else(|| message.header.table.into())
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn gateway_in(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => ip(gateway),
        // An IPv4 route by way of an IPv6 neighbour.
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn hop_gateway(hop: &RouteNextHop) -> Option<IpAddr> {
    hop.attributes.iter().find_map(gateway_in)
}

fn mtu(metrics: &[RouteMetric]) -> u32 {
    metrics
        .iter()
        .find_map(|metric| if let RouteMetric::Mtu(mtu) = metric { Some(*mtu) } else { None })
        .unwrap_or(0)
}
