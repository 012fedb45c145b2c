//! Ethernet addresses.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// An Ethernet address that an interface can have: not zero, not a group's. As text six pairs of hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// A text or bytes are not the Ethernet address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The text is not an address.
    #[error("{0:?} is not a MAC address: write it like 02:00:00:00:00:01")]
    Form(String),
    /// The address is zero.
    #[error("the MAC address 00:00:00:00:00:00 can't be an interface's: no byte is set")]
    Zero,
    /// The address is a group's.
    #[error("the MAC address {} can't be an interface's: it is a group's (its first byte is odd)", text(*.0))]
    Group([u8; 6]),
}

impl Mac {
    /// The address of these bytes.
    ///
    /// # Errors
    /// When no interface can have it.
    pub fn new(octets: [u8; 6]) -> Result<Self, MacError> {
        if octets == [0; 6] {
            return Err(MacError::Zero);
        }
        if octets[0] & 1 != 0 {
            return Err(MacError::Group(octets));
        }
        Ok(Self(octets))
    }

    /// A locally administered address: 02, then these five bytes.
    pub const fn local(rest: [u8; 5]) -> Self {
        let [a, b, c, d, e] = rest;
        Self([2, a, b, c, d, e])
    }

    /// The address's bytes.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The link-local IPv6 address that Linux gives to an interface with this address (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let pair = |high, low| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
    }
}

fn text(octets: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = octets;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&text(self.0))
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        text(mac.0)
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        Self::new(octets(text)?)
    }
}

/// The bytes of any Ethernet address, also of one that no interface can have.
///
/// # Errors
/// When the text is not six pairs of hexadecimal digits with colons or dashes in between.
pub fn octets(text: &str) -> Result<[u8; 6], MacError> {
    let form = || MacError::Form(text.into());
    let mut octets = [0; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut octets {
        let part = parts.next().ok_or_else(form)?;
        if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(form());
        }
        *octet = u8::from_str_radix(part, 16).map_err(|_| form())?;
    }
    if parts.next().is_some() { Err(form()) } else { Ok(octets) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_of_another_form_are_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "0200:00:00:00:01",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "02:00:00:00:00:+1",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(MacError::Form(text.into())));
        }
    }

    #[test]
    fn addresses_that_no_interface_can_have_are_refused() {
        assert_eq!("00:00:00:00:00:00".parse::<Mac>(), Err(MacError::Zero));
        let error = "01:00:5e:00:00:01".parse::<Mac>().unwrap_err();
        assert_eq!(error, MacError::Group([1, 0, 0x5e, 0, 0, 1]));
        assert!(error.to_string().contains("01:00:5e:00:00:01"), "{error}");
        assert!(serde_json::from_str::<Mac>(r#""ff:ff:ff:ff:ff:ff""#).is_err());
    }

    #[test]
    fn both_separators_and_both_cases_are_read() {
        let mac = Mac::new([2, 0, 0x5e, 0xab, 0, 0xff]).unwrap();
        for text in ["02:00:5e:ab:00:ff", "02-00-5E-AB-00-FF"] {
            assert_eq!(text.parse(), Ok(mac));
            assert_eq!(octets(text), Ok(mac.octets()));
        }
        assert_eq!(octets("01:00:5e:00:00:01"), Ok([1, 0, 0x5e, 0, 0, 1]));
        assert_eq!(serde_json::to_string(&mac).unwrap(), r#""02:00:5e:ab:00:ff""#);
    }

    #[test]
    fn local_addresses_are_those_with_the_second_bit() {}

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
        fn text_and_back(octets: [u8; 6]) {
            if let Ok(mac) = Mac::new(octets) {
                prop_assert_eq!(mac.to_string().parse(), Ok(mac));
                prop_assert_eq!(mac.octets(), octets);
            } else {
                prop_assert!(octets[0] & 1 == 1 || octets == [0; 6]);
            }
        }
    }
}
