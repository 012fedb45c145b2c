//! Ethernet addresses.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// An Ethernet address that an interface can have: not zero, not a group's. As text six pairs of hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The address's bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address that no other has for whom these five bytes differ.
    pub(crate) fn local(rest: [u8; 5]) -> Self {
        let [a, b, c, d, e] = rest;
        Self([2, a, b, c, d, e])
    }

    /// The address that belongs to an IPv4 address of a network whose id begins with `salt`.
    pub(crate) fn of(salt: u8, address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self::local([salt, a, b, c, d])
    }

    /// The link-local IPv6 address that Linux gives to an interface with this address (RFC 4291, appendix A).
    pub(crate) fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unusable = |why: &str| Error::unusable("MAC address", format!("{text:?}"), why);
        let form = || unusable("write it like 02:00:00:00:00:01");
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part =
                parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(form)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        if octets == [0; 6] {
            return Err(unusable("no interface has it"));
        }
        if octets[0] & 1 != 0 {
            return Err(unusable("it is a group's address (its first byte is odd)"));
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_that_no_interface_can_have_are_refused() {
        for text in ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "0200:00:00:00:01", "02:00:00:00:00:0g"] {
            assert!(text.parse::<Mac>().unwrap_err().to_string().contains("write it like"), "{text}");
        }
        assert!("00:00:00:00:00:00".parse::<Mac>().is_err());
        assert!("01:00:5e:00:00:01".parse::<Mac>().is_err());
        assert!("+2:00:00:00:00:01".parse::<Mac>().is_err());
    }

    #[test]
    fn the_link_local_address_is_linuxs() {
        let mac: Mac = "02:fc:00:00:00:01".parse().unwrap();
        assert_eq!(mac.link_local(), "fe80::fc:ff:fe00:1".parse::<Ipv6Addr>().unwrap());
    }

    proptest! {
        #[test]
        fn any_text_can_be_tried(text in ".{0,24}") {
            let _ = text.parse::<Mac>();
        }

        #[test]
        fn text_and_back(rest: [u8; 5]) {
            let mac = Mac::local(rest);
            prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        }
    }
}
