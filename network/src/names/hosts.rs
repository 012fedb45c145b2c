//! The text of a container's /etc/hosts, as Docker writes it.

use std::{fmt::Write, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::is_host_name;

/// Most `--add-host` entries of a container.
pub const MAX_EXTRA: usize = 1024;

/// Docker's word for the address of the host as the container sees it.
const HOST_GATEWAY: &str = "host-gateway";

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
/// What Debian's file has, too.
const IPV6: &str =
    "fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// An entry of `--add-host`. Text form: `name:address`, `name=address`, `name:host-gateway`; IPv6 addresses may be in
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; `None`: the host's, which is the gateway of the container's network.
    pub address: Option<IpAddr>,
}

/// Why a file can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostsError {
    /// No name, or no address.
    #[error("invalid host {0:?}: expected name:address, or name:host-gateway")]
    Form(String),
    /// Not a name.
    #[error("invalid host name {0:?}: expected letters, digits, hyphens, underscores and dots, 253 at most")]
    Name(String),
    /// Not an address.
    #[error("invalid IP address {0:?}: expected one such as 192.0.2.1 or 2001:db8::1, or host-gateway")]
    Address(String),
    /// There is no gateway.
    #[error("{0} can't lead to host-gateway: the container's network has no gateway")]
    NoGateway(String),
    /// More than [`MAX_EXTRA`].
    #[error("{0} extra hosts are too many: {MAX_EXTRA} at most")]
    TooMany(usize),
}

impl FromStr for ExtraHost {
    type Err = HostsError;

    fn from_str(text: &str) -> Result<Self, HostsError> {
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .ok_or_else(|| HostsError::Form(text.into()))?;
        if name.is_empty() || address.is_empty() {
            return Err(HostsError::Form(text.into()));
        }
        if !is_host_name(name) {
            return Err(HostsError::Name(name.into()));
        }
        let address = match address {
            HOST_GATEWAY => None,
            text => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                Some(bare.parse().map_err(|_| HostsError::Address(text.into()))?)
            }
        };
        Ok(Self { name: name.into(), address })
    }
}

/// The file's text.
///
/// `hostname` leads to `addresses`, the container's own, or to loopback when it has none. A name with dots is there
/// without its domain, too. `gateways` are what `host-gateway` stands for, one per family at most.
///
/// # Errors
/// When a name is none, or a gateway is asked for where there is none.
pub fn text(
    hostname: &str,
    addresses: &[IpAddr],
    extra: &[ExtraHost],
    gateways: &[IpAddr],
) -> Result<String, HostsError> {
    if !is_host_name(hostname) {
        return Err(HostsError::Name(hostname.into()));
    }
    if extra.len() > MAX_EXTRA {
        return Err(HostsError::TooMany(extra.len()));
    }
    let mut text = format!("{LOOPBACK}{IPV6}");
    let mut line = |address: &IpAddr, names: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{address}\t{names}");
    };
    for host in extra {
        if !is_host_name(&host.name) {
            return Err(HostsError::Name(host.name.clone()));
        }
        match &host.address {
            Some(address) => line(address, &host.name),
            None if gateways.is_empty() => return Err(HostsError::NoGateway(host.name.clone())),
            None => gateways.iter().for_each(|gateway| line(gateway, &host.name)),
        }
    }
    let own = match hostname.split_once('.') {
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.to_owned(),
    };
    let loopback = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
    let addresses = if addresses.is_empty() { &loopback[..] } else { addresses };
    addresses.iter().for_each(|address| line(address, &own));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn extra(texts: &[&str]) -> Vec<ExtraHost> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_whole_file() {
        let extra = extra(&["db:10.0.0.9", "host.docker.internal:host-gateway"]);
        let gateways = [ip("172.30.0.1"), ip("fd00::1")];
        let text = text("web.example", &[ip("172.30.0.2"), ip("fd00::2")], &extra, &gateways).unwrap();
        let expected = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\nfe00:: ip6-localnet\n\
                        ff00:: ip6-mcastprefix\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n10.0.0.9 db\n\
                        172.30.0.1 host.docker.internal\nfd00::1 host.docker.internal\n172.30.0.2 web.example web\n\
                        fd00::2 web.example web\n";
        assert_eq!(text.replace('\t', " "), expected);
    }

    #[test]
    fn without_a_network_the_own_name_is_loopback() {
        let lines = text("abc", &[], &[], &[]).unwrap();
        assert!(lines.ends_with("127.0.0.1\tabc\n::1\tabc\n"), "{lines}");
    }

    #[test]
    fn extra_hosts() {
        for (text, name, address) in [
            ("a:1.2.3.4", "a", Some("1.2.3.4")),
            ("a=1.2.3.4", "a", Some("1.2.3.4")),
            ("a:::1", "a", Some("::1")),
            ("a:[::1]", "a", Some("::1")),
            ("a=2001:db8::1", "a", Some("2001:db8::1")),
            ("my_host.x:host-gateway", "my_host.x", None),
        ] {
            let parsed: ExtraHost = text.parse().unwrap();
            assert_eq!((parsed.name.as_str(), parsed.address), (name, address.map(ip)), "{text}");
        }
        for (text, part) in [
            ("a", "name:address"),
            (":1.2.3.4", "name:address"),
            ("a:", "name:address"),
            ("a b:1.2.3.4", "host name \"a b\""),
            ("a:1.2.3", "IP address \"1.2.3\""),
            ("a:1.2.3.4\n5.6.7.8 b", "IP address"),
        ] {
            let error = text.parse::<ExtraHost>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_can_not_be_written_is_refused() {
        let gateway = extra(&["a:host-gateway"]);
        assert_eq!(text("h", &[], &gateway, &[]), Err(HostsError::NoGateway("a".into())));
        assert!(matches!(text("h\n1.2.3.4 x", &[], &[], &[]), Err(HostsError::Name(_))));
        assert_eq!(text("h", &[], &vec![gateway[0].clone(); 1025], &[]), Err(HostsError::TooMany(1025)));
    }

    proptest! {
        #[test]
        fn an_entry_is_one_line_or_refused(entry in "[a-z.]{0,6}[:=][0-9a-f.:\\[\\]]{0,12}|.{0,30}") {
            if let Ok(host) = entry.parse::<ExtraHost>() {
                let with = text("h", &[], &[host], &[ip("10.0.0.1")]).unwrap();
                let without = text("h", &[], &[], &[]).unwrap();
                prop_assert_eq!(with.lines().count(), without.lines().count() + 1);
            }
        }
    }
}
