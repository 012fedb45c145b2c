//! A rule's expressions, as `linux/netfilter/nf_tables.h` defines them. Each writes what `nft` would for the same text.

use std::net::Ipv6Addr;

use husk_base::{Mac, netlink::Attributes};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

const META_OIFNAME: u32 = 7;
const META_IIFNAME: u32 = 6;
const META_IIFTYPE: u32 = 8;
const META_NFPROTO: u32 = 15;
const META_PKTTYPE: u32 = 19;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_ESTABLISHED_RELATED: u32 = 2 | 4;
const CT_DNAT: u32 = 1 << 5;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;
const ARPHRD_ETHER: u16 = 1;

const SECOND: u64 = 1;
const LIMIT_PACKETS: u32 = 0;
const LIMIT_OVER: u32 = 1;

/// The first register of 4 bytes; the others follow.
const REGISTER: u32 = 8;
const VERDICT: u32 = 0;
const INTERFACE_NAME: usize = 16;

/// Whether what is compared has to be the same, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Is = 0,
    IsNot = 1,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// Where in a packet something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// To whom a frame is addressed, if not to one (`PACKET_BROADCAST`, `PACKET_MULTICAST`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Broadcast = 1,
    Multicast = 2,
}

/// Families of a NAT expression and of `meta nfproto`.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;

