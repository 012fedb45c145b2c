//! Who has which address of a network.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use husk_base::{Mac, json_file};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    definition::{Definition, check_host4, check_host6},
    host,
    publish::PortMapping,
};

/// What a sandbox has on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The sandbox's id.
    pub sandbox: String,
    /// The container's name; empty: none.
    pub name: String,
    /// More names that others on the network find it by.
    pub aliases: Vec<String>,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address, if the network has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The interface's name in the guest.
    pub interface: String,
    /// The interface's name on the host.
    pub tap: String,
    /// Ports of the host that lead to it.
    pub ports: Vec<PortMapping>,
}

/// What is asked of a new lease besides its names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) mac: Option<Mac>,
}

/// All leases of a network, as they are on disk. To be changed under the network's lock only.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leases {
    /// The address that was given last.
    pub(crate) last4: Option<Ipv4Addr>,
    pub(crate) last6: Option<Ipv6Addr>,
    pub(crate) leases: Vec<Lease>,
}

impl Leases {
    /// Reads them; none if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(json_file::read(path)?.unwrap_or_default())
    }

    /// Replaces the file.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(json_file::write_atomic(path, self)?)
    }

    /// Chooses addresses: those asked for, or the next free ones after those given last.
    pub(crate) fn choose(
        &mut self,
        network: &Definition,
        wanted: Wanted,
    ) -> Result<(Ipv4Addr, Option<Ipv6Addr>, Mac)> {
        let ipv4 = match wanted.ipv4 {
            Some(address) => self.explicit(network, address.into()).map(|()| address)?,
            None => self.next4(network)?,
        };
        let ipv6 = match (wanted.ipv6, network.ipv6) {
            (Some(address), _) => self.explicit(network, address.into()).map(|()| Some(address))?,
            (None, Some(_)) => Some(self.next6(network)?),
            (None, None) => None,
        };
        let mac = self.choose_mac(network, wanted.mac, ipv4)?;
        // An address that was asked for says nothing about where the next ones come from.
        if wanted.ipv4.is_none() {
            self.last4 = Some(ipv4);
        }
        if wanted.ipv6.is_none() {
            self.last6 = ipv6;
        }
        Ok((ipv4, ipv6, mac))
    }

    /// Checks an address that was asked for.
    fn explicit(&self, network: &Definition, address: IpAddr) -> Result<()> {
        let (checked, gateway) = match (address, network.ipv6) {
            (IpAddr::V4(address), _) => {
                (check_host4(network.ipv4.subnet, address), address == network.ipv4.gateway)
            }
            (IpAddr::V6(address), Some(ipv6)) => (check_host6(ipv6.subnet, address), address == ipv6.gateway),
            (IpAddr::V6(_), None) => (Err(format!("network {} has no IPv6", network.name)), false),
        };
        checked.map_err(|why| Error::unusable("address", address, why))?;
        let has = |lease: &&Lease| address == lease.ipv4 || lease.ipv6.is_some_and(|ipv6| address == ipv6);
        match self.leases.iter().find(has) {
            _ if gateway => Err(taken("address", address, network, "the gateway".into())),
            Some(lease) => Err(taken("address", address, network, lease.owner())),
            None => Ok(()),
        }
    }

    fn next4(&self, network: &Definition) -> Result<Ipv4Addr> {
        let subnet = network.ipv4.subnet;
        let used = self.leases.iter().map(|lease| lease.ipv4).chain([network.ipv4.gateway]);
        let used: HashSet<u128> = used.map(|address| address.to_bits().into()).collect();
        let (first, last) = (subnet.network().to_bits() + 1, subnet.broadcast().to_bits() - 1);
        let previous = self.last4.map_or(0, Ipv4Addr::to_bits);
        next_free(first.into(), last.into(), previous.into(), &used)
            .and_then(|bits| u32::try_from(bits).ok())
            .map(Ipv4Addr::from_bits)
            .ok_or_else(|| Error::NoAddress { network: network.name.clone(), subnet: subnet.to_string() })
    }

    fn next6(&self, network: &Definition) -> Result<Ipv6Addr> {
        let no_address = |subnet: String| Error::NoAddress { network: network.name.clone(), subnet };
        let ipv6 = network.ipv6.ok_or_else(|| no_address("IPv6".into()))?;
        let used = self.leases.iter().filter_map(|lease| lease.ipv6).chain([ipv6.gateway]);
        let used: HashSet<u128> = used.map(Ipv6Addr::to_bits).collect();
        let (first, last) = (ipv6.subnet.network().to_bits() + 1, ipv6.subnet.broadcast().to_bits());
        let previous = self.last6.map_or(0, Ipv6Addr::to_bits);
        next_free(first, last, previous, &used)
            .map(Ipv6Addr::from_bits)
            .ok_or_else(|| no_address(ipv6.subnet.to_string()))
    }

    fn choose_mac(&self, network: &Definition, wanted: Option<Mac>, ipv4: Ipv4Addr) -> Result<Mac> {
        let owner = |mac: Mac| {
            let lease = self.leases.iter().find(|lease| lease.mac == mac).map(Lease::owner);
            if mac == network.gateway_mac() { Some("the gateway".into()) } else { lease }
        };
        if let Some(mac) = wanted {
            return owner(mac).map_or(Ok(mac), |by| Err(taken("MAC address", mac, network, by)));
        }
        let salt = u8::from_str_radix(network.id.get(..2).unwrap_or_default(), 16).unwrap_or_default();
        let mut mac = mac_of(salt, ipv4);
        while owner(mac).is_some() {
            mac = Mac::local(host::random()?);
        }
        Ok(mac)
    }
}

