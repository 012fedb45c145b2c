//! Interfaces of a namespace: which are there, which are for the guest, and how a tap is set up.

use husk_base::{
    Mac,
    netlink::{Failed, Request, Socket, attributes, find, read_text, read_u32},
};

/// Length of `struct ifinfomsg`.
pub(super) const HEADER: usize = 16;
/// Of linux/if_link.h.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// IFF_* of linux/if.h.
const UP: u32 = 0x1;
const NO_ARP: u32 = 0x80;
const LOWER_UP: u32 = 0x1_0000;
/// AF_INET6, as the type of an attribute.
const INET6: u16 = 10;

/// An interface that the guest is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) no_arp: bool,
    /// A tap that no process holds: the VMM can have it as it is.
    pub(super) free_tap: bool,
}

impl Link {
    /// Reads a message. `None`: not for the guest. For it are Ethernet interfaces that are up and belong to
    /// no other one, as a bridge's port does.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(HEADER)?;
        let flags = read_u32(&header[8..])?;
        if u16::from_ne_bytes([header[2], header[3]]) != libc::ARPHRD_ETHER || flags & UP == 0 {
            return None;
        }
        let (mut name, mut mac, mut mtu, mut is_tap) = (None, None, 0, false);
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFLA_MASTER => return None,
                libc::IFLA_IFNAME => name = Some(read_text(value)),
                libc::IFLA_ADDRESS => mac = value.try_into().ok().and_then(|octets| Mac::new(octets).ok()),
                libc::IFLA_MTU => mtu = read_u32(value)?,
                libc::IFLA_LINKINFO => {
                    is_tap = find(value, IFLA_INFO_KIND).is_some_and(|kind| read_text(kind) == "tun");
                }
                _ => {}
            }
        }
        Some(Self {
            index: read_u32(&header[4..])?,
            name: name?,
            mac: mac?,
            mtu,
            no_arp: flags & NO_ARP != 0,
            free_tap: is_tap && flags & LOWER_UP == 0,
        })
    }
}

/// Sets a tap up, without an address by which the namespace's own stack would take part.
pub(super) fn set_up(socket: &Socket, tap: u32, mtu: u32) -> Result<(), Failed> {
    match set(socket, tap, mtu, true) {
        // No IPv6 here, or not with this MTU: nothing to keep silent.
        Err(failed) if failed.errno() == libc::EAFNOSUPPORT => set(socket, tap, mtu, false),
        result => result,
    }
}

fn set(socket: &Socket, tap: u32, mtu: u32, silent: bool) -> Result<(), Failed> {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&tap.to_ne_bytes());
    header[8..12].copy_from_slice(&UP.to_ne_bytes());
    header[12..].copy_from_slice(&UP.to_ne_bytes());
    let mut request = Request::default();
    request.add("set a tap up", libc::RTM_SETLINK, 0, &header, |attrs| {
        attrs.u32(libc::IFLA_MTU, mtu);
        if silent {
            attrs.nest(libc::IFLA_AF_SPEC, |attrs| {
                attrs.nest(INET6, |attrs| attrs.u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE));
            });
        }
    });
    socket.send(&request)
}
