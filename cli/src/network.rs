//! The options of `husk run` that are about the network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use anyhow::{Context, bail};
use clap::Args;
use husk_base::Mac;
use husk_network::{
    definition::DEFAULT_NETWORK,
    names::{hosts::ExtraHost, resolvers::DnsOptions},
    publish::{PortRequest, spec},
};
use husk_sandbox::network::{BucketConfig, NetworkMode, NetworkOptions, NetworkWish, RateLimit};

/// A limit's bucket is filled so often; it holds what may pass in that time.
const REFILL_MS: u64 = 100;

#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkArgs {
    /// Connect to a network [default: default]: its name, none, container:NAME to share that container's, cni:NAME for
    /// CNI's, or ns:PATH to take over a network namespace; also name=NETWORK with any of alias=, ip=, ip6=,
    /// mac-address=, rx= and tx=. Can be repeated
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<NetworkArg>,
    /// Publish a port, as in 8080:80, 127.0.0.1:8080:80/udp or 8000-8010:80
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT", value_parser = parse_ports)]
    publish: Vec<Ports>,
    /// Publish all ports that the image exposes, on ports that are free
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Address on the first network
    #[arg(long, value_name = "IPV4")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address on the first network
    #[arg(long, value_name = "IPV6")]
    ip6: Option<Ipv6Addr>,
    /// Ethernet address on the first network
    #[arg(long, value_name = "MAC")]
    mac_address: Option<Mac>,
    /// Another name on the first network
    #[arg(long, value_name = "NAME")]
    network_alias: Vec<String>,
    /// Ask this name server
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Look short names up in this domain; "." for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts; host-gateway stands for the host
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<ExtraHost>,
}

impl NetworkArgs {
    /// What is asked for.
    ///
    /// # Errors
    /// When options contradict each other.
    pub(crate) fn options(&self, has_hostname: bool) -> anyhow::Result<NetworkOptions> {
        let mode = self.mode()?;
        if let NetworkMode::Container(_) = mode {
            let conflicts = [
                ("--publish", !self.publish.is_empty() || self.publish_all),
                ("--hostname", has_hostname),
                ("--dns", self.has_dns()),
                ("--add-host", !self.add_host.is_empty()),
            ];
            if let Some((option, _)) = conflicts.into_iter().find(|(_, given)| *given) {
                bail!("{option} can't be used with --network container:NAME: say it for that container");
            }
        }
        Ok(NetworkOptions {
            mode,
            publish: self.publish.iter().flat_map(|ports| ports.0.clone()).collect(),
            publish_all: self.publish_all,
            dns: DnsOptions {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            extra_hosts: self.add_host.clone(),
        })
    }

    /// Whether nobody asked for anything in particular.
    pub(crate) fn is_default(&self) -> bool {
        self.network.is_empty() && self.publish.is_empty() && !self.publish_all && !self.has_addresses()
    }

    fn mode(&self) -> anyhow::Result<NetworkMode> {
        let (mut wishes, mut cni) = (Vec::new(), Vec::new());
        for arg in &self.network {
            match arg {
                NetworkArg::Wish(wish) => wishes.push(wish.clone()),
                NetworkArg::Alone(mode) => {
                    if self.network.len() > 1 {
                        bail!("--network none, container: and ns: can't be combined with other networks");
                    }
                    return self.without_wishes(mode.clone());
                }
                NetworkArg::Cni(name) => cni.push(name.clone()),
            }
        }
        if !cni.is_empty() {
            if !wishes.is_empty() {
                bail!("networks of CNI and husk's own can't be combined");
            }
            return self.without_wishes(NetworkMode::Cni(cni));
        }
        if wishes.is_empty() {
            wishes.push(NetworkWish { network: DEFAULT_NETWORK.into(), ..Default::default() });
        }
        let first = &mut wishes[0];
        first.ip = first.ip.or(self.ip);
        first.ip6 = first.ip6.or(self.ip6);
        first.mac = first.mac.or(self.mac_address);
        first.aliases.extend(self.network_alias.iter().cloned());
        Ok(NetworkMode::Networks(wishes))
    }

    fn without_wishes(&self, mode: NetworkMode) -> anyhow::Result<NetworkMode> {
        if self.has_addresses() {
            bail!("addresses and aliases can be chosen on networks of husk's own only");
        }
        Ok(mode)
    }

    fn has_addresses(&self) -> bool {
        self.ip.is_some()
            || self.ip6.is_some()
            || self.mac_address.is_some()
            || !self.network_alias.is_empty()
    }

    fn has_dns(&self) -> bool {
        !self.dns.is_empty() || !self.dns_search.is_empty() || !self.dns_option.is_empty()
    }
}

/// One `--publish`, which may mean several ports.
#[derive(Debug, Clone)]
struct Ports(Vec<PortRequest>);

fn parse_ports(text: &str) -> Result<Ports, spec::SpecError> {
    spec::parse(text).map(Ports)
}

/// One `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NetworkArg {
    /// What excludes all others.
    Alone(NetworkMode),
    /// A network of CNI's.
    Cni(String),
    /// A network of husk's own.
    Wish(NetworkWish),
}

impl FromStr for NetworkArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text.contains('=') {
            return parse_wish(text).map(Self::Wish);
        }
        match text.split_once(':') {
            Some(("container", name)) if !name.is_empty() => {
                Ok(Self::Alone(NetworkMode::Container(name.into())))
            }
            Some(("cni", name)) if !name.is_empty() => Ok(Self::Cni(name.into())),
            Some(("ns", path)) if path.starts_with('/') => {
                Ok(Self::Alone(NetworkMode::Namespace(path.into())))
            }
            Some(_) => bail!("expected a network's name, none, container:NAME, cni:NAME, or ns:/PATH"),
            None => match text {
                "none" => Ok(Self::Alone(NetworkMode::None)),
                "host" => bail!(
                    "a container in a virtual machine can't use the host's own network stack: publish ports with -p instead"
                ),
                "" => bail!("expected a network's name"),
                // Docker's name for the network of those who name none.
                "bridge" => Ok(wish_for(DEFAULT_NETWORK)),
                name => Ok(wish_for(name)),
            },
        }
    }
}

