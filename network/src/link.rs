//! Bridges and taps, by rtnetlink. Formats: `rtnetlink(7)`, `linux/if_link.h`, `linux/neighbour.h`.

use std::{
    fs::File,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::net::if_::if_nametoindex;

use husk_base::netlink::{Attributes, Request, Socket};

use crate::{Error, Result, definition::Definition, forwarding, lease::Lease};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 4;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// The links of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Links {
    socket: Socket,
}

impl Links {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::route().map_err(Error::io("open", "a netlink socket"))? })
    }

    /// Makes a network's bridge, or brings one that is there to the same state. Returns its index.
    ///
    /// Its Ethernet address is given, so that it never follows its ports'. It floods all multicast: there are no routers on
    /// it that could tell who wants what.
    pub(crate) fn ensure_bridge(&self, network: &Definition) -> Result<u32> {
        let bridge = network.bridge();
        let mut request = Request::default();
        request.add("create bridge", RTM_NEWLINK, NLM_F_CREATE, &link_header(0, IFF_UP, IFF_UP), |attrs| {
            attrs.text(IFLA_IFNAME, &bridge);
            attrs.bytes(IFLA_ADDRESS, &network.gateway_mac().octets());
            attrs.u32(IFLA_MTU, network.mtu);
            attrs.nest(IFLA_LINKINFO, |attrs| {
                attrs.text(IFLA_INFO_KIND, "bridge");
                attrs.nest(IFLA_INFO_DATA, |attrs| attrs.u8(IFLA_BR_MCAST_SNOOPING, 0));
            });
        });
        self.send(&request, &network.name)?;

        let index = index(&bridge)?;
        if network.ipv6.is_some() {
            forwarding::prepare_bridge6(&bridge)?;
        } else {
            forwarding::disable6(&bridge)?;
        }
        let mut request = Request::default();
        let ipv4 = network.ipv4;
        add_address(&mut request, AF_INET, ipv4.subnet.prefix_len(), index, |attrs| {
            attrs.bytes(IFA_LOCAL, &ipv4.gateway.octets());
            attrs.bytes(IFA_ADDRESS, &ipv4.gateway.octets());
            attrs.bytes(IFA_BROADCAST, &ipv4.subnet.broadcast().octets());
        });
        if let Some(ipv6) = network.ipv6 {
            add_address(&mut request, AF_INET6, ipv6.subnet.prefix_len(), index, |attrs| {
                attrs.bytes(IFA_ADDRESS, &ipv6.gateway.octets());
                // Nobody else can have it: guests that claim so are not heard.
                attrs.u32(IFA_FLAGS, IFA_F_NODAD);
            });
        }
        self.send(&request, &network.name)?;
        Ok(index)
    }

    /// Plugs a tap into a bridge, and switches it on.
    ///
    /// The bridge is told where the guest's address is, learns nothing from what it sends, and sends it nothing that is for
    /// others. The host is told the guest's Ethernet address, too. The tap's own is the bridge's: the host answers to no
    /// other on the bridge.
    pub(crate) fn plug(&self, lease: &Lease, tap: u32, bridge: u32, network: &Definition) -> Result<()> {
        let mut request = Request::default();
        request.add("plug in interface", RTM_NEWLINK, 0, &link_header(tap, IFF_UP, IFF_UP), |attrs| {
            attrs.bytes(IFLA_ADDRESS, &network.gateway_mac().octets());
            attrs.u32(IFLA_MTU, network.mtu);
            attrs.u32(IFLA_MASTER, bridge);
        });
        request.add("set up bridge port", RTM_NEWLINK, 0, &link_header(tap, 0, 0), |attrs| {
            attrs.nest(IFLA_LINKINFO, |attrs| {
                attrs.text(IFLA_INFO_SLAVE_KIND, "bridge");
                attrs.nest(IFLA_INFO_SLAVE_DATA, |attrs| {
                    attrs.u8(IFLA_BRPORT_LEARNING, 0);
                    attrs.u8(IFLA_BRPORT_UNICAST_FLOOD, 0);
                });
            });
        });
        let header = neighbour_header(AF_BRIDGE, tap, NUD_NOARP, NTF_MASTER);
        request.add(
            "tell bridge the address",
            RTM_NEWNEIGH,
            NLM_F_CREATE | NLM_F_REPLACE,
            &header,
            |attrs| {
                attrs.bytes(NDA_LLADDR, &lease.mac.octets());
            },
        );
        for (family, address) in addresses(lease) {
            let header = neighbour_header(family, bridge, NUD_PERMANENT, 0);
            let flags = NLM_F_CREATE | NLM_F_REPLACE;
            request.add("add neighbour", RTM_NEWNEIGH, flags, &header, |attrs| {
                attrs.bytes(NDA_DST, &address);
                attrs.bytes(NDA_LLADDR, &lease.mac.octets());
            });
        }
        self.send(&request, &lease.tap)
    }

    /// Removes taps that may still be there, and what the host knows of the guests behind them; then the bridge, if it
    /// shall go, too.
    pub(crate) fn unplug(&self, gone: &[Lease], network: &Definition, bridge_too: bool) -> Result<()> {
        let mut request = Request::default();
        for lease in gone {
            delete_link(&mut request, "remove interface", &lease.tap);
        }
        if bridge_too {
            delete_link(&mut request, "remove bridge", &network.bridge());
        } else if let Ok(bridge) = index(&network.bridge()) {
            for (family, address) in gone.iter().flat_map(addresses) {
                let header = neighbour_header(family, bridge, 0, 0);
                request.add("remove neighbour", RTM_DELNEIGH, 0, &header, |attrs| {
                    attrs.bytes(NDA_DST, &address);
                });
            }
        }
        if gone.is_empty() && !bridge_too {
            return Ok(());
        }
        let failed = self.socket.send_all(&request).map_err(Error::kernel(&network.name))?;
        let missing = [libc::ENODEV, libc::ENOENT, libc::ESRCH];
        match failed.into_iter().find(|failed| !missing.contains(&failed.errno())) {
            Some(failed) => Err(Error::kernel(&network.name)(failed)),
            None => Ok(()),
        }
    }

    fn send(&self, request: &Request, on: &str) -> Result<()> {
        self.socket.send(request).map_err(Error::kernel(on))
    }
}

