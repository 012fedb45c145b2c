//! The `PORTS` column of `ps`.

use std::{collections::BTreeMap, net::IpAddr};

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// The port inside the container.
    pub(crate) private: u16,
    /// Where it is published on the host; exposed ports have no address.
    pub(crate) public: Option<(IpAddr, u16)>,
    /// `tcp`, `udp` or `sctp`
    pub(crate) protocol: String,
}

/// Ports as `ps` shows them: `0.0.0.0:8080->80/tcp, 90/udp`. Ports in a row that have the same number on both
/// sides are one range: `0.0.0.0:8000-8010->8000-8010/tcp`.
pub(crate) fn ports(ports: &[Port]) -> String {
    let mut sorted: Vec<&Port> = ports.iter().collect();
    sorted.sort_by_key(|port| (port.private, port.public, &port.protocol));
    let mut shown = Vec::new();
    let mut mapped = Vec::new();
    // The order of the groups, and for each the range that may still grow.
    let mut order: Vec<(Option<IpAddr>, &str)> = Vec::new();
    let mut open: BTreeMap<(Option<IpAddr>, &str), (u16, u16)> = BTreeMap::new();
    for port in sorted {
        let (private, protocol) = (port.private, port.protocol.as_str());
        match port.public {
            Some((ip, public)) if public != private => {
                mapped.push(format!("{ip}:{public}->{private}/{protocol}"));
                continue;
            }
            _ => {}
        }
        let group = (port.public.map(|(ip, _)| ip), protocol);
        match open.get_mut(&group) {
            None => {
                order.push(group);
                open.insert(group, (private, private));
            }
            Some((_, last)) if last.checked_add(1) == Some(private) => *last = private,
            Some(range) => {
                shown.push(range_text(group, *range));
                *range = (private, private);
            }
        }
    }
    shown.extend(order.iter().map(|group| range_text(*group, open[group])));
    shown.append(&mut mapped);
    shown.join(", ")
}

fn range_text((ip, protocol): (Option<IpAddr>, &str), (first, last): (u16, u16)) -> String {
    let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match ip {
        Some(ip) => format!("{ip}:{range}->{range}/{protocol}"),
        None => format!("{range}/{protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `80/tcp`, or `1.2.3.4|8080|80/tcp`
    fn parse(text: &str) -> Port {
        let (numbers, protocol) = text.split_once('/').unwrap();
        let parts: Vec<&str> = numbers.split('|').collect();
        let public = (parts.len() == 3).then(|| (parts[0].parse().unwrap(), parts[1].parse().unwrap()));
        Port { private: parts[parts.len() - 1].parse().unwrap(), public, protocol: protocol.into() }
    }

    #[test]
    fn columns() {
        for (given, shown) in [
            (&[][..], ""),
            (&["9988/tcp"], "9988/tcp"),
            (&["0.0.0.0|0|9988/tcp"], "0.0.0.0:0->9988/tcp"),
            (&["4.3.2.1|8899|9988/tcp"], "4.3.2.1:8899->9988/tcp"),
            (&["4.3.2.1|9988|9988/tcp"], "4.3.2.1:9988->9988/tcp"),
            (&["9988/udp", "9988/udp"], "9988/udp, 9988/udp"),
            (&["0.0.0.0|8080|80/tcp", "::|8080|80/tcp"], "0.0.0.0:8080->80/tcp, :::8080->80/tcp"),
            (&["1.2.3.4|9998|9998/udp", "1.2.3.4|9999|9999/udp"], "1.2.3.4:9998-9999->9998-9999/udp"),
            (
                &["1.2.3.4|8887|9998/udp", "1.2.3.4|8888|9999/udp"],
                "1.2.3.4:8887->9998/udp, 1.2.3.4:8888->9999/udp",
            ),
            (&["9999/udp", "9998/udp"], "9998-9999/udp"),
            (&["80/tcp", "82/tcp", "83/tcp"], "80/tcp, 82-83/tcp"),
            (&["1.2.3.4|7766|6677/tcp", "9988/udp"], "9988/udp, 1.2.3.4:7766->6677/tcp"),
            (
                &["1.2.3.4|8899|9988/udp", "1.2.3.4|8899|9988/tcp", "4.3.2.1|3322|2233/tcp"],
                "4.3.2.1:3322->2233/tcp, 1.2.3.4:8899->9988/tcp, 1.2.3.4:8899->9988/udp",
            ),
            (
                &["80/tcp", "1024/tcp", "80/udp", "1024/udp", "1.1.1.1|1024|1024/tcp"],
                "80/tcp, 80/udp, 1024/tcp, 1024/udp, 1.1.1.1:1024->1024/tcp",
            ),
            (&["65535/tcp", "65535/tcp"], "65535/tcp, 65535/tcp"),
        ] {
            let given: Vec<Port> = given.iter().map(|text| parse(text)).collect();
            assert_eq!(ports(&given), shown, "{given:?}");
        }
    }
}
