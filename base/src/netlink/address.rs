//! IP addresses in messages.

use std::net::IpAddr;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The number of an address's family.
pub const fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// An address's bytes, as an attribute has them.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// Reads an attribute's bytes, whose number tells the family. `None`: they are of another one.
pub fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_others_are_refused() {
        for (text, number) in [("10.0.0.1", 2), ("fe80::1", 10)] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!((family(ip), read_ip(&octets(ip))), (number, Some(ip)));
        }
        assert_eq!(read_ip(&[0; 6]), None);
    }
}
