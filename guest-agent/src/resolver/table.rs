//! The names that the resolver answers itself.

use std::{collections::HashMap, net::IpAddr};

use husk_protocol::agent::Names;

use super::wire::encode;
use crate::failure::Failure;

/// Names and addresses. Names are in lower case and without a dot at their end.
#[derive(Debug, Default)]
pub(super) struct Table {
    addresses: HashMap<String, Vec<IpAddr>>,
    /// As on the wire. Where an address has several names, it is the first that was given.
    names: HashMap<IpAddr, Vec<u8>>,
}

impl Table {
    pub(super) fn new(given: &Names) -> Result<Self, Failure> {
        let mut table = Self::default();
        for (at, given) in given.names.iter().enumerate() {
            let wire = encode(&given.name).ok_or_else(|| {
                Failure::invalid(format!("names[{at}].name is not a name: {:?}", given.name))
            })?;
            let addresses = table.addresses.entry(given.name.to_ascii_lowercase()).or_default();
            for (place, text) in given.addresses.iter().enumerate() {
                let address = text.parse().map_err(|_| {
                    Failure::invalid(format!("names[{at}].addresses[{place}] is not an IP address: {text:?}"))
                })?;
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
                table.names.entry(address).or_insert_with(|| wire.clone());
            }
        }
        Ok(table)
    }

    /// The addresses of a name in lower case; None when it is not ours.
    pub(super) fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }

    /// The name of an address, as on the wire.
    pub(super) fn name(&self, address: IpAddr) -> Option<&[u8]> {
        self.names.get(&address).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use husk_protocol::agent::Name;

    use super::*;

    fn table(names: &[(&str, &[&str])]) -> Result<Table, Failure> {
        let name = |(name, addresses): &(&str, &[&str])| Name {
            name: (*name).into(),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            ..Default::default()
        };
        Table::new(&Names { names: names.iter().map(name).collect(), ..Default::default() })
    }

    #[test]
    fn knows_names_and_addresses() {
        let table =
            table(&[("Web", &["10.0.0.2", "fd00::2"]), ("alias.x", &["10.0.0.2"]), ("web", &["10.0.0.3"])])
                .unwrap();
        let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(table.addresses("web").unwrap(), ips(&["10.0.0.2", "fd00::2", "10.0.0.3"]));
        assert_eq!(table.addresses("alias.x").unwrap(), ips(&["10.0.0.2"]));
        assert_eq!(table.addresses("x"), None);
        assert_eq!(table.name("10.0.0.2".parse().unwrap()), Some(&b"\x03Web\0"[..]));
        assert_eq!(table.name("10.0.0.9".parse().unwrap()), None);
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let message = |names: &[(&str, &[&str])]| table(names).unwrap_err().message;
        assert_eq!(message(&[("ok", &[]), ("a..b", &[])]), "names[1].name is not a name: \"a..b\"");
        assert_eq!(message(&[("ok", &["1.2.3"])]), "names[0].addresses[0] is not an IP address: \"1.2.3\"");
    }
}
