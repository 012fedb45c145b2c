//! What a network of husk's own is.

use std::net::{Ipv4Addr, Ipv6Addr};

use husk_base::Mac;
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Name of the network that containers join who name none.
pub const DEFAULT_NETWORK: &str = "default";

/// Names that mean something else for `--network`.
const RESERVED: [&str; 4] = ["none", "host", "container", "cni"];
const MAX_NAME: usize = 128;
/// Least and most that a tap's MTU can be (RFC 791 asks for the least).
const MTU: std::ops::RangeInclusive<u32> = 576..=65521;
/// Least MTU of an IPv6 link (RFC 8200).
const MIN_MTU6: u32 = 1280;

/// A network of husk's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created_s: u64,
    /// Where addresses come from, and the bridge's own.
    pub ipv4: Subnet<Ipv4Net, Ipv4Addr>,
    /// The same for IPv6; `None`: none.
    pub ipv6: Option<Subnet<Ipv6Net, Ipv6Addr>>,
    /// Most bytes of a packet.
    pub mtu: u32,
    /// Whether containers reach each other only.
    pub internal: bool,
}

/// Addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet<N, A> {
    /// All of them.
    pub subnet: N,
    /// The bridge's.
    pub gateway: A,
}

/// What is asked of a new network; everything but the name has a default.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// Default: a free /20 of 10.208.0.0/12.
    pub subnet: Option<Ipv4Net>,
    /// Default: the first address of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// No IPv6 at all.
    pub no_ipv6: bool,
    /// Default: a random /64 of fd00::/8, unless the host has IPv6 disabled.
    pub subnet6: Option<Ipv6Net>,
    /// Default: the first address of the IPv6 subnet.
    pub gateway6: Option<Ipv6Addr>,
    /// Default: that of the interface of the host's default route.
    pub mtu: Option<u32>,
    /// Whether containers shall reach each other only.
    pub internal: bool,
}

impl Definition {
    /// Name of the bridge, and of the tables of rules.
    pub fn bridge(&self) -> String {
        format!("hk-{}", self.id.get(..8).unwrap_or_default())
    }

    /// The bridge's Ethernet address.
    pub fn gateway_mac(&self) -> Mac {
        let byte = |at: usize| {
            self.id.get(at..at + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or_default()
        };
        Mac::local([byte(0), byte(2), byte(4), byte(6), byte(8)])
    }
}

/// Checks a network's name, by Docker's rule.
///
/// # Errors
/// When no network can have it.
pub fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !first || !rest || name.len() > MAX_NAME {
        return Err(Error::InvalidName(name.into()));
    }
    if RESERVED.contains(&name) {
        return Err(Error::ReservedName(name.into()));
    }
    Ok(())
}

/// Checks an IPv4 subnet and finds its gateway.
pub(crate) fn subnet4(subnet: Ipv4Net, gateway: Option<Ipv4Addr>) -> Result<Subnet<Ipv4Net, Ipv4Addr>> {
    let unusable = |why: &str| Error::unusable("subnet", subnet, why);
    let network = subnet.network();
    if network != subnet.addr() {
        return Err(unusable(&format!("it is an address within {}", subnet.trunc())));
    }
    if !(8..=30).contains(&subnet.prefix_len()) {
        return Err(unusable("its length has to be 8 to 30, for a gateway and containers"));
    }
    if network.is_loopback() || network.octets()[0] == 0 || network.octets()[0] >= 224 {
        return Err(unusable("hosts cannot have such addresses"));
    }
    let gateway = gateway.unwrap_or(Ipv4Addr::from_bits(network.to_bits() + 1));
    check_host4(subnet, gateway).map_err(|why| Error::unusable("gateway", gateway, why))?;
    Ok(Subnet { subnet, gateway })
}

/// Checks an IPv6 subnet and finds its gateway.
pub(crate) fn subnet6(subnet: Ipv6Net, gateway: Option<Ipv6Addr>) -> Result<Subnet<Ipv6Net, Ipv6Addr>> {
    let unusable = |why: &str| Error::unusable("subnet", subnet, why);
    let network = subnet.network();
    if network != subnet.addr() {
        return Err(unusable(&format!("it is an address within {}", subnet.trunc())));
    }
    if !(8..=126).contains(&subnet.prefix_len()) {
        return Err(unusable("its length has to be 8 to 126, for a gateway and containers"));
    }
    if network.is_multicast() || network.is_unicast_link_local() || network.segments()[0] == 0 {
        return Err(unusable("hosts cannot have such addresses"));
    }
    let gateway = gateway.unwrap_or(Ipv6Addr::from_bits(network.to_bits() + 1));
    check_host6(subnet, gateway).map_err(|why| Error::unusable("gateway", gateway, why))?;
    Ok(Subnet { subnet, gateway })
}

