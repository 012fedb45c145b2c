//! A network's table: who may talk to whom, and by which address.

use super::{
    Batch, Hook, INET, NETDEV,
    expr::{Compare, Header, IPV4, IPV6, Verdict},
    published,
};
use crate::definition::Definition;

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const FILTER_PRIORITY: i32 = 0;
const DNAT_PRIORITY: i32 = -100;
const SNAT_PRIORITY: i32 = 100;
/// What all bridges of husk's begin with.
const BRIDGES: &str = "hk-";

/// Writes a network's tables, without what containers add.
pub(super) fn write(batch: &mut Batch, network: &Definition) {
    let table = network.bridge();
    batch.add_table(INET, &table);
    batch.add_table(NETDEV, &table);
    input(batch, network, &table);
    if network.internal {
        internal_forward(batch, &table);
        return;
    }
    published::write(batch, network, &table);
    redirections(batch, network, &table);
    masquerading(batch, network, &table);
    forward(batch, &table);
}

fn chain(batch: &mut Batch, table: &str, name: &str, kind: &str, number: u32, priority: i32) {
    let hook = Hook { kind, number, priority, policy: Verdict::Accept, device: None };
    batch.add_chain(INET, table, name, Some(hook));
}

/// What containers may ask of the host itself: nothing on its loopback, whatever others have opened there; on an internal
/// network, nothing but the bridge's own addresses.
fn input(batch: &mut Batch, network: &Definition, table: &str) {
    chain(batch, table, "input", "filter", INPUT, FILTER_PRIORITY);
    batch.rule(INET, table, "input", |rule| {
        rule.from(Compare::Is, table).family(IPV4);
        rule.bytes(Header::Network, 16, Compare::Is, &[127]).verdict(Verdict::Drop);
    });
    if !network.internal {
        return;
    }
    batch.rule(INET, table, "input", |rule| {
        rule.from(Compare::Is, table).family(IPV4);
        rule.bytes(Header::Network, 16, Compare::IsNot, &network.ipv4.gateway.octets())
            .verdict(Verdict::Drop);
    });
    batch.rule(INET, table, "input", |rule| {
        rule.from(Compare::Is, table).family(IPV6);
        if let Some(ipv6) = network.ipv6 {
            rule.bytes(Header::Network, 24, Compare::IsNot, &ipv6.gateway.octets());
        }
        // Neighbours are found by multicast and by link-local addresses.
        rule.bytes(Header::Network, 24, Compare::IsNot, &[0xff]);
        rule.bytes(Header::Network, 24, Compare::IsNot, &[0xfe, 0x80]).verdict(Verdict::Drop);
    });
}

/// Sends what comes for a published port to its container: from outside, and from the host. The host's loopback is left
/// to those who listen there.
fn redirections(batch: &mut Batch, network: &Definition, table: &str) {
    chain(batch, table, "prerouting", "nat", PREROUTING, DNAT_PRIORITY);
    chain(batch, table, "output", "nat", OUTPUT, DNAT_PRIORITY);
    batch.rule(INET, table, "output", |rule| {
        rule.family(IPV4).bytes(Header::Network, 16, Compare::Is, &[127]).verdict(Verdict::Accept);
    });
    batch.rule(INET, table, "output", |rule| {
        let mut loopback = [0; 16];
        loopback[15] = 1;
        rule.family(IPV6).bytes(Header::Network, 24, Compare::Is, &loopback).verdict(Verdict::Accept);
    });
    let families = [Some(IPV4), network.ipv6.map(|_| IPV6)];
    for family in families.into_iter().flatten() {
        for chain in ["prerouting", "output"] {
            batch.rule(INET, table, chain, |rule| {
                rule.family(family).redirect(family, true, published::by_address(family));
            });
            batch.rule(INET, table, chain, |rule| {
                rule.family(family).for_host().redirect(family, false, published::any_address(family));
            });
        }
    }
}

/// Gives packets that leave the bridge an address that answers can come to; and those from container to container by a
/// published port, whose answers have to come back the same way. The latter are told by their source: where bridged
/// packets pass these rules, too (br_netfilter, on hosts with Docker or Kubernetes), they have no incoming interface here.
fn masquerading(batch: &mut Batch, network: &Definition, table: &str) {
    chain(batch, table, "postrouting", "nat", POSTROUTING, SNAT_PRIORITY);
    batch.rule(INET, table, "postrouting", |rule| {
        rule.from(Compare::Is, table).to(Compare::IsNot, table).masquerade();
    });
    let ipv4 = network.ipv4.subnet;
    batch.rule(INET, table, "postrouting", |rule| {
        rule.to(Compare::Is, table).redirected();
        rule.source_in(IPV4, &ipv4.network().octets(), &ipv4.netmask().octets()).masquerade();
    });
    let Some(ipv6) = network.ipv6.map(|ipv6| ipv6.subnet) else { return };
    batch.rule(INET, table, "postrouting", |rule| {
        rule.to(Compare::Is, table).redirected();
        rule.source_in(IPV6, &ipv6.network().octets(), &ipv6.netmask().octets()).masquerade();
    });
}

fn others_pass(batch: &mut Batch, table: &str) {
    chain(batch, table, "forward", "filter", FORWARD, FILTER_PRIORITY);
    batch.rule(INET, table, "forward", |rule| {
        rule.from(Compare::IsNot, table).to(Compare::IsNot, table).verdict(Verdict::Accept);
    });
}

fn forward(batch: &mut Batch, table: &str) {
    others_pass(batch, table);
    batch.rule(INET, table, "forward", |rule| rule.known_connection().verdict(Verdict::Accept));
    batch.rule(INET, table, "forward", |rule| rule.redirected().verdict(Verdict::Accept));
    batch.rule(INET, table, "forward", |rule| {
        rule.from(Compare::Is, table).to(Compare::Is, table).verdict(Verdict::Accept);
    });
    batch.rule(INET, table, "forward", |rule| {
        rule.from(Compare::Is, table).leaves_by_none_of(BRIDGES).verdict(Verdict::Accept);
    });
    batch.rule(INET, table, "forward", |rule| rule.verdict(Verdict::Drop));
}

fn internal_forward(batch: &mut Batch, table: &str) {
    others_pass(batch, table);
    batch.rule(INET, table, "forward", |rule| {
        rule.from(Compare::Is, table).to(Compare::Is, table).verdict(Verdict::Accept);
    });
    batch.rule(INET, table, "forward", |rule| rule.verdict(Verdict::Drop));
}
