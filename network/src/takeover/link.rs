//! Interfaces of a namespace: which are there, and which are for the guest.

use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::address;

/// An interface that the guest is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: String,
    pub(super) mtu: u32,
    pub(super) no_arp: bool,
    /// A tap that nobody holds: the VMM can have it as it is.
    pub(super) free_tap: bool,
}

impl Link {
    /// Reads a message. `None`: not for the guest. For it are Ethernet interfaces that are up and belong to no other one,
    /// as a bridge's port does.
    pub(super) fn read(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        if header.link_layer_type != LinkLayerType::Ether || !header.flags.contains(LinkFlags::Up) {
            return None;
        }
        let (mut name, mut mac, mut mtu, mut is_tap) = (None, None, 0, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Controller(_) => return None,
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Address(bytes) => mac = address::text(bytes),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::LinkInfo(infos) => is_tap = infos.contains(&LinkInfo::Kind(InfoKind::Tun)),
                _ => {}
            }
        }
        Some(Self {
            index: header.index,
            name: name?,
            mac: mac?,
            mtu,
            no_arp: header.flags.contains(LinkFlags::Noarp),
            free_tap: is_tap && !header.flags.contains(LinkFlags::LowerUp),
        })
    }
}