impl Lease {
    /// What to call its owner in a message.
    pub(crate) fn owner(&self) -> String {
        let short = husk_base::id::short(&self.sandbox);
        if self.name.is_empty() { short.into() } else { self.name.clone() }
    }
}

/// The Ethernet address that belongs to an IPv4 address of a network whose id begins with `salt`.
fn mac_of(salt: u8, address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac::local([salt, a, b, c, d])
}

fn taken(what: &'static str, value: impl ToString, network: &Definition, by: String) -> Error {
    Error::Taken { what, value: value.to_string(), network: network.name.clone(), by }
}

/// The first number after `previous` that is not used, from `first` again after `last`.
fn next_free(first: u128, last: u128, previous: u128, used: &HashSet<u128>) -> Option<u128> {
    let start = if (first..last).contains(&previous) { previous + 1 } else { first };
    (start..=last).chain(first..start).find(|candidate| !used.contains(candidate))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::definition::{subnet4, subnet6};

    fn network() -> Definition {
        Definition {
            name: "net".into(),
            id: "0123456789abcdef0123456789abcdef".into(),
            created_s: 0,
            ipv4: subnet4("10.0.0.0/29".parse().unwrap(), None).unwrap(),
            ipv6: Some(subnet6("fd00::/64".parse().unwrap(), None).unwrap()),
            mtu: 1500,
            internal: false,
        }
    }

    fn join(leases: &mut Leases, sandbox: &str, wanted: Wanted) -> Result<Lease> {
        let (ipv4, ipv6, mac) = leases.choose(&network(), wanted)?;
        let lease = Lease {
            sandbox: sandbox.into(),
            name: String::new(),
            aliases: vec![],
            ipv4,
            ipv6,
            mac,
            interface: "eth0".into(),
            tap: "t".into(),
            ports: vec![],
        };
        leases.leases.push(lease.clone());
        Ok(lease)
    }

    #[test]
    fn an_address_is_not_given_again_at_once() {
        let mut leases = Leases::default();
        let first = join(&mut leases, "a", Wanted::default()).unwrap();
        assert_eq!((first.ipv4, first.ipv6), (Ipv4Addr::new(10, 0, 0, 2), Some("fd00::2".parse().unwrap())));
        leases.leases.clear();
        assert_eq!(join(&mut leases, "b", Wanted::default()).unwrap().ipv4, Ipv4Addr::new(10, 0, 0, 3));
        for last in [4, 5, 6, 2] {
            assert_eq!(
                join(&mut leases, "c", Wanted::default()).unwrap().ipv4,
                Ipv4Addr::new(10, 0, 0, last)
            );
        }
        let error = join(&mut leases, "d", Wanted::default()).unwrap_err();
        assert!(matches!(error, Error::NoAddress { .. }), "{error}");
        leases.leases.retain(|lease| lease.sandbox != "b");
        assert_eq!(join(&mut leases, "d", Wanted::default()).unwrap().ipv4, Ipv4Addr::new(10, 0, 0, 3));
    }

    #[test]
    fn what_is_asked_for_is_given_or_refused() {
        let mut leases = Leases::default();
        let wanted = Wanted {
            ipv4: Some(Ipv4Addr::new(10, 0, 0, 5)),
            ipv6: Some("fd00::7:8".parse().unwrap()),
            mac: Some("02:00:00:00:00:07".parse().unwrap()),
        };
        let lease = join(&mut leases, "a", wanted).unwrap();
        assert_eq!((Some(lease.ipv4), lease.ipv6, Some(lease.mac)), (wanted.ipv4, wanted.ipv6, wanted.mac));
        for again in [
            Wanted { ipv4: wanted.ipv4, ..Wanted::default() },
            Wanted { ipv6: wanted.ipv6, ..Wanted::default() },
            Wanted { mac: wanted.mac, ..Wanted::default() },
            Wanted { ipv4: Some(network().ipv4.gateway), ..Wanted::default() },
            Wanted { mac: Some(network().gateway_mac()), ..Wanted::default() },
        ] {
            let error = join(&mut leases, "b", again).unwrap_err();
            assert!(matches!(error, Error::Taken { .. }), "{error}");
        }
        let outside = Wanted { ipv4: Some(Ipv4Addr::new(10, 0, 0, 8)), ..Wanted::default() };
        assert!(join(&mut leases, "b", outside).unwrap_err().to_string().contains("within"));
    }

    proptest! {
        #[test]
        fn the_next_free_number_is_free(first in 1_u128..10, len in 0_u128..20, previous in 0_u128..40,
            used in proptest::collection::hash_set(1_u128..32, 0..32)) {
            let last = first + len;
            match next_free(first, last, previous, &used) {
                Some(found) => prop_assert!((first..=last).contains(&found) && !used.contains(&found)),
                None => prop_assert!((first..=last).all(|n| used.contains(&n))),
            }
        }
    }
}
