//! The messages of rtnetlink(7) that a guest's network takes, and how the kernel's lists are read.

use std::net::{IpAddr, Ipv4Addr};

use husk_base::Mac;

use super::{
    netlink::{Message, attributes},
    plan::{Address, Neighbour, Route},
};

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

const DUMP: libc::c_int = libc::NLM_F_DUMP;
const SET: libc::c_int = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
/// After those with the same destination and metric: the order that is asked for is the order of preference.
const APPEND: libc::c_int = libc::NLM_F_CREATE | libc::NLM_F_APPEND;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> u8 {
        // AF_INET and AF_INET6 are 2 and 10.
        let number = match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        };
        number.to_le_bytes()[0]
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.number() == number)
    }
}

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) up: bool,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn link_body(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

/// Lists the interfaces, without their statistics.
pub(super) fn list_links() -> Message {
    let mask = libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes();
    Message::new(libc::RTM_GETLINK, DUMP, &link_body(0, 0, 0)).attribute(libc::IFLA_EXT_MASK, &mask)
}

/// Reads an entry of [`list_links`].
pub(super) fn read_link(entry: &[u8]) -> Option<Link> {
    let (body, rest) = entry.split_at_checked(LINK)?;
    let flags = word(&body[8..])?;
    let mut link = Link {
        index: word(&body[4..])?,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFLA_IFNAME => {
                link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
            }
            libc::IFLA_ADDRESS => {
                link.mac = value.try_into().ok().and_then(|octets| Mac::new(octets).ok());
            }
            libc::IFLA_MTU => link.mtu = word(value)?,
            _ => {}
        }
    }
    Some(link)
}

/// Gives an interface another name.
pub(super) fn rename(index: u32, name: &str) -> Message {
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    Message::new(libc::RTM_NEWLINK, 0, &link_body(index, 0, 0)).attribute(libc::IFLA_IFNAME, &text)
}

/// Brings an interface up, and before that sets its MTU, if there is one to set.
pub(super) fn bring_up(index: u32, mtu: Option<u32>, no_arp: bool) -> Message {
    let (up, arp) = (libc::IFF_UP.cast_unsigned(), libc::IFF_NOARP.cast_unsigned());
    let flags = if no_arp { up | arp } else { up };
    Message::new(libc::RTM_NEWLINK, 0, &link_body(index, flags, up | arp))
        .optional(libc::IFLA_MTU, mtu.map(u32::to_ne_bytes))
}

/// Lists the addresses of all interfaces.
pub(super) fn list_addresses() -> Message {
    Message::new(libc::RTM_GETADDR, DUMP, &[0; ADDRESS])
}

/// Reads an entry of [`list_addresses`]: the interface's index and its address.
pub(super) fn read_address(entry: &[u8]) -> Option<(u32, Address)> {
    let (body, rest) = entry.split_at_checked(ADDRESS)?;
    let family = Family::from_number(body[0])?;
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => address = ip(value),
            _ => {}
        }
    }
    let ip = local.or(address)?;
    let scope = if family == Family::V4 { body[3] } else { 0 };
    let peer = address.filter(|peer| *peer != ip);
    Some((word(&body[4..])?, Address { ip, length: body[1], peer, scope }))
}

/// Adds an address. An IPv6 address can be used at once: nobody is asked whether it is taken.
pub(super) fn add_address(index: u32, address: &Address) -> Message {
    let family = Family::of(address.ip);
    let mut body = [family.number(), address.length, 0, address.scope, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    let broadcast = match (address.ip, address.peer) {
        (IpAddr::V4(ip), None) if address.length < 31 => {
            Some(Ipv4Addr::from(u32::from(ip) | (u32::MAX >> address.length)).octets())
        }
        _ => None,
    };
    let flags = (family == Family::V6).then_some(IFA_F_NODAD.to_ne_bytes());
    Message::new(libc::RTM_NEWADDR, SET, &body)
        .attribute(libc::IFA_LOCAL, &octets(address.ip))
        .attribute(libc::IFA_ADDRESS, &octets(address.peer.unwrap_or(address.ip)))
        .optional(libc::IFA_BROADCAST, broadcast)
        .optional(libc::IFA_FLAGS, flags)
}

/// Lists the routes of all tables.
pub(super) fn list_routes() -> Message {
    Message::new(libc::RTM_GETROUTE, DUMP, &[0; ROUTE])
}

/// Reads an entry of [`list_routes`]: the interface's index and its route. None for those that the kernel or a router
/// made, and for those that have no interface or several.
pub(super) fn read_route(entry: &[u8]) -> Option<(u32, Route)> {
    let (body, rest) = entry.split_at_checked(ROUTE)?;
    let family = Family::from_number(body[0])?;
    if !matches!(body[5], libc::RTPROT_BOOT | libc::RTPROT_STATIC) {
        return None;
    }
    let mut route = Route {
        destination: match family {
            Family::V4 => IpAddr::from([0_u8; 4]),
            Family::V6 => IpAddr::from([0_u8; 16]),
        },
        length: body[1],
        gateway: None,
        source: None,
        metric: 0,
        scope: body[6],
        kind: body[7],
        onlink: word(&body[8..])? & RTNH_F_ONLINK != 0,
        mtu: None,
        table: u32::from(body[4]),
    };
    let mut index = None;
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_DST => route.destination = ip(value)?,
            libc::RTA_GATEWAY => route.gateway = ip(value),
            // A family and an address of it.
            libc::RTA_VIA => route.gateway = ip(value.get(2..)?),
            libc::RTA_PREFSRC => route.source = ip(value),
            libc::RTA_PRIORITY => route.metric = word(value)?,
            libc::RTA_TABLE => route.table = word(value)?,
            libc::RTA_OIF => index = word(value),
            libc::RTA_METRICS => {
                route.mtu =
                    attributes(value).find(|(kind, _)| *kind == RTAX_MTU).and_then(|(_, mtu)| word(mtu));
            }
            _ => {}
        }
    }
    Some((index?, route))
}