/// The index of the interface of this name.
pub(crate) fn index(name: &str) -> Result<u32> {
    if_nametoindex(name).map_err(|errno| Error::io("find interface", name)(errno.into()))
}

/// Makes a tap for a VMM: not persistent, whole Ethernet frames with a virtio header.
pub(crate) fn make_tap(name: &str) -> Result<OwnedFd> {
    let path = "/dev/net/tun";
    let file = File::options().read(true).write(true).open(path).map_err(Error::io("open", path))?;
    // SAFETY: all-zero bytes are a valid ifreq, which holds numbers only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    // The bits of a 16-bit field, whose highest is IFF_TUN_EXCL.
    let [low, high, ..] = flags.to_le_bytes();
    request.ifr_ifru.ifru_flags = i16::from_le_bytes([low, high]);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and outlives the call; the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(Error::io("create interface", name)(std::io::Error::last_os_error()));
    }
    Ok(file.into())
}

fn add_address(
    request: &mut Request,
    family: u8,
    prefix_len: u8,
    index: u32,
    body: impl FnOnce(&mut Attributes<'_>),
) {
    let [a, b, c, d] = index.to_ne_bytes();
    let header = [family, prefix_len, 0, 0, a, b, c, d];
    request.add("add address", RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &header, body);
}

fn delete_link(request: &mut Request, what: &'static str, name: &str) {
    request.add(what, RTM_DELLINK, 0, &link_header(0, 0, 0), |attrs| attrs.text(IFLA_IFNAME, name));
}

/// A lease's addresses, as rtnetlink has them.
fn addresses(lease: &Lease) -> Vec<(u8, Vec<u8>)> {
    let ipv4 = (AF_INET, Ipv4Addr::octets(&lease.ipv4).to_vec());
    let ipv6 = lease.ipv6.map(|address| (AF_INET6, Ipv6Addr::octets(&address).to_vec()));
    std::iter::once(ipv4).chain(ipv6).collect()
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = AF_UNSPEC;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ndmsg`.
fn neighbour_header(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}
