//! Which name servers containers ask: the host's, as far as they can be reached from elsewhere, or those the user names.

use std::{
    fmt::Write,
    fs::File,
    io::{self, Read},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::is_host_name;

/// Where the guest's own resolver answers.
pub const GUEST_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The host's configuration (resolv.conf(5)).
const SYSTEM: &str = "/etc/resolv.conf";
/// What systemd-resolved, which listens on loopback, forwards to (systemd-resolved.service(8)).
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

const MAX_FILE: u64 = 64 * 1024;
const MAX_SERVERS: usize = 16;
const MAX_SEARCH: usize = 32;
const MAX_OPTIONS: usize = 32;
const MAX_OPTION: usize = 64;

/// Contents of a resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Addresses of servers, in order.
    pub servers: Vec<IpAddr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Options, as in "ndots:1".
    pub options: Vec<String>,
}

/// What the user wishes: `--dns`, `--dns-search`, `--dns-option`. Each list that is not empty replaces the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsOptions {
    /// Addresses of servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; "." alone: none.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// What containers get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolvers {
    /// For /etc/resolv.conf, or to be asked by the guest's resolver. Its servers can be reached from a container.
    pub conf: ResolvConf,
    /// Servers that only the host can reach: those on its loopback address, when `conf` has no servers for want of
    /// others. Names don't resolve then, and the user should be told so and of `--dns`: husk does not send names to
    /// servers that nobody chose.
    pub host_only: Vec<IpAddr>,
}

/// Why a wish is refused.
#[derive(Debug, thiserror::Error)]
pub enum ResolversError {
    /// Not a domain.
    #[error("invalid search domain {0:?}: expected a name such as example.com, or a single dot for none")]
    Search(String),
    /// Not an option of resolv.conf.
    #[error("invalid resolver option {0:?}: expected one of resolv.conf's, such as ndots:1")]
    Option(String),
    /// Longer than any resolver would read.
    #[error("{count} {what} are too many: {most} at most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there can be.
        most: usize,
    },
    /// The host's configuration can't be read. That there is none is no error.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What containers get on this host.
///
/// # Errors
/// When the user's wishes are invalid, or the host's configuration exists but can't be read.
pub fn for_containers(wishes: &DnsOptions) -> Result<Resolvers, ResolversError> {
    resolve(wishes, Path::new(SYSTEM), Path::new(BEHIND_RESOLVED))
}

fn resolve(wishes: &DnsOptions, system: &Path, behind_resolved: &Path) -> Result<Resolvers, ResolversError> {
    wishes.check()?;
    let host = ResolvConf::read(system)?;
    let (mut servers, mut host_only) = (wishes.servers.clone(), Vec::new());
    if servers.is_empty() {
        let all = host.servers;
        servers = all.iter().copied().filter(reachable).collect();
        if servers.is_empty() && all.iter().any(is_loopback) {
            servers = ResolvConf::read(behind_resolved)?.servers.into_iter().filter(reachable).collect();
            if servers.is_empty() {
                host_only = all.into_iter().filter(is_loopback).map(loopback_itself).collect();
            }
        }
    }
    let search = match wishes.search.as_slice() {
        [] => host.search,
        [dot] if dot == "." => Vec::new(),
        wished => wished.to_vec(),
    };
    let options = if wishes.options.is_empty() { host.options } else { wishes.options.clone() };
    Ok(Resolvers { conf: ResolvConf { servers, search, options }, host_only })
}

impl DnsOptions {
    fn check(&self) -> Result<(), ResolversError> {
        let bad = |name: &&String| *name != "." && !is_domain(name);
        if let Some(bad) = self.search.iter().find(bad) {
            return Err(ResolversError::Search(bad.clone()));
        }
        if let Some(bad) = self.options.iter().find(|option| !is_option(option)) {
            return Err(ResolversError::Option(bad.clone()));
        }
        for (what, count, most) in [
            ("DNS servers", self.servers.len(), MAX_SERVERS),
            ("search domains", self.search.len(), MAX_SEARCH),
            ("resolver options", self.options.len(), MAX_OPTIONS),
        ] {
            if count > most {
                return Err(ResolversError::TooMany { what, count, most });
            }
        }
        Ok(())
    }
}

impl ResolvConf {
    /// What a container on a network with names of its own gets: it asks the guest's resolver, which asks the servers of
    /// `self`. Names without a dot are tried as they are first, for a container's name is one.
    #[must_use]
    pub fn behind_guest_resolver(&self) -> Self {
        let mut options = self.options.clone();
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
        Self { servers: vec![GUEST_RESOLVER], search: self.search.clone(), options }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            // Writing to a string can't fail.
            let _ = writeln!(text, "nameserver {server}");
        }
        for (word, list) in [("search", &self.search), ("options", &self.options)] {
            if !list.is_empty() {
                let _ = writeln!(text, "{word} {}", list.join(" "));
            }
        }
        text
    }

    fn read(path: &Path) -> Result<Self, ResolversError> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)) {
            Ok(_) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ResolversError::Read { path: path.into(), source }),
        }
    }

    /// By the rules of resolv.conf(5): the last of several search lists counts, options add up, what is not understood is
    /// ignored. Addresses with a scope are left out, since the scope is an interface of the host's.
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("domain") => conf.search = domains(words.take(1)),
                Some("search") => conf.search = domains(words),
                Some("options") => {
                    conf.options.extend(words.filter(|word| is_option(word)).map(Into::into));
                    conf.options.truncate(MAX_OPTIONS);
                }
                _ => {}
            }
            conf.servers.truncate(MAX_SERVERS);
        }
        conf
    }
}

