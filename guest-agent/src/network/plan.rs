//! What the host asks for (agent.proto, `Network`), checked and in the kernel's terms.

use std::net::IpAddr;

use husk_base::mac::{self, Mac, MacError};
use husk_protocol::agent;

use crate::failure::Failure;

/// The kernel's limit on an interface's name, in bytes (IFNAMSIZ, less the zero).
const MAX_NAME: usize = 15;
/// Names that are taken: by loopback, and by directories in /proc/sys/net/ipv?/conf.
const RESERVED: [&str; 5] = [".", "..", "lo", "all", "default"];

/// An interface to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) mac: Mac,
    pub(super) name: String,
    /// None: as it is.
    pub(super) mtu: Option<u32>,
    pub(super) no_arp: bool,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) neighbours: Vec<Neighbour>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) length: u8,
    /// The other end of a point-to-point link.
    pub(super) peer: Option<IpAddr>,
    /// RT_SCOPE_*. The kernel derives it for IPv6, so there it is always 0 here.
    pub(super) scope: u8,
}

/// A route. Every field has the value that the kernel reports for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Also tells the route's family.
    pub(super) destination: IpAddr,
    pub(super) length: u8,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) metric: u32,
    pub(super) scope: u8,
    /// RTN_*.
    pub(super) kind: u8,
    pub(super) onlink: bool,
    pub(super) mtu: Option<u32>,
    pub(super) table: u32,
}

impl Route {
    /// Routes that drop what they match belong to no interface.
    pub(super) fn has_interface(&self) -> bool {
        !matches!(self.kind, libc::RTN_BLACKHOLE | libc::RTN_UNREACHABLE | libc::RTN_PROHIBIT)
    }
}

/// A neighbour's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) ip: IpAddr,
    /// Any address: several hosts may share a group's.
    pub(super) mac: [u8; 6],
}

/// The metric that the kernel gives an IPv6 route without one (IP6_RT_PRIO_USER).
const IPV6_METRIC: u32 = 1024;

/// Checks everything there is to check before anything is changed.
pub(super) fn interfaces(network: &agent::Network) -> Result<Vec<Interface>, Failure> {
    let mut interfaces: Vec<Interface> = Vec::with_capacity(network.interfaces.len());
    for (at, given) in network.interfaces.iter().enumerate() {
        let field = format!("interfaces[{at}]");
        let interface = interface(&field, given)?;
        if interfaces.iter().any(|other| other.mac == interface.mac) {
            return Err(bad(&field, "mac", "an address that is not given twice", &given.mac));
        }
        if interfaces.iter().any(|other| other.name == interface.name) {
            return Err(bad(&field, "name", "a name that is not given twice", &given.name));
        }
        interfaces.push(interface);
    }
    Ok(interfaces)
}

fn bad(field: &str, part: &str, expected: &str, value: impl std::fmt::Debug) -> Failure {
    Failure::invalid(format!("{field}.{part} is not {expected}: {value:?}"))
}

fn interface(field: &str, given: &agent::Interface) -> Result<Interface, Failure> {
    let name = &given.name;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if name.is_empty()
        || name.len() > MAX_NAME
        || !name.bytes().all(plain)
        || RESERVED.contains(&name.as_str())
    {
        return Err(bad(field, "name", "a name for an interface", name));
    }
    let mut addresses = Vec::with_capacity(given.addresses.len());
    for (at, address) in given.addresses.iter().enumerate() {
        addresses.push(self::address(&format!("{field}.addresses[{at}]"), address)?);
    }
    let mut routes = Vec::with_capacity(given.routes.len());
    for (at, route) in given.routes.iter().enumerate() {
        routes.push(self::route(&format!("{field}.routes[{at}]"), route)?);
    }
    let mut neighbours = Vec::with_capacity(given.neighbours.len());
    for (at, neighbour) in given.neighbours.iter().enumerate() {
        let field = format!("{field}.neighbours[{at}]");
        neighbours.push(Neighbour {
            ip: ip(&field, "ip", &neighbour.ip)?,
            mac: mac(&field, &neighbour.mac, mac::octets)?,
        });
    }
    Ok(Interface {
        mac: mac(field, &given.mac, str::parse)?,
        name: name.clone(),
        mtu: (given.mtu != 0).then_some(given.mtu),
        no_arp: given.no_arp,
        addresses,
        routes,
        neighbours,
    })
}

