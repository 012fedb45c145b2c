//! The messages of rtnetlink(7) that a guest's network takes, and how the kernel's lists are read.

use std::net::{IpAddr, Ipv4Addr};

use husk_base::{
    Mac,
    netlink::{Failed, Request, Socket, attributes, family, find, octets, read_ip, read_text, read_u32},
};

use super::plan::{Address, Neighbour, Route};

/// <linux/rtnetlink.h>
const RTNH_F_ONLINK: u32 = 4;
const RTAX_MTU: u16 = 2;
/// <linux/if_addr.h>
const IFA_F_NODAD: u32 = 2;
/// Lengths of `struct ifinfomsg`, `ifaddrmsg`, `rtmsg` and `ndmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
const ROUTE: usize = 12;
const NEIGHBOUR: usize = 12;

/// NLM_F_* of netlink(7): CREATE and REPLACE; CREATE and APPEND, after those with the same destination and
/// metric, since the order that is asked for is the order of preference.
const SET: u16 = 0x400 | 0x100;
const APPEND: u16 = 0x400 | 0x800;

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// Whether a message is about IPv4; `None`: it is about neither IPv4 nor IPv6.
fn is_ipv4(family: u8) -> Option<bool> {
    match i32::from(family) {
        libc::AF_INET => Some(true),
        libc::AF_INET6 => Some(false),
        _ => None,
    }
}

fn link_body(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Lists the interfaces.
pub(super) fn list_links(socket: &Socket, each: impl FnMut(&[u8])) -> Result<(), Failed> {
    socket.dump("list interfaces", libc::RTM_GETLINK, &[0; LINK], each)
}

/// Reads an entry of [`list_links`].
pub(super) fn read_link(entry: &[u8]) -> Option<Link> {
    let (body, rest) = entry.split_at_checked(LINK)?;
    let flags = read_u32(&body[8..])?;
    let mut link = Link {
        index: read_u32(&body[4..])?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => {
                link.name = read_text(value);
            }
            libc::IFLA_ADDRESS => {
                link.mac = value.try_into().ok().and_then(|octets| Mac::new(octets).ok());
            }
            libc::IFLA_MTU => link.mtu = read_u32(value)?,
            _ => {}
        }
    }
    Some(link)
}

/// Gives an interface another name.
pub(super) fn rename(request: &mut Request, index: u32, name: &str) {
    request.silent("rename interface", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0), |attrs| {
        attrs.text(libc::IFLA_IFNAME, name);
    });
}

/// Brings an interface up, and before that sets its MTU, if there is one to set.
pub(super) fn bring_up(request: &mut Request, index: u32, mtu: Option<u32>, no_arp: bool) {
    let (up, arp) = (libc::IFF_UP.cast_unsigned(), libc::IFF_NOARP.cast_unsigned());
    let body = link_body(index, if no_arp { up | arp } else { up }, up | arp);
    request.silent("bring interface up", libc::RTM_NEWLINK, 0, &body, |attrs| {
        if let Some(mtu) = mtu {
            attrs.u32(libc::IFLA_MTU, mtu);
        }
    });
}

/// Lists the addresses of all interfaces.
pub(super) fn list_addresses(socket: &Socket, each: impl FnMut(&[u8])) -> Result<(), Failed> {
    socket.dump("list addresses", libc::RTM_GETADDR, &[0; ADDRESS], each)
}

/// Reads an entry of [`list_addresses`]: the interface's index and its address.
pub(super) fn read_address(entry: &[u8]) -> Option<(u32, Address)> {
    let (body, rest) = entry.split_at_checked(ADDRESS)?;
    let ipv4 = is_ipv4(body[0])?;
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFA_LOCAL => local = read_ip(value),
            libc::IFA_ADDRESS => address = read_ip(value),
            _ => {}
        }
    }
    let ip = local.or(address)?;
    let scope = if ipv4 { body[3] } else { 0 };
    let peer = address.filter(|peer| *peer != ip);
    Some((read_u32(&body[4..])?, Address { ip, length: body[1], peer, scope }))
}

