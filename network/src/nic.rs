//! An interface of a VM: the tap on the host, and the interface that the guest makes of it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use husk_base::Mac;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One interface of a VM: the host's end and the guest's.
#[derive(Debug)]
pub struct Nic {
    /// A tap of the host, set up with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`, for the VMM. It is not
    /// persistent: it goes when its last descriptor is closed.
    pub tap: OwnedFd,
    /// The guest's end.
    pub interface: Interface,
}

/// The guest's end of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its Ethernet address, by which the guest finds the device.
    pub mac: Mac,
    /// Its name: "eth0".
    pub name: String,
    /// Its MTU, in bytes; 0: as it is.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its routes, in an order in which they can be added.
    pub routes: Vec<Route>,
    /// Neighbours' entries that do not expire.
    pub neighbours: Vec<Neighbour>,
    /// No neighbours are asked for (`IFF_NOARP`).
    pub no_arp: bool,
}

impl Interface {
    /// An interface that has nothing else yet.
    pub fn new(mac: Mac, name: impl Into<String>) -> Self {
        Self {
            mac,
            name: name.into(),
            mtu: 0,
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            no_arp: false,
        }
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address, with the length of its network's prefix.
    pub ip: IpNet,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// How far the address is known.
    pub scope: Scope,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads to.
    pub destination: IpNet,
    /// The neighbour that it leads by; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Its metric; 0: the kernel's choice.
    pub metric: u32,
    /// How far the destination is.
    pub scope: Scope,
    /// What happens to packets.
    pub kind: RouteKind,
    /// The gateway is on the link, whatever the addresses say.
    pub onlink: bool,
    /// The MTU of packets that take it, in bytes; `None`: the interface's.
    pub mtu: Option<u32>,
}

impl Route {
    /// The default route of a gateway's family.
    pub fn default_by(gateway: IpAddr) -> Self {
        Self {
            destination: everywhere(gateway.is_ipv4()),
            gateway: Some(gateway),
            source: None,
            metric: 0,
            scope: Scope::GLOBAL,
            kind: RouteKind::Unicast,
            onlink: false,
            mtu: None,
        }
    }
}

/// A neighbour's entry that does not expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its Ethernet address. It may be a group's, as that of a cluster of servers is.
    pub mac: [u8; 6],
}

/// How far addresses and routes reach (`RT_SCOPE_*` of rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope(pub u8);

impl Scope {
    /// Everywhere.
    pub const GLOBAL: Self = Self(0);
}

/// What a route does with packets (`RTN_*` of rtnetlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// They are sent on.
    Unicast,
    /// They are dropped in silence.
    Blackhole,
    /// They are dropped, and the sender learns that the destination can't be reached.
    Unreachable,
    /// They are dropped, and the sender learns that this is forbidden.
    Prohibit,
}

impl RouteKind {
    const ALL: [Self; 4] = [Self::Unicast, Self::Blackhole, Self::Unreachable, Self::Prohibit];

    /// The kernel's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Unicast => libc::RTN_UNICAST,
            Self::Blackhole => libc::RTN_BLACKHOLE,
            Self::Unreachable => libc::RTN_UNREACHABLE,
            Self::Prohibit => libc::RTN_PROHIBIT,
        }
    }

    /// The kind with this number; `None`: one that guests don't get.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// All addresses of a family.
pub(crate) fn everywhere(ipv4: bool) -> IpNet {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);
    if ipv4 { v4.into() } else { v6.into() }
}