fn domains<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.filter(|word| is_domain(word)).take(MAX_SEARCH).map(Into::into).collect()
}

fn is_domain(name: &str) -> bool {
    is_host_name(name.strip_suffix('.').unwrap_or(name))
}

fn is_option(option: &str) -> bool {
    (1..=MAX_OPTION).contains(&option.len())
        && option.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte))
}

fn reachable(ip: &IpAddr) -> bool {
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !is_loopback(ip) && !link_local && !ip.is_multicast()
}

/// The unspecified address means the host itself, too (resolv.conf(5)).
fn is_loopback(ip: &IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

fn loopback_itself(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// `None`: no such file.
    fn on_host(wishes: &DnsOptions, system: Option<&str>, behind: Option<&str>) -> Resolvers {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["system", "behind"].map(|name| dir.path().join(name));
        for (path, text) in [(&one, system), (&two, behind)] {
            if let Some(text) = text {
                std::fs::write(path, text).unwrap();
            }
        }
        resolve(wishes, &one, &two).unwrap()
    }

    #[test]
    fn the_hosts_configuration_is_taken_over() {
        let text = "# comment\n; comment\nnameserver 192.168.1.1\nnameserver\t2001:db8::1 # x\nnameserver fe80::1%eth0\n\
                    nameserver fe80::1\nnameserver dns.example\ndomain old.example\nsearch a.example b.example. bad..name\n\
                    options ndots:2 rotate\noptions edns0 b\u{e4}d\nsortlist 10.0.0.0\n";
        let conf = on_host(&DnsOptions::default(), Some(text), None).conf;
        assert_eq!(
            conf.text(),
            "nameserver 192.168.1.1\nnameserver 2001:db8::1\nsearch a.example b.example.\noptions ndots:2 rotate edns0\n"
        );
        assert_eq!(
            conf.behind_guest_resolver().text(),
            "nameserver 127.0.0.11\nsearch a.example b.example.\noptions ndots:2 rotate edns0\n"
        );
    }

    #[test]
    fn systemd_resolved_is_looked_behind() {
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        let got = on_host(&DnsOptions::default(), Some(stub), Some("nameserver 10.0.0.1\nsearch other\n"));
        assert_eq!(got.conf.servers, ips(&["10.0.0.1"]));
        assert_eq!((got.conf.search.as_slice(), got.host_only), (&["lan".to_owned()][..], vec![]));
    }

    #[test]
    fn loopback_servers_are_used_only_when_there_are_no_others() {
        let both = "nameserver 127.0.0.1\nnameserver 10.0.0.1\n";
        let got = on_host(&DnsOptions::default(), Some(both), Some("nameserver 10.0.0.2\n"));
        assert_eq!((got.conf.servers, got.host_only), (ips(&["10.0.0.1"]), vec![]));

        let local = "nameserver 127.0.0.1\nnameserver ::1\nnameserver 0.0.0.0\n";
        for behind in [None, Some("nameserver 127.0.0.1\n")] {
            let got = on_host(&DnsOptions::default(), Some(local), behind);
            assert_eq!((got.conf.servers, got.host_only), (vec![], ips(&["127.0.0.1", "::1", "127.0.0.1"])));
        }
    }

    #[test]
    fn without_servers_none_are_invented() {
        for system in [None, Some(""), Some("nameserver fe80::1%eth0\n")] {
            let got = on_host(&DnsOptions::default(), system, Some("nameserver 10.0.0.1\n"));
            assert_eq!(got, Resolvers::default(), "{system:?}");
        }
    }

    #[test]
    fn the_users_wishes_replace_the_hosts() {
        let host = "nameserver 127.0.0.53\nsearch lan\noptions rotate\n";
        let mut wishes = DnsOptions {
            servers: ips(&["9.9.9.9"]),
            search: vec![".".into()],
            options: vec!["ndots:3".into()],
        };
        let got = on_host(&wishes, Some(host), Some("nameserver 10.0.0.1\n"));
        assert_eq!(got.conf.text(), "nameserver 9.9.9.9\noptions ndots:3\n");
        assert!(got.host_only.is_empty());
        wishes.search = vec!["a b".into()];
        assert!(for_containers(&wishes).unwrap_err().to_string().contains("search domain \"a b\""));
        wishes.search = vec!["a".into(); MAX_SEARCH + 1];
        assert!(for_containers(&wishes).unwrap_err().to_string().contains("33 search domains are too many"));
        wishes.options = vec!["a\nnameserver 1.1.1.1".into()];
        assert!(for_containers(&wishes).unwrap_err().to_string().contains("resolver option"));
    }

    proptest! {
        #[test]
        fn what_comes_out_is_bounded_and_reads_back(
            text in "((nameserver|search|domain|options|#)[ \\t][ -~\\t]{0,60}\\n|.{0,20}\\n){0,60}"
        ) {
            let conf = ResolvConf::parse(&text);
            prop_assert!(conf.servers.len() <= MAX_SERVERS && conf.search.len() <= MAX_SEARCH);
            prop_assert!(conf.options.len() <= MAX_OPTIONS);
            prop_assert_eq!(ResolvConf::parse(&conf.text()), conf);
        }
    }
}
