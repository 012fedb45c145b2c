//! Lets a name server that somebody runs inside the namespace (Docker's, at 127.0.0.11) ask servers outside:
//! it does so by the namespace's own stack, which sees no frame otherwise, as all that comes in is the
//! guest's.
//!
//! The stack gets ports that guests don't choose by themselves, and is given what comes to them from port 53,
//! over IPv4; and it sees answers to ARP, as the guest does.

use std::{fs, io};

use husk_base::netlink::{Failed, Request, Socket};

use super::filter::{self, Action, Key};
use crate::netns::Netns;

/// The setting below /proc/sys/net by which the stack gets its ports, ...
pub(super) const RANGE: &str = "ipv4/ip_local_port_range";
/// ... those above all that Linux chooses by default: the ones with these bits.
const PORTS: &str = "61440\t65535";
const PORT_BITS: u32 = 0xf000;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IP: u16 = 0x0800;
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
pub(super) fn let_answers_in(socket: &Socket, interface: u32, tap: u32) -> Result<(), Failed> {
    let mut request = Request::default();
    // The operation is the lower half of the second word.
    let reply = [key(4, 0xffff, ARP_REPLY)];
    filter::add(&mut request, interface, ARP_PRIORITY, ETH_P_ARP, &reply, Some(Action::Copy(tap)));
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
        let protocol = protocol.cast_unsigned();
        // Of a header without options: length in the first word, protocol in the third, and then the ports.
        let keys = [
            key(0, 0x0f00_0000, 0x0500_0000),
            key(8, 0x00ff_0000, protocol << 16),
            key(20, 0xffff_0000 | PORT_BITS, DNS << 16 | PORT_BITS),
        ];
        // Without an action: it goes where it would go anyway.
        filter::add(&mut request, interface, DNS_PRIORITY, ETH_P_IP, &keys, None);
    }
    request.answer();
    socket.send(&request)
}

fn key(offset: u32, mask: u32, value: u32) -> Key {
    Key { offset, mask, value }
}
