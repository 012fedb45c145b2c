//! Addresses and permanent neighbours of interfaces.

use std::net::IpAddr;

use husk_base::netlink::{attributes, read_ip, read_u32};
use ipnet::IpNet;

use crate::nic::{Address, Neighbour, Scope};

/// Lengths of `struct ifaddrmsg` and `struct ndmsg`.
const ADDRESS: usize = 8;
const NEIGHBOUR: usize = 12;
/// IFA_F_* of linux/if_addr.h.
const SECONDARY: u32 = 0x01;
const DAD_FAILED: u32 = 0x08;

/// An address of the interface `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) address: Address,
}

impl Found {
    /// Reads a message. `None`: an address that the guest is not to have, or no address. Addresses that
    /// another host has too (DAD failed), and temporary ones, which the guest makes for itself, are left out.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (header, rest) = message.split_at_checked(ADDRESS)?;
        let (mut address, mut local, mut flags) = (None, None, u32::from(header[2]));
        for (kind, value) in attributes(rest) {
            match kind {
                libc::IFA_ADDRESS => address = read_ip(value),
                libc::IFA_LOCAL => local = read_ip(value),
                libc::IFA_FLAGS => flags = read_u32(value)?,
                _ => {}
            }
        }
        let own = local.or(address)?;
        // IFA_F_SECONDARY is IFA_F_TEMPORARY of IPv6; among IPv4 addresses, it is a mere remark.
        if flags & DAD_FAILED != 0 || own.is_ipv6() && flags & SECONDARY != 0 {
            return None;
        }
        let address = Address {
            ip: IpNet::new(own, header[1]).ok()?,
            peer: address.filter(|peer| *peer != own),
            scope: Scope(header[3]),
        };
        Some(Self { index: read_u32(&header[4..])?, address })
    }

    /// The guest's address. The kernel gives an address with a prefix a route to that network. Where that
    /// route was taken away (`on_link` is false), the address goes without its prefix.
    pub(super) fn for_guest(&self, on_link: bool) -> Address {
        let ip = self.address.ip;
        let keeps_prefix = on_link || self.address.peer.is_some();
        Address { ip: if keeps_prefix { ip } else { ip.addr().into() }, ..self.address }
    }
}

/// Reads an entry of the neighbour table: interface, and entry if it never expires.
pub(super) fn neighbour(message: &[u8]) -> Option<(u32, Neighbour)> {
    let (header, rest) = message.split_at_checked(NEIGHBOUR)?;
    if u16::from_ne_bytes([header[8], header[9]]) != libc::NUD_PERMANENT {
        return None;
    }
    let (mut ip, mut mac): (Option<IpAddr>, _) = (None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            libc::NDA_DST => ip = read_ip(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some((read_u32(&header[4..])?, Neighbour { ip: ip?, mac: mac? }))
}
