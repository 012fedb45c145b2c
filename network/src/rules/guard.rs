//! What may come out of a tap: nothing that pretends to be somebody else.
//!
//! Frames are looked at as they enter the host, before the bridge. The order of the rules keeps the way of the most
//! common packets short.

use std::net::Ipv6Addr;

use super::{
    Batch, Hook, NETDEV,
    expr::{Compare, Expressions, Group, Header, ICMPV6, UDP, Verdict},
};
use crate::{definition::Definition, lease::Lease};

const INGRESS: u32 = 0;
const ETH_IPV4: u16 = 0x0800;
const ETH_ARP: u16 = 0x0806;
const ETH_IPV6: u16 = 0x86dd;
const DHCP_SERVER: u16 = 67;
const DHCPV6_SERVER: u16 = 547;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Frames to everybody and to groups that a guest may send: each of them is work for the host and for all guests on the
/// network.
const MOST_PER_SECOND: [(Group, u32); 2] = [(Group::Broadcast, 1000), (Group::Multicast, 5000)];

/// fe80::/10, and its mask.
const LINK_LOCAL: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), Ipv6Addr::new(0xffc0, 0, 0, 0, 0, 0, 0, 0)];

/// Writes the chain of a lease's tap, named like it.
///
/// What is for a neighbour has no business at the gateway, which would look for each address on the bridge, and a guest
/// could fill the host's table of neighbours, which all its interfaces share, with addresses that nobody has.
pub(super) fn write(batch: &mut Batch, network: &Definition, lease: &Lease) {
    let table = &network.bridge();
    let gateway_mac = network.gateway_mac();
    let hook = Hook {
        kind: "filter",
        number: INGRESS,
        priority: 0,
        policy: Verdict::Drop,
        device: Some(&lease.tap),
    };
    batch.add_chain(NETDEV, table, &lease.tap, Some(hook));
    let mut rule =
        |body: &dyn Fn(&mut Expressions<'_, '_>)| batch.rule(NETDEV, table, &lease.tap, |rule| body(rule));

    rule(&|rule| rule.source_mac(Compare::IsNot, lease.mac).verdict(Verdict::Drop));
    for (group, most) in MOST_PER_SECOND {
        rule(&|rule| rule.group(group).more_per_second(most).verdict(Verdict::Drop));
    }
    rule(&|rule| from_port(rule.ether_type(ETH_IPV4), DHCP_SERVER).verdict(Verdict::Drop));
    rule(&|rule| {
        let (subnet, gateway) = (network.ipv4.subnet, network.ipv4.gateway);
        rule.ether_type(ETH_IPV4);
        rule.masked(Header::Network, 16, &subnet.netmask().octets(), &subnet.network().octets());
        rule.bytes(Header::Network, 16, Compare::IsNot, &gateway.octets());
        rule.destination_mac(gateway_mac).verdict(Verdict::Drop);
    });
    rule(&|rule| {
        rule.ether_type(ETH_IPV4);
        rule.bytes(Header::Network, 12, Compare::Is, &lease.ipv4.octets()).verdict(Verdict::Accept);
    });
    // ARP: who sends it, by both addresses. 0.0.0.0 asks whether an address is taken (RFC 5227) and teaches nobody.
    for sender in [lease.ipv4.octets(), [0; 4]] {
        rule(&|rule| {
            rule.ether_type(ETH_ARP).bytes(Header::Network, 8, Compare::Is, &lease.mac.octets());
            rule.bytes(Header::Network, 14, Compare::Is, &sender).verdict(Verdict::Accept);
        });
    }
    let (Some(ipv6), Some(subnet6)) = (lease.ipv6, network.ipv6) else { return };
    let link_local = lease.mac.link_local();
    rule(&|rule| from_port(rule.ether_type(ETH_IPV6), DHCPV6_SERVER).verdict(Verdict::Drop));
    for icmp_type in [ROUTER_ADVERTISEMENT, REDIRECT] {
        rule(&|rule| rule.ether_type(ETH_IPV6).icmpv6(icmp_type).verdict(Verdict::Drop));
    }
    rule(&|rule| {
        rule.ether_type(ETH_IPV6).icmpv6(NEIGHBOUR_ADVERTISEMENT);
        rule.bytes(Header::Transport, 8, Compare::IsNot, &ipv6.octets());
        rule.bytes(Header::Transport, 8, Compare::IsNot, &link_local.octets()).verdict(Verdict::Drop);
    });
    let [local, local_mask] = LINK_LOCAL;
    for (subnet, mask, gateway) in [
        (subnet6.subnet.network(), subnet6.subnet.netmask(), subnet6.gateway),
        (local, local_mask, gateway_mac.link_local()),
    ] {
        rule(&|rule| {
            rule.ether_type(ETH_IPV6).masked(Header::Network, 24, &mask.octets(), &subnet.octets());
            rule.bytes(Header::Network, 24, Compare::IsNot, &gateway.octets());
            rule.destination_mac(gateway_mac).verdict(Verdict::Drop);
        });
    }
    for source in [ipv6, link_local] {
        rule(&|rule| rule.ether_type(ETH_IPV6).source6(source).verdict(Verdict::Accept));
    }
    // Asks whether an address is taken (RFC 4862), or tells which groups it hears.
    rule(&|rule| {
        rule.ether_type(ETH_IPV6).source6(Ipv6Addr::UNSPECIFIED).protocol(ICMPV6).verdict(Verdict::Accept);
    });
}

/// Removes the chain of a lease's tap.
pub(super) fn remove(batch: &mut Batch, table: &str, lease: &Lease) {
    batch.remove_chain(NETDEV, table, &lease.tap);
}

fn from_port<'r, 'a, 'b>(rule: &'r mut Expressions<'a, 'b>, port: u16) -> &'r mut Expressions<'a, 'b> {
    rule.protocol(UDP).bytes(Header::Transport, 0, Compare::Is, &port.to_be_bytes())
}
