//! Messages for traffic control: the ingress qdisc, and `u32` filters. Formats: `linux/rtnetlink.h`,
//! `linux/pkt_cls.h`, `linux/tc_act/tc_mirred.h`.

use husk_base::netlink::Request;

/// The ingress qdisc's own parent, its handle, and the parent of its filters.
const TC_H_INGRESS: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_0000;

const NEW: u16 = 0x200 | 0x400; // NLM_F_EXCL, NLM_F_CREATE
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TC_U32_TERMINAL: u8 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_OK: u32 = 0;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;
const TCA_EGRESS_MIRROR: u32 = 2;

/// A word of the packet, counted from the network header, that has to have a value under a mask.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Key {
    pub(super) offset: u32,
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// What happens to a frame that a filter matches.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// It goes out at this interface.
    Redirect(u32),
    /// A copy goes out at this interface, and the frame where it would go anyway.
    Copy(u32),
}

/// Gives an interface an ingress qdisc.
pub(super) fn add_ingress(request: &mut Request, interface: u32) {
    let header = header(interface, INGRESS, TC_H_INGRESS, 0);
    request.silent("add an ingress qdisc", libc::RTM_NEWQDISC, NEW, &header, |attrs| {
        attrs.text(TCA_KIND, "ingress");
    });
}

/// Takes an interface's ingress qdisc away, with its filters.
pub(super) fn remove_ingress(request: &mut Request, interface: u32) {
    let header = header(interface, 0, TC_H_INGRESS, 0);
    request.silent("remove an ingress qdisc", libc::RTM_DELQDISC, 0, &header, |_| {});
}

/// Adds a filter to an interface's ingress qdisc: of a priority (0: the kernel's choice), for a protocol of
/// Ethernet, and for packets that match all keys. Without an action, what matches goes where it would go
/// anyway.
pub(super) fn add(
    request: &mut Request,
    interface: u32,
    priority: u16,
    protocol: u16,
    keys: &[Key],
    action: Option<Action>,
) {
    let info = u32::from(priority) << 16 | u32::from(protocol.to_be());
    let header = header(interface, 0, INGRESS, info);
    request.silent("add a filter", libc::RTM_NEWTFILTER, NEW, &header, |attrs| {
        attrs.text(TCA_KIND, "u32");
        attrs.nest(TCA_OPTIONS, |attrs| {
            attrs.bytes(TCA_U32_SEL, &selector(keys));
            let Some(action) = action else { return };
            attrs.nest(TCA_U32_ACT, |attrs| {
                // The first action.
                attrs.nest(1, |attrs| {
                    attrs.text(TCA_ACT_KIND, "mirred");
                    attrs.nest(TCA_ACT_OPTIONS, |attrs| attrs.bytes(TCA_MIRRED_PARMS, &mirred(action)));
                });
            });
        });
    });
}

/// `struct tcmsg`.
fn header(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    header[4..8].copy_from_slice(&interface.to_ne_bytes());
    header[8..12].copy_from_slice(&handle.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    header[16..].copy_from_slice(&info.to_ne_bytes());
    header
}

/// `struct tc_u32_sel`, and a `struct tc_u32_key` for each key.
fn selector(keys: &[Key]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[0] = TC_U32_TERMINAL;
    bytes[2] = keys.len().to_le_bytes()[0];
    for key in keys {
        bytes.extend(key.mask.to_be_bytes());
        bytes.extend(key.value.to_be_bytes());
        bytes.extend(key.offset.to_ne_bytes());
        bytes.extend([0; 4]);
    }
    bytes
}

/// `struct tc_mirred`.
fn mirred(action: Action) -> [u8; 28] {
    let (verdict, kind, interface) = match action {
        Action::Redirect(to) => (TC_ACT_STOLEN, TCA_EGRESS_REDIR, to),
        Action::Copy(to) => (TC_ACT_OK, TCA_EGRESS_MIRROR, to),
    };
    let mut bytes = [0; 28];
    bytes[8..12].copy_from_slice(&verdict.to_ne_bytes());
    bytes[20..24].copy_from_slice(&kind.to_ne_bytes());
    bytes[24..].copy_from_slice(&interface.to_ne_bytes());
    bytes
}