fn address(field: &str, given: &agent::Address) -> Result<Address, Failure> {
    let (ip, length) = prefix(field, "prefix", &given.prefix)?;
    let peer = optional_ip(field, "peer", &given.peer)?;
    if peer.is_some_and(|peer| peer.is_ipv4() != ip.is_ipv4()) {
        return Err(bad(field, "peer", "of the address's family", &given.peer));
    }
    let scope = scope(field, given.scope)?;
    Ok(Address {
        ip,
        length,
        peer: peer.filter(|peer| *peer != ip),
        scope: if ip.is_ipv4() { scope } else { 0 },
    })
}

fn route(field: &str, given: &agent::Route) -> Result<Route, Failure> {
    let gateway = optional_ip(field, "gateway", &given.gateway)?;
    let source = optional_ip(field, "source", &given.source)?;
    let (destination, length) = if given.destination.is_empty() {
        match gateway.or(source) {
            Some(IpAddr::V6(_)) => (IpAddr::from([0_u16; 8]), 0),
            _ => (IpAddr::from([0_u8; 4]), 0),
        }
    } else {
        prefix(field, "destination", &given.destination)?
    };
    let ipv4 = destination.is_ipv4();
    // An IPv6 gateway may serve IPv4, but not the other way round.
    if !ipv4 && gateway.is_some_and(|gateway| gateway.is_ipv4()) {
        return Err(bad(field, "gateway", "of the destination's family", &given.gateway));
    }
    if source.is_some_and(|source| source.is_ipv4() != ipv4) {
        return Err(bad(field, "source", "of the destination's family", &given.source));
    }
    let kind = match u8::try_from(given.kind) {
        Ok(0) => libc::RTN_UNICAST,
        Ok(
            kind @ (libc::RTN_UNICAST
            | libc::RTN_LOCAL
            | libc::RTN_BROADCAST
            | libc::RTN_ANYCAST
            | libc::RTN_MULTICAST
            | libc::RTN_BLACKHOLE
            | libc::RTN_UNREACHABLE
            | libc::RTN_PROHIBIT
            | libc::RTN_THROW),
        ) => kind,
        _ => return Err(bad(field, "kind", "a kind of routes", given.kind)),
    };
    let scope = match (scope(field, given.scope)?, gateway) {
        (_, _) if !ipv4 => 0,
        // A route to the link itself, as ip-route(8) has it: gateways are looked up among these only.
        (0, None) if kind == libc::RTN_UNICAST => libc::RT_SCOPE_LINK,
        (scope, _) => scope,
    };
    Ok(Route {
        destination,
        length,
        gateway,
        source,
        metric: if given.metric == 0 && !ipv4 { IPV6_METRIC } else { given.metric },
        scope,
        kind,
        onlink: given.onlink,
        mtu: (given.mtu != 0).then_some(given.mtu),
        table: if given.table == 0 { u32::from(libc::RT_TABLE_MAIN) } else { given.table },
    })
}

fn scope(field: &str, scope: u32) -> Result<u8, Failure> {
    u8::try_from(scope).map_err(|_| bad(field, "scope", "a scope from 0 to 255", scope))
}

fn ip(field: &str, part: &str, text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| bad(field, part, "an IP address", text))
}

fn optional_ip(field: &str, part: &str, text: &str) -> Result<Option<IpAddr>, Failure> {
    if text.is_empty() { Ok(None) } else { ip(field, part, text).map(Some) }
}

fn prefix(field: &str, part: &str, text: &str) -> Result<(IpAddr, u8), Failure> {
    let parsed = text.split_once('/').and_then(|(ip, length)| {
        let (ip, length) = (ip.parse::<IpAddr>().ok()?, length.parse::<u8>().ok()?);
        (length <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, length))
    });
    parsed.ok_or_else(|| bad(field, part, "an address and a length, as 10.0.0.1/24", text))
}

