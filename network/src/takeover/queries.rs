//! Lets a name server that somebody runs inside the namespace (Docker's, at 127.0.0.11) ask servers outside: it does so by the
//! namespace's own stack, which sees no frame otherwise, as all that comes in is the guest's.
//!
//! The stack gets ports that guests don't choose by themselves, and is given what comes to them from port 53, over IPv4;
//! and it sees answers to ARP, as the guest does.

use std::{fs, io};

use rtnetlink::{
    Error, Handle,
    packet_route::tc::{
        TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption, TcActionType,
        TcFilterU32Option, TcMirror, TcMirrorActionType, TcU32Key, TcU32Selector, TcU32SelectorFlags,
    },
};

use super::redirect::INGRESS;
use crate::netns::Netns;

/// The setting below /proc/sys/net by which the stack gets its ports, ...
pub(super) const RANGE: &str = "ipv4/ip_local_port_range";
/// ... those above all that Linux chooses by default: the ones with these bits.
const PORTS: &str = "61440\t65535";
const PORT_BITS: u32 = 0xf000;

const ETH_P_ARP: u16 = 0x0806_u16.to_be();
const ETH_P_IP: u16 = 0x0800_u16.to_be();
const ARP_REPLY: u32 = 2;
const DNS: u32 = 53;
/// Before the filter that redirects everything, whose priority is the kernel's choice.
const ARP_PRIORITY: u16 = 1;
const DNS_PRIORITY: u16 = 2;

/// Gives the namespace's own stack its ports; returns those that it had.
pub(super) fn set_ports(netns: &Netns) -> crate::netns::Result<io::Result<String>> {
    netns.run(|| {
        let path = format!("/proc/sys/net/{RANGE}");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, PORTS)?;
        Ok(before.trim().to_owned())
    })
}

/// Gives the namespace's own stack back the ports that it had.
pub(super) fn reset_ports(netns: &Netns, before: &str) -> crate::netns::Result<io::Result<()>> {
    netns.run(|| fs::write(format!("/proc/sys/net/{RANGE}"), before))
}

/// Lets answers in at an interface that is redirected to a tap.
///
/// # Errors
/// What the kernel said.
pub(super) async fn let_answers_in(handle: &Handle, interface: u32, tap: u32) -> Result<(), Error> {
    let index = interface.cast_signed();
    let add = |priority, protocol| {
        handle.traffic_filter(index).add().parent(INGRESS).priority(priority).protocol(protocol)
    };
    // The operation is the lower half of the second word.
    let reply = selector(vec![key(4, 0xffff, ARP_REPLY)]);
    let both = TcFilterU32Option::Action(vec![copy_to(tap)]);
    add(ARP_PRIORITY, ETH_P_ARP).u32(&[reply, both])?.execute().await?;
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
        let protocol = protocol.cast_unsigned();
        // Of a header without options: length in the first word, protocol in the third, and then the ports.
        let keys = vec![
            key(0, 0x0f00_0000, 0x0500_0000),
            key(8, 0x00ff_0000, protocol << 16),
            key(20, 0xffff_0000 | PORT_BITS, DNS << 16 | PORT_BITS),
        ];
        // Without an action: it goes where it would go anyway.
        add(DNS_PRIORITY, ETH_P_IP).u32(&[selector(keys)])?.execute().await?;
    }
    Ok(())
}

fn key(off: i32, mask: u32, val: u32) -> TcU32Key {
    let mut key = TcU32Key::default();
    (key.off, key.mask, key.val) = (off, mask, val);
    key
}

fn selector(keys: Vec<TcU32Key>) -> TcFilterU32Option {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = u8::try_from(keys.len()).unwrap_or_default();
    selector.keys = keys;
    TcFilterU32Option::Selector(selector)
}

/// A copy goes to the tap, and the frame itself where it would go anyway.
fn copy_to(tap: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Ok;
    mirror.eaction = TcMirrorActionType::EgressMirror;
    mirror.ifindex = tap;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_string()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    action
}