/// Says why an interface of this subnet can't have the address.
pub(crate) fn check_host4(subnet: Ipv4Net, address: Ipv4Addr) -> std::result::Result<(), String> {
    if !subnet.contains(&address) {
        Err(format!("it is not within {subnet}"))
    } else if address == subnet.network() || address == subnet.broadcast() {
        Err(format!("it is the network's own or the broadcast address of {subnet}"))
    } else {
        Ok(())
    }
}

/// Says why an interface of this subnet can't have the address.
pub(crate) fn check_host6(subnet: Ipv6Net, address: Ipv6Addr) -> std::result::Result<(), String> {
    if !subnet.contains(&address) {
        Err(format!("it is not within {subnet}"))
    } else if address == subnet.network() {
        Err(format!("it is the routers' anycast address of {subnet}"))
    } else {
        Ok(())
    }
}

/// Checks a network's MTU.
pub(crate) fn check_mtu(mtu: u32, ipv6: bool) -> Result<()> {
    if !MTU.contains(&mtu) {
        return Err(Error::unusable("MTU", mtu, format!("it has to be {} to {}", MTU.start(), MTU.end())));
    }
    if ipv6 && mtu < MIN_MTU6 {
        return Err(Error::unusable("MTU", mtu, format!("IPv6 needs {MIN_MTU6} or more, or none of it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_dockers() {
        for good in ["a", "0", "web_1.x-y", &"n".repeat(128), DEFAULT_NETWORK] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ü", "a:b", "../x", &"n".repeat(129)] {
            assert!(matches!(check_name(bad), Err(Error::InvalidName(_))), "{bad}");
        }
        for bad in RESERVED {
            assert!(matches!(check_name(bad), Err(Error::ReservedName(_))), "{bad}");
        }
    }

    #[test]
    fn subnets_that_cannot_be_are_refused_with_a_reason() {
        let try4 = |net: &str, gateway: Option<&str>| {
            subnet4(net.parse().unwrap(), gateway.map(|g| g.parse().unwrap())).map_err(|e| e.to_string())
        };
        assert_eq!(try4("10.1.2.0/24", None).unwrap().gateway, Ipv4Addr::new(10, 1, 2, 1));
        for (net, gateway, why) in [
            ("10.1.2.3/24", None, "10.1.2.0/24"),
            ("10.1.2.0/31", None, "8 to 30"),
            ("0.0.0.0/0", None, "8 to 30"),
            ("127.0.0.0/8", None, "hosts"),
            ("224.0.0.0/8", None, "hosts"),
            ("10.1.2.0/24", Some("10.1.3.1"), "within"),
            ("10.1.2.0/24", Some("10.1.2.0"), "network's own"),
            ("10.1.2.0/24", Some("10.1.2.255"), "broadcast"),
        ] {
            let error = try4(net, gateway).unwrap_err();
            assert!(error.contains(why), "{net} {gateway:?}: {error}");
        }
        for (net, why) in [
            ("fd00::1/64", "fd00::/64"),
            ("fd00::/127", "8 to 126"),
            ("ff00::/16", "hosts"),
            ("fe80::/64", "hosts"),
        ] {
            let error = subnet6(net.parse().unwrap(), None).unwrap_err().to_string();
            assert!(error.contains(why), "{net}: {error}");
        }
        let error = subnet6("fd00::/64".parse().unwrap(), Some("fd00::".parse().unwrap())).unwrap_err();
        assert!(error.to_string().contains("anycast"));
    }

    #[test]
    fn mtus_have_bounds() {
        check_mtu(1500, true).unwrap();
        check_mtu(576, false).unwrap();
        for (mtu, ipv6) in [(575, false), (65522, false), (1279, true)] {
            assert!(check_mtu(mtu, ipv6).is_err());
        }
    }
}