fn mac<T>(field: &str, text: &str, parse: impl FnOnce(&str) -> Result<T, MacError>) -> Result<T, Failure> {
    parse(text).map_err(|_| bad(field, "mac", "a MAC address, as 02:00:00:00:00:01", text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use husk_protocol::agent::Reason;

    fn message(change: impl FnOnce(&mut agent::Interface)) -> String {
        let mut interface = agent::Interface {
            mac: "02:00:00:00:00:0a".into(),
            name: "eth0".into(),
            addresses: vec![agent::Address { prefix: "10.0.0.2/24".into(), ..Default::default() }],
            routes: vec![agent::Route { gateway: "10.0.0.1".into(), ..Default::default() }],
            ..Default::default()
        };
        change(&mut interface);
        let network = agent::Network { interfaces: vec![interface], ..Default::default() };
        let failure = interfaces(&network).unwrap_err();
        assert_eq!(failure.reason, Reason::INVALID_REQUEST);
        failure.message
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for name in ["", "lo", "all", "a/b", "a b", "eth%d", "..", "0123456789abcdef", "e\u{fc}"] {
            assert_eq!(
                message(|i| i.name = name.into()),
                format!("interfaces[0].name is not a name for an interface: {name:?}")
            );
        }
        for mac in [
            "",
            "02",
            "02:00:00:00:00:0g",
            "02:00:00:00:00:0a:00",
            "+2:00:00:00:00:0a",
            "2:0:0:0:0:a",
            "01:00:5e:00:00:0a",
        ] {
            assert_eq!(
                message(|i| i.mac = mac.into()),
                format!("interfaces[0].mac is not a MAC address, as 02:00:00:00:00:01: {mac:?}")
            );
        }
        for prefix in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0/8", "fd00::1/129", "fd00::1/x", "/8"] {
            assert_eq!(
                message(|i| i.addresses[0].prefix = prefix.into()),
                format!(
                    "interfaces[0].addresses[0].prefix is not an address and a length, as 10.0.0.1/24: {prefix:?}"
                )
            );
        }
        assert!(
            message(|i| i.addresses[0].peer = "fd00::1".into())
                .starts_with("interfaces[0].addresses[0].peer ")
        );
        assert!(message(|i| i.addresses[0].scope = 256).starts_with("interfaces[0].addresses[0].scope "));
        assert!(
            message(|i| i.routes[0].gateway = "x".into()).starts_with("interfaces[0].routes[0].gateway ")
        );
        assert!(
            message(|i| i.routes[0].source = "fd00::1".into()).starts_with("interfaces[0].routes[0].source ")
        );
        assert!(
            message(|i| i.routes[0].destination = "10/8".into())
                .starts_with("interfaces[0].routes[0].destination ")
        );
        assert!(
            message(|i| i.routes[0].destination = "fd00::/8".into())
                .starts_with("interfaces[0].routes[0].gateway ")
        );
        assert!(message(|i| i.routes[0].kind = 77).starts_with("interfaces[0].routes[0].kind "));
        let neighbour = agent::Neighbour { ip: "10.0.0.1".into(), mac: "x".into(), ..Default::default() };
        assert!(message(|i| i.neighbours = vec![neighbour]).starts_with("interfaces[0].neighbours[0].mac "));
    }

    #[test]
    fn neither_names_nor_addresses_come_twice() {
        let one = |mac: &str, name: &str| agent::Interface {
            mac: mac.into(),
            name: name.into(),
            ..Default::default()
        };
        let (a, b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
        for (first, second, part) in [
            (one(a, "eth0"), one("02:00:00:00:00:0A", "eth1"), "mac"),
            (one(a, "eth0"), one(b, "eth0"), "name"),
        ] {
            let network = agent::Network { interfaces: vec![first, second], ..Default::default() };
            let failure = interfaces(&network).unwrap_err();
            assert!(failure.message.starts_with(&format!("interfaces[1].{part} ")), "{failure}");
        }
    }

    #[test]
    fn routes_get_what_the_kernel_would_give_them() {
        let parse = |given: &agent::Route| route("r", given).unwrap();
        let default = parse(&agent::Route { gateway: "10.0.0.1".into(), ..Default::default() });
        assert_eq!((default.destination, default.length, default.scope), ("0.0.0.0".parse().unwrap(), 0, 0));
        assert_eq!((default.table, default.kind, default.metric), (254, 1, 0));
        let default = parse(&agent::Route { gateway: "fe80::1".into(), scope: 253, ..Default::default() });
        assert_eq!((default.destination, default.metric, default.scope), ("::".parse().unwrap(), 1024, 0));
        let link = parse(&agent::Route { destination: "10.0.0.0/8".into(), ..Default::default() });
        assert_eq!(link.scope, 253);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[0-9a-f:./]{0,24}|\\PC{0,24}") {
            let _ = (prefix("f", "p", &text), mac("f", &text, mac::octets), ip("f", "p", &text));
        }
    }
}