fn wish_for(network: &str) -> NetworkArg {
    NetworkArg::Wish(NetworkWish { network: network.into(), ..Default::default() })
}

/// Docker's long form: `name=web,alias=db,ip=10.1.2.3`.
fn parse_wish(text: &str) -> anyhow::Result<NetworkWish> {
    let mut wish = NetworkWish::default();
    for pair in text.split(',') {
        let (key, value) =
            pair.split_once('=').with_context(|| format!("expected KEY=VALUE, not {pair:?}"))?;
        match key {
            "name" => wish.network = value.into(),
            "alias" => wish.aliases.push(value.into()),
            "ip" => wish.ip = Some(value.parse().with_context(|| format!("{value:?} is no IPv4 address"))?),
            "ip6" => wish.ip6 = Some(value.parse().with_context(|| format!("{value:?} is no IPv6 address"))?),
            "mac-address" => wish.mac = Some(value.parse()?),
            "rx" => wish.limit_rx = parse_rate(value)?,
            "tx" => wish.limit_tx = parse_rate(value)?,
            _ => bail!("{key:?} is none of name, alias, ip, ip6, mac-address, rx and tx"),
        }
    }
    if wish.network.is_empty() {
        bail!("expected name=NETWORK among them");
    }
    Ok(wish)
}

/// Bits per second, as in `10mbit`: tc's units.
fn parse_rate(text: &str) -> anyhow::Result<RateLimit> {
    let expected =
        || format!("{text:?} is no rate: expected bits per second, as in 500kbit, 10mbit or 1gbit");
    let lower = text.to_ascii_lowercase();
    let (number, scale) = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)]
        .into_iter()
        .find_map(|(unit, scale)| Some((lower.strip_suffix(unit)?.to_owned(), scale)))
        .with_context(expected)?;
    let bits = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    let bytes =
        bits.map(|bits| bits / 8 * REFILL_MS / 1000).filter(|bytes| *bytes > 0).with_context(expected)?;
    let bucket = BucketConfig { size: bytes, refill_ms: REFILL_MS, burst: 0 };
    let limit = RateLimit { bytes: Some(bucket), ops: None };
    limit.validate().with_context(expected)?;
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        network: NetworkArgs,
    }

    fn options(line: &[&str]) -> anyhow::Result<NetworkOptions> {
        Line::try_parse_from([&["x"], line].concat())?.network.options(false)
    }

    fn wishes(line: &[&str]) -> Vec<NetworkWish> {
        match options(line).unwrap().mode {
            NetworkMode::Networks(wishes) => wishes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_default_network_is_the_default() {
        assert_eq!(wishes(&[])[0].network, "default");
        assert_eq!(wishes(&["--net", "bridge", "--ip", "10.1.2.3"])[0].ip, Some([10, 1, 2, 3].into()));
        assert_eq!(options(&["--network", "none"]).unwrap().mode, NetworkMode::None);
        assert_eq!(
            options(&["--network", "container:web"]).unwrap().mode,
            NetworkMode::Container("web".into())
        );
    }

    #[test]
    fn several_networks_have_options_each() {
        let long = "name=back,alias=db,alias=sql,ip=10.1.2.3,mac-address=02:00:00:00:00:01,rx=8mbit,tx=1gbit";
        let wishes = wishes(&["--network", "front", "--network", long, "--network-alias", "www"]);
        assert_eq!(wishes[0].aliases, ["www"]);
        assert_eq!(wishes[1].network, "back");
        assert_eq!(wishes[1].aliases, ["db", "sql"]);
        assert_eq!(wishes[1].limit_rx.bytes.unwrap().size, 100_000);
        assert_eq!(wishes[1].limit_tx.bytes.unwrap().size, 12_500_000);
    }

    #[test]
    fn others_networks_have_prefixes() {
        let mode = options(&["--network", "cni:a", "--network", "cni:b"]).unwrap().mode;
        assert_eq!(mode, NetworkMode::Cni(vec!["a".into(), "b".into()]));
        let mode = options(&["--network", "ns:/run/netns/x"]).unwrap().mode;
        assert_eq!(mode, NetworkMode::Namespace("/run/netns/x".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            &["--network", "host"][..],
            &["--network", ""],
            &["--network", "container:"],
            &["--network", "host:x"],
            &["--network", "ns:relative"],
            &["--network", "cni:a", "--network", "b"],
            &["--network", "cni:a", "--ip", "10.0.0.1"],
            &["--network", "ns:/a", "--network", "cni:b"],
            &["--network", "none", "--network", "a"],
            &["--network", "none", "--ip", "10.1.2.3"],
            &["--network", "container:a", "-p", "80"],
            &["--network", "container:a", "--dns", "10.0.0.1"],
            &["--network", "alias=x"],
            &["--network", "name=a,colour=red"],
            &["--network", "name=a,ip=1"],
            &["--network", "name=a,rx=10"],
            &["--network", "name=a,rx=1bit"],
            &["--network", "name=a,tx=99999999999999gbit"],
            &["-p", "80:80:80:80"],
            &["-p", "0"],
            &["--ip", "::1"],
            &["--mac-address", "x"],
            &["--add-host", "x"],
            &["--dns", "example.com"],
        ] {
            assert!(options(bad).is_err(), "{bad:?}");
        }
    }
}
