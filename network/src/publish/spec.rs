//! `-p/--publish` in all of Docker's forms, and `-P/--publish-all`.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use super::PortProtocol;

/// Which port of the host is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPort {
    /// One of the system's choice.
    Any,
    /// The first of these that is free; mostly there is just one.
    FirstOf(RangeInclusive<u16>),
}

/// A wish for one port of the container to be published. Text form: `[address:][host port]:container port/protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Address of the host; `None`: all of them, of both families.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub host_port: HostPort,
    /// Port of the container.
    pub container_port: u16,
    /// Which protocol's ports they are.
    pub protocol: PortProtocol,
}

/// Why a port specification is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// There is nothing after the last colon.
    #[error("no container port in {0:?}: expected [[address:]host port:]container port[/protocol]")]
    NoContainerPort(String),
    /// Neither a port nor a range.
    #[error(
        "invalid {side} port {text:?}: expected a number from 1 to 65535, or a range of them such as 8000-8010"
    )]
    Port {
        /// "host" or "container".
        side: &'static str,
        /// What was given.
        text: String,
    },
    /// Not an IP address.
    #[error("invalid IP address {0:?}: expected one such as 127.0.0.1 or [::1]")]
    Address(String),
    /// A protocol that has ports, but not here.
    #[error("SCTP ports can't be published: only TCP and UDP can")]
    Sctp,
    /// No such protocol.
    #[error("invalid protocol {0:?}: expected tcp or udp")]
    Protocol(String),
    /// Ranges that can't be paired.
    #[error("ranges of different lengths: {host} of the host for {container} of the container")]
    Ranges {
        /// The host's.
        host: String,
        /// The container's.
        container: String,
    },
}

/// Reads one `-p` value, which is several wishes when it names a range of container ports.
///
/// As Docker has it: ranges of equal length are paired, a range of host ports for one container port means its first
/// free one, and an absent or zero host port means any.
///
/// # Errors
/// Says which part is wrong.
pub fn parse(text: &str) -> Result<Vec<PortRequest>, SpecError> {
    let (host, container) = text.rsplit_once(':').unwrap_or(("", text));
    let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));

    let protocol = parse_protocol(protocol)?;
    if container.is_empty() {
        return Err(SpecError::NoContainerPort(text.into()));
    }
    let wrong = |side, text: &str| SpecError::Port { side, text: text.into() };
    let ports = parse_range(container).ok_or_else(|| wrong("container", container))?;
    let host_ip = if address.is_empty() { None } else { Some(parse_address(address)?) };
    let host_ports = match host {
        "" | "0" => None,
        range => Some(parse_range(range).ok_or_else(|| wrong("host", range))?),
    };
    let host_port: Box<dyn Fn(u16) -> HostPort> = match host_ports {
        None => Box::new(|_| HostPort::Any),
        Some(range) if range.len() == ports.len() => {
            let (first, first_host) = (*ports.start(), *range.start());
            Box::new(move |port| {
                let host = first_host + (port - first);
                HostPort::FirstOf(host..=host)
            })
        }
        Some(range) if ports.len() == 1 => Box::new(move |_| HostPort::FirstOf(range.clone())),
        Some(_) => return Err(SpecError::Ranges { host: host.into(), container: container.into() }),
    };
    Ok(ports
        .map(|port| PortRequest { host_ip, host_port: host_port(port), container_port: port, protocol })
        .collect())
}

/// The wishes that `-P` adds: any port of the host for each port that the image exposes ("80/tcp") and that no `-p`
/// names. What can't be published (SCTP, and what is no port at all) is left out: an image is not the user's doing.
pub fn publish_all<'a>(
    exposed: impl IntoIterator<Item = &'a str>,
    requested: &[PortRequest],
) -> Vec<PortRequest> {
    let mut all: Vec<PortRequest> = Vec::new();
    for request in exposed.into_iter().filter(|text| !text.contains(':')).flat_map(parse).flatten() {
        let same = |other: &PortRequest| {
            (other.container_port, other.protocol) == (request.container_port, request.protocol)
        };
        if all.len() < super::bind::MAX_PORTS && !requested.iter().chain(&all).any(same) {
            all.push(request);
        }
    }
    all
}

fn parse_protocol(text: &str) -> Result<PortProtocol, SpecError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Err(SpecError::Sctp),
        _ => Err(SpecError::Protocol(text.into())),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, SpecError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    IpAddr::from_str(bare).map(|ip| ip.to_canonical()).map_err(|_| SpecError::Address(text.into()))
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = parse_port(first)?..=parse_port(last)?;
    (!range.is_empty()).then_some(range)
}