/// Adds a route.
pub(super) fn add_route(index: u32, route: &Route) -> Message {
    let family = Family::of(route.destination);
    // Tables beyond a byte are told by the attribute alone.
    let table = u8::try_from(route.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    let flags = if route.onlink { RTNH_F_ONLINK } else { 0 }.to_ne_bytes();
    let mut body = [0; ROUTE];
    body[..2].copy_from_slice(&[family.number(), route.length]);
    body[4..8].copy_from_slice(&[table, libc::RTPROT_STATIC, route.scope, route.kind]);
    body[8..].copy_from_slice(&flags);
    let same_family = |gateway: &IpAddr| Family::of(*gateway) == family;
    let via = route.gateway.filter(|gateway| !same_family(gateway)).map(|gateway| {
        let mut via = u16::from(Family::of(gateway).number()).to_ne_bytes().to_vec();
        via.extend_from_slice(&octets(gateway));
        via
    });
    let metrics = route.mtu.map(|mtu| {
        let [a, b, c, d] = mtu.to_ne_bytes();
        let ([l0, l1], [k0, k1]) = (8_u16.to_ne_bytes(), RTAX_MTU.to_ne_bytes());
        [l0, l1, k0, k1, a, b, c, d]
    });
    Message::new(libc::RTM_NEWROUTE, APPEND, &body)
        .optional(libc::RTA_DST, (route.length > 0).then(|| octets(route.destination)))
        .optional(libc::RTA_GATEWAY, route.gateway.filter(same_family).map(octets))
        .optional(libc::RTA_VIA, via)
        .optional(libc::RTA_OIF, route.has_interface().then_some(index.to_ne_bytes()))
        .optional(libc::RTA_PREFSRC, route.source.map(octets))
        .optional(libc::RTA_PRIORITY, (route.metric != 0).then_some(route.metric.to_ne_bytes()))
        .optional(libc::RTA_METRICS, metrics)
        .attribute(libc::RTA_TABLE, &route.table.to_ne_bytes())
}

/// Lists the neighbours of all interfaces.
pub(super) fn list_neighbours() -> Message {
    Message::new(libc::RTM_GETNEIGH, DUMP, &[0; NEIGHBOUR])
}

/// Reads an entry of [`list_neighbours`]: the interface's index and its neighbour. None for those that expire.
pub(super) fn read_neighbour(entry: &[u8]) -> Option<(u32, Neighbour)> {
    let (body, rest) = entry.split_at_checked(NEIGHBOUR)?;
    Family::from_number(body[0])?;
    if u16::from_ne_bytes([body[8], body[9]]) & libc::NUD_PERMANENT == 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::NDA_DST => address = ip(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some((word(&body[4..])?, Neighbour { ip: address?, mac: mac? }))
}

/// Sets a neighbour's entry.
pub(super) fn set_neighbour(index: u32, neighbour: &Neighbour) -> Message {
    let mut body = [0; NEIGHBOUR];
    body[0] = Family::of(neighbour.ip).number();
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
    Message::new(libc::RTM_NEWNEIGH, SET, &body)
        .attribute(libc::NDA_DST, &octets(neighbour.ip))
        .attribute(libc::NDA_LLADDR, &neighbour.mac)
}

/// Removes what an entry of a list tells of; `kind` is the RTM_DEL* that belongs to the list.
pub(super) fn remove(kind: u16, entry: &[u8]) -> Message {
    Message::new(kind, 0, entry)
}
