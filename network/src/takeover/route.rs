//! Routes of the main table.

use std::{cmp::Reverse, net::IpAddr};

use husk_base::netlink::{attributes, find, read_ip, read_u32};
use ipnet::IpNet;

use crate::nic::{Route, RouteKind, Scope, everywhere};

/// Lengths of `struct rtmsg` and `struct rtnexthop`.
pub(super) const HEADER: usize = 12;
const NEXT_HOP: usize = 8;
/// RTNH_F_* and RTM_F_* of linux/rtnetlink.h.
const DEAD: u32 = 1;
const ON_LINK: u32 = 4;
const CLONED: u32 = 0x200;
const RTAX_MTU: u16 = 2;

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its interface; `None`: it leads nowhere, as a blackhole does.
    pub(super) index: Option<u32>,
    /// Made by the kernel, as a consequence of an address.
    pub(super) from_kernel: bool,
    pub(super) route: Route,
}

impl Found {
    /// Reads a message. `None`: it is of another table, a cached or dead one, or of a kind that guests don't
    /// get.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(HEADER)?;
        let table = find(rest, libc::RTA_TABLE).and_then(read_u32).unwrap_or(header[4].into());
        let flags = read_u32(&header[8..])?;
        if table != u32::from(libc::RT_TABLE_MAIN) || flags & (CLONED | DEAD) != 0 {
            return None;
        }
        let ipv4 = match i32::from(header[0]) {
            libc::AF_INET => true,
            libc::AF_INET6 => false,
            _ => return None,
        };
        let mut destination = everywhere(ipv4).addr();
        let mut route = Route {
            destination: everywhere(ipv4),
            gateway: None,
            source: None,
            metric: 0,
            scope: Scope(header[6]),
            kind: RouteKind::from_number(header[7])?,
            onlink: flags & ON_LINK != 0,
            mtu: None,
        };
        let mut index = None;
        for (kind, value) in attributes(rest) {
            match kind {
                libc::RTA_DST => destination = read_ip(value)?,
                libc::RTA_PREFSRC => route.source = Some(read_ip(value)?),
                libc::RTA_PRIORITY => route.metric = read_u32(value)?,
                libc::RTA_METRICS => {
                    route.mtu = find(value, RTAX_MTU).and_then(read_u32).filter(|mtu| *mtu != 0);
                }
                libc::RTA_OIF => index = Some(read_u32(value)?),
                // The guest has but one way per route: the first.
                libc::RTA_MULTIPATH => {
                    let length = usize::from(u16::from_ne_bytes(*value.first_chunk()?));
                    let (hop, rest) = value.get(..length)?.split_at_checked(NEXT_HOP)?;
                    index = Some(read_u32(&hop[4..])?);
                    route.gateway = attributes(rest).find_map(gateway);
                    route.onlink = u32::from(hop[2]) & ON_LINK != 0;
                }
                _ => route.gateway = route.gateway.or_else(|| gateway((kind, value))),
            }
        }
        route.destination = IpNet::new(destination, header[1]).ok()?.trunc();
        Some(Self {
            // IPv6 has those that lead nowhere on the loopback.
            index: index.filter(|_| route.kind == RouteKind::Unicast),
            from_kernel: header[5] == libc::RTPROT_KERNEL,
            route,
        })
    }

    /// Sorts by this, a route comes after those that its gateway needs: what is on the link first, and the
    /// narrower first.
    pub(super) fn order(&self) -> impl Ord + use<> {
        (self.route.gateway.is_some(), Reverse(self.route.destination.prefix_len()))
    }
}

fn gateway((kind, value): (u16, &[u8])) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => read_ip(value),
        // A family, and an address of it: an IPv4 route by way of an IPv6 neighbour.
        libc::RTA_VIA => read_ip(value.get(2..)?),
        _ => None,
    }
}