fn parse_port(text: &str) -> Option<u16> {
    // `from_str` would take a plus sign, too.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port != 0)
}

impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        match &self.host_port {
            HostPort::Any if self.host_ip.is_none() => {}
            HostPort::Any => f.write_str(":")?,
            HostPort::FirstOf(range) if range.start() == range.end() => write!(f, "{}:", range.start())?,
            HostPort::FirstOf(range) => write!(f, "{}-{}:", range.start(), range.end())?,
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<String> {
        parse(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dockers_forms() {
        for (text, expected) in [
            ("80", "80/tcp"),
            (":80", "80/tcp"),
            ("0:80", "80/tcp"),
            ("80/udp", "80/udp"),
            ("80/", "80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("8080:80/TCP", "8080:80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080:80/udp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("127.0.0.1:0:80", "127.0.0.1::80/tcp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("::1:8080:80", "[::1]:8080:80/tcp"),
            ("[::]::53/udp", "[::]::53/udp"),
            ("[::ffff:127.0.0.1]:8080:80", "127.0.0.1:8080:80/tcp"),
            ("8000-8010:80", "8000-8010:80/tcp"),
            ("8000-8000:80-80", "8000:80/tcp"),
        ] {
            assert_eq!(texts(text), [expected], "{text}");
        }
        assert_eq!(texts("80-82/udp"), ["80/udp", "81/udp", "82/udp"]);
        assert_eq!(texts("0.0.0.0::80-81"), ["0.0.0.0::80/tcp", "0.0.0.0::81/tcp"]);
        assert_eq!(texts("8000-8002:90-92"), ["8000:90/tcp", "8001:91/tcp", "8002:92/tcp"]);
        assert_eq!(parse("65535").unwrap()[0].host_port, HostPort::Any);
        assert_eq!(parse("1-65535").unwrap().len(), 65535);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "no container port"),
            ("8080:", "no container port"),
            ("8080:/udp", "no container port"),
            ("0", "container port \"0\""),
            ("65536", "container port \"65536\""),
            ("+80", "container port \"+80\""),
            ("8080:x", "container port \"x\""),
            ("82-80", "container port \"82-80\""),
            ("80-", "container port \"80-\""),
            ("80-81-82", "container port \"80-81-82\""),
            ("127.0.0.1:80", "host port \"127.0.0.1\""),
            ("8080/udp:80", "host port \"8080/udp\""),
            ("0-10:80", "host port \"0-10\""),
            ("localhost:8080:80", "IP address \"localhost\""),
            ("[::1:8080:80", "IP address \"[::1\""),
            ("[fe80::1%eth0]:8080:80", "IP address \"[fe80::1%eth0]\""),
            ("80/sctp", "SCTP"),
            ("80/icmp", "protocol \"icmp\""),
            ("80/tcp/udp", "protocol \"tcp/udp\""),
            ("8000-8010:80-82", "different lengths"),
            ("8000:80-82", "different lengths"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn publish_all_adds_what_is_not_named_yet() {
        let named = parse("8080:80").unwrap();
        let exposed = ["80/tcp", "53/udp", "53/tcp", "53", "9/sctp", "x", "1:2/tcp", "7000-7001"];
        let all: Vec<_> = publish_all(exposed, &named).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["53/udp", "53/tcp", "7000/tcp", "7001/tcp"]);
    }

    fn request() -> impl Strategy<Value = PortRequest> {
        let host_port = prop_oneof![
            Just(HostPort::Any),
            (1..=u16::MAX, 0..100_u16)
                .prop_map(|(first, more)| HostPort::FirstOf(first..=first.saturating_add(more))),
        ];
        let ip = any::<Option<IpAddr>>().prop_map(|ip| ip.map(|ip| ip.to_canonical()));
        (ip, host_port, 1..=u16::MAX, prop_oneof![Just(PortProtocol::Tcp), Just(PortProtocol::Udp)]).prop_map(
            |(host_ip, host_port, container_port, protocol)| PortRequest {
                host_ip,
                host_port,
                container_port,
                protocol,
            },
        )
    }

    proptest! {
        #[test]
        fn text_and_request_are_the_same(request in request()) {
            prop_assert_eq!(parse(&request.to_string()), Ok(vec![request]));
        }

        #[test]
        fn no_text_is_too_much(text in "[0-9:/\\[\\].a-f%+-]{0,40}|.{0,40}") {
            for request in parse(&text).into_iter().flatten().take(3) {
                prop_assert_eq!(parse(&request.to_string()), Ok(vec![request]));
            }
        }
    }
}