/// Adds an address. An IPv6 address can be used at once: nobody is asked whether it is taken.
pub(super) fn add_address(request: &mut Request, index: u32, address: &Address) {
    let mut body = [family(address.ip), address.length, 0, address.scope, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    request.silent("add address", libc::RTM_NEWADDR, SET, &body, |attrs| {
        attrs.bytes(libc::IFA_LOCAL, &octets(address.ip));
        attrs.bytes(libc::IFA_ADDRESS, &octets(address.peer.unwrap_or(address.ip)));
        match (address.ip, address.peer) {
            (IpAddr::V4(ip), None) if address.length < 31 => {
                let broadcast = Ipv4Addr::from(u32::from(ip) | (u32::MAX >> address.length));
                attrs.bytes(libc::IFA_BROADCAST, &broadcast.octets());
            }
            (IpAddr::V4(_), _) => {}
            (IpAddr::V6(_), _) => attrs.u32(libc::IFA_FLAGS, IFA_F_NODAD),
        }
    });
}

/// Lists the routes of all tables.
pub(super) fn list_routes(socket: &Socket, each: impl FnMut(&[u8])) -> Result<(), Failed> {
    socket.dump("list routes", libc::RTM_GETROUTE, &[0; ROUTE], each)
}

/// Reads an entry of [`list_routes`]: the interface's index and its route. None for those that the kernel or
/// a router made, and for those that have no interface or several.
pub(super) fn read_route(entry: &[u8]) -> Option<(u32, Route)> {
    let (body, rest) = entry.split_at_checked(ROUTE)?;
    let ipv4 = is_ipv4(body[0])?;
    if !matches!(body[5], libc::RTPROT_BOOT | libc::RTPROT_STATIC) {
        return None;
    }
    let mut route = Route {
        destination: if ipv4 { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) },
        length: body[1],
        gateway: None,
        source: None,
        metric: 0,
        scope: body[6],
        kind: body[7],
        onlink: read_u32(&body[8..])? & RTNH_F_ONLINK != 0,
        mtu: None,
        table: u32::from(body[4]),
    };
    let mut index = None;
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_DST => route.destination = read_ip(value)?,
            libc::RTA_GATEWAY => route.gateway = read_ip(value),
            // A family and an address of it.
            libc::RTA_VIA => route.gateway = read_ip(value.get(2..)?),
            libc::RTA_PREFSRC => route.source = read_ip(value),
            libc::RTA_PRIORITY => route.metric = read_u32(value)?,
            libc::RTA_TABLE => route.table = read_u32(value)?,
            libc::RTA_OIF => index = read_u32(value),
            libc::RTA_METRICS => {
                route.mtu = find(value, RTAX_MTU).and_then(read_u32);
            }
            _ => {}
        }
    }
    Some((index?, route))
}

/// Adds a route.
pub(super) fn add_route(request: &mut Request, index: u32, route: &Route) {
    let family_of_route = family(route.destination);
    // Tables beyond a byte are told by the attribute alone.
    let table = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    let flags = if route.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes();
    let mut body = [0; ROUTE];
    body[..2].copy_from_slice(&[family_of_route, route.length]);
    body[4..8].copy_from_slice(&[table, libc::RTPROT_STATIC, route.scope, route.kind]);
    body[8..].copy_from_slice(&flags);
    request.silent("add route", libc::RTM_NEWROUTE, APPEND, &body, |attrs| {
        if route.length > 0 {
            attrs.bytes(libc::RTA_DST, &octets(route.destination));
        }
        match route.gateway {
            Some(gateway) if family(gateway) == family_of_route => {
                attrs.bytes(libc::RTA_GATEWAY, &octets(gateway));
            }
            Some(gateway) => {
                let mut via = u16::from(family(gateway)).to_ne_bytes().to_vec();
                via.extend(octets(gateway));
                attrs.bytes(libc::RTA_VIA, &via);
            }
            None => {}
        }
        if route.has_interface() {
            attrs.u32(libc::RTA_OIF, index);
        }
        if let Some(source) = route.source {
            attrs.bytes(libc::RTA_PREFSRC, &octets(source));
        }
        if route.metric != 0 {
            attrs.u32(libc::RTA_PRIORITY, route.metric);
        }
        if let Some(mtu) = route.mtu {
            attrs.nest(libc::RTA_METRICS, |attrs| attrs.u32(RTAX_MTU, mtu));
        }
        attrs.u32(libc::RTA_TABLE, route.table);
    });
}

/// Lists the neighbours of all interfaces.
pub(super) fn list_neighbours(socket: &Socket, each: impl FnMut(&[u8])) -> Result<(), Failed> {
    socket.dump("list neighbours", libc::RTM_GETNEIGH, &[0; NEIGHBOUR], each)
}

/// Reads an entry of [`list_neighbours`]: the interface's index and its neighbour. None for those that
/// expire.
pub(super) fn read_neighbour(entry: &[u8]) -> Option<(u32, Neighbour)> {
    let (body, rest) = entry.split_at_checked(NEIGHBOUR)?;
    is_ipv4(body[0])?;
    if u16::from_ne_bytes([body[8], body[9]]) & libc::NUD_PERMANENT == 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::NDA_DST => address = read_ip(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some((read_u32(&body[4..])?, Neighbour { ip: address?, mac: mac? }))
}

/// Sets a neighbour's entry.
pub(super) fn set_neighbour(request: &mut Request, index: u32, neighbour: &Neighbour) {
    let mut body = [0; NEIGHBOUR];
    body[0] = family(neighbour.ip);
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
    request.silent("set neighbour", libc::RTM_NEWNEIGH, SET, &body, |attrs| {
        attrs.bytes(libc::NDA_DST, &octets(neighbour.ip));
        attrs.bytes(libc::NDA_LLADDR, &neighbour.mac);
    });
}

/// Removes what an entry of a list tells of; `kind` is the RTM_DEL* that belongs to the list.
pub(super) fn remove(request: &mut Request, kind: u16, entry: &[u8]) {
    request.silent("remove entry", kind, 0, entry, |_| {});
}