/// Writes a rule's expressions.
#[derive(Debug)]
pub(super) struct Expressions<'a, 'b>(pub(super) &'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(NFTA_LIST_ELEM, |attrs| {
            attrs.text(NFTA_EXPR_NAME, name);
            attrs.nest(NFTA_EXPR_DATA, data);
        });
        self
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.add("meta", |attrs| {
            attrs.be32(1, register);
            attrs.be32(2, key);
        })
    }

    fn compare(&mut self, compare: Compare, value: &[u8]) -> &mut Self {
        self.add("cmp", |attrs| {
            attrs.be32(1, REGISTER);
            attrs.be32(2, compare as u32);
            attrs.nest(3, |attrs| attrs.bytes(NFTA_DATA_VALUE, value));
        })
    }

    fn load(&mut self, header: Header, offset: u32, len: u32, register: u32) -> &mut Self {
        self.add("payload", |attrs| {
            attrs.be32(1, register);
            attrs.be32(2, header as u32);
            attrs.be32(3, offset);
            attrs.be32(4, len);
        })
    }

    /// Keeps these bits of what was loaded.
    fn mask(&mut self, mask: &[u8]) -> &mut Self {
        self.add("bitwise", |attrs| {
            attrs.be32(1, REGISTER);
            attrs.be32(2, REGISTER);
            attrs.be32(3, u32::try_from(mask.len()).unwrap_or(0));
            attrs.nest(4, |attrs| attrs.bytes(NFTA_DATA_VALUE, mask));
            attrs.nest(5, |attrs| attrs.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]));
        })
    }

    /// Goes on if one of these bits of what was loaded is set.
    fn any_bit(&mut self, bits: u32) -> &mut Self {
        self.mask(&bits.to_ne_bytes()).compare(Compare::IsNot, &[0; 4])
    }

    fn conntrack(&mut self, key: u32) -> &mut Self {
        self.add("ct", |attrs| {
            attrs.be32(1, REGISTER);
            attrs.be32(2, key);
        })
    }

    /// `meta nfproto`.
    pub(super) fn family(&mut self, family: u8) -> &mut Self {
        self.meta(META_NFPROTO, REGISTER).compare(Compare::Is, &[family])
    }

    /// `meta l4proto`.
    pub(super) fn protocol(&mut self, protocol: u8) -> &mut Self {
        self.meta(META_L4PROTO, REGISTER).compare(Compare::Is, &[protocol])
    }

    /// Bytes of a header.
    pub(super) fn bytes(&mut self, header: Header, offset: u32, compare: Compare, value: &[u8]) -> &mut Self {
        self.load(header, offset, u32::try_from(value.len()).unwrap_or(0), REGISTER).compare(compare, value)
    }

    /// Bytes of a header, as far as the mask goes.
    pub(super) fn masked(&mut self, header: Header, offset: u32, mask: &[u8], value: &[u8]) -> &mut Self {
        let len = u32::try_from(mask.len()).unwrap_or(0);
        self.load(header, offset, len, REGISTER).mask(mask).compare(Compare::Is, value)
    }

    /// `iifname`.
    pub(super) fn from(&mut self, compare: Compare, interface: &str) -> &mut Self {
        self.meta(META_IIFNAME, REGISTER).compare(compare, &padded(interface))
    }

    /// `oifname`.
    pub(super) fn to(&mut self, compare: Compare, interface: &str) -> &mut Self {
        self.meta(META_OIFNAME, REGISTER).compare(compare, &padded(interface))
    }

    /// `oifname != "prefix*"`.
    pub(super) fn leaves_by_none_of(&mut self, prefix: &str) -> &mut Self {
        self.meta(META_OIFNAME, REGISTER).compare(Compare::IsNot, prefix.as_bytes())
    }

    /// `ct state established,related`.
    pub(super) fn known_connection(&mut self) -> &mut Self {
        self.conntrack(CT_STATE).any_bit(CT_ESTABLISHED_RELATED)
    }

    /// `ct status dnat`.
    pub(super) fn redirected(&mut self) -> &mut Self {
        self.conntrack(CT_STATUS).any_bit(CT_DNAT)
    }

    /// `fib daddr type local`.
    pub(super) fn for_host(&mut self) -> &mut Self {
        self.add("fib", |attrs| {
            attrs.be32(1, REGISTER);
            attrs.be32(2, FIB_RESULT_ADDRTYPE);
            attrs.be32(3, FIB_DADDR);
        })
        .compare(Compare::Is, &RTN_LOCAL.to_ne_bytes())
    }

    /// `ip saddr` or `ip6 saddr`, with the bytes of the subnet's address and mask.
    pub(super) fn source_in(&mut self, family: u8, subnet: &[u8], mask: &[u8]) -> &mut Self {
        let offset = if family == IPV4 { 12 } else { 8 };
        self.family(family).masked(Header::Network, offset, mask, subnet)
    }

    /// Says that link headers are Ethernet's; without it `nft` shows them as numbers.
    fn ethernet(&mut self) -> &mut Self {
        self.meta(META_IIFTYPE, REGISTER).compare(Compare::Is, &ARPHRD_ETHER.to_ne_bytes())
    }

    /// `ether saddr`.
    pub(super) fn source_mac(&mut self, compare: Compare, mac: Mac) -> &mut Self {
        self.ethernet().bytes(Header::Link, 6, compare, &mac.octets())
    }

    /// `meta pkttype`.
    pub(super) fn group(&mut self, group: Group) -> &mut Self {
        self.meta(META_PKTTYPE, REGISTER).compare(Compare::Is, &[group as u8])
    }

    /// `limit rate over PACKETS/second burst PACKETS packets`.
    pub(super) fn more_per_second(&mut self, packets: u32) -> &mut Self {
        self.add("limit", |attrs| {
            attrs.bytes(1, &u64::from(packets).to_be_bytes());
            attrs.bytes(2, &SECOND.to_be_bytes());
            attrs.be32(3, packets);
            attrs.be32(4, LIMIT_PACKETS);
            attrs.be32(5, LIMIT_OVER);
        })
    }

    /// `ether daddr`.
    pub(super) fn destination_mac(&mut self, mac: Mac) -> &mut Self {
        self.ethernet().bytes(Header::Link, 0, Compare::Is, &mac.octets())
    }

    /// `ether type`.
    pub(super) fn ether_type(&mut self, ether_type: u16) -> &mut Self {
        self.ethernet().bytes(Header::Link, 12, Compare::Is, &ether_type.to_be_bytes())
    }

    /// `ip6 saddr`.
    pub(super) fn source6(&mut self, address: Ipv6Addr) -> &mut Self {
        self.bytes(Header::Network, 8, Compare::Is, &address.octets())
    }

    /// `icmpv6 type`.
    pub(super) fn icmpv6(&mut self, icmp_type: u8) -> &mut Self {
        self.protocol(ICMPV6).bytes(Header::Transport, 0, Compare::Is, &[icmp_type])
    }

    /// `dnat to meta l4proto . ip daddr . th dport map @map`, without the address if `by_address` is false.
    pub(super) fn redirect(&mut self, family: u8, by_address: bool, map: &str) {
        let (offset, words) = if family == IPV4 { (16, 1) } else { (24, 4) };
        self.meta(META_L4PROTO, REGISTER);
        let port = if by_address {
            self.load(Header::Network, offset, words * 4, REGISTER + 1);
            REGISTER + 1 + words
        } else {
            REGISTER + 1
        };
        self.load(Header::Transport, 2, 2, port);
        self.add("lookup", |attrs| {
            attrs.text(1, map);
            attrs.be32(2, REGISTER);
            attrs.be32(3, REGISTER);
        });
        self.add("nat", |attrs| {
            attrs.be32(1, 1);
            attrs.be32(2, family.into());
            attrs.be32(3, REGISTER);
            attrs.be32(5, REGISTER + words);
        });
    }

    /// `masquerade`.
    pub(super) fn masquerade(&mut self) {
        self.add("masq", |_| {});
    }

    /// `accept` or `drop`.
    pub(super) fn verdict(&mut self, verdict: Verdict) {
        self.add("immediate", |attrs| {
            attrs.be32(1, VERDICT);
            attrs.nest(2, |attrs| {
                attrs.nest(NFTA_DATA_VERDICT, |attrs| attrs.be32(NFTA_VERDICT_CODE, verdict as u32));
            });
        });
    }
}

fn padded(interface: &str) -> [u8; INTERFACE_NAME] {
    let mut name = [0; INTERFACE_NAME];
    name.iter_mut().zip(interface.bytes()).for_each(|(to, from)| *to = from);
    name
}
