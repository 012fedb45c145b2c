//! The filters of `ps`.

use std::{collections::BTreeMap, str::FromStr};

use jiff::Timestamp;

use super::{Error, Filters};
use crate::{
    ports::Port,
    status::{Health, State},
};

const KEYS: [&str; 13] = [
    "ancestor", "before", "exited", "expose", "health", "id", "label", "name", "network", "publish", "since",
    "status", "volume",
];
const STATES: &str = "a status is one of: created, restarting, running, removing, paused, exited, dead";
const HEALTHS: &str = "a health is one of: starting, healthy, unhealthy, none";
const PORTS: &str = "expected PORT[/PROTOCOL] or FIRST-LAST[/PROTOCOL]";

/// What filters look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) created: Timestamp,
    pub(crate) state: State,
    pub(crate) health: Health,
    pub(crate) exit_code: u8,
    /// The image's names with tags or digests, as in `nginx:latest`, and those of its ancestors.
    pub(crate) images: &'a [String],
    /// The image's id, with or without `sha256:`.
    pub(crate) image_id: &'a str,
    /// Names of volumes, sources of other mounts, and the paths inside the container.
    pub(crate) mounts: &'a [String],
    /// Names and ids.
    pub(crate) networks: &'a [(String, String)],
    pub(crate) ports: &'a [Port],
}

/// Filters of containers, with valid values.
#[derive(Debug)]
pub(crate) struct ContainerFilters {
    filters: Filters,
    states: Vec<State>,
    healths: Vec<Health>,
    exit_codes: Vec<i64>,
    publish: Vec<Range>,
    expose: Vec<Range>,
}

/// Ports with their protocol.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    protocol: String,
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| match text.parse() {
            Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(()),
        };
        let range = Self { first: number(first)?, last: number(last)?, protocol: protocol.to_lowercase() };
        let valid = range.first <= range.last && ["tcp", "udp", "sctp"].contains(&range.protocol.as_str());
        if valid { Ok(range) } else { Err(()) }
    }
}

impl Range {
    fn contains(&self, port: &Port) -> bool {
        (self.first..=self.last).contains(&port.private) && self.protocol == port.protocol
    }
}

impl ContainerFilters {
    /// Parses the values of `--filter`.
    ///
    /// # Errors
    /// A filter is not `key=value`, its key is unknown, or the key does not take the value.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, Error> {
        let filters = Filters::parse(texts, &KEYS)?;
        Ok(Self {
            states: parsed(&filters, "status", STATES)?,
            healths: parsed(&filters, "health", HEALTHS)?,
            exit_codes: parsed(&filters, "exited", "expected an exit code")?,
            publish: parsed(&filters, "publish", PORTS)?,
            expose: parsed(&filters, "expose", PORTS)?,
            filters,
        })
    }

    /// A filter asks for states: containers that don't run are listed without `--all`, too.
    pub(crate) fn include_stopped(&self) -> bool {
        !self.states.is_empty()
    }

    /// The indices of the containers that match.
    ///
    /// # Errors
    /// `before` or `since` names a container that is not in the list.
    pub(crate) fn select(&self, containers: &[Container<'_>]) -> Result<Vec<usize>, Error> {
        // As in Docker, the last of several values counts.
        let moment = |key| self.filters.values(key).map(|name| created(containers, name)).last().transpose();
        let (before, since) = (moment("before")?, moment("since")?);
        let in_time = |container: &Container<'_>| {
            before.is_none_or(|moment| container.created < moment)
                && since.is_none_or(|moment| container.created > moment)
        };
        let indexed = containers.iter().enumerate();
        Ok(indexed.filter(|(_, c)| in_time(c) && self.matches(c)).map(|(index, _)| index).collect())
    }

    fn matches(&self, container: &Container<'_>) -> bool {
        let filters = &self.filters;
        let ended = matches!(container.state, State::Exited | State::Dead | State::Removing);
        (filters.matches("name", container.name) || filters.matches("name", &format!("/{}", container.name)))
            && filters.any("id", |id| container.id.starts_with(id))
            && filters.matches_labels(container.labels)
            && allows(&self.states, &container.state)
            && allows(&self.healths, &container.health)
            && (self.exit_codes.is_empty() || ended && allows(&self.exit_codes, &container.exit_code.into()))
            && filters.any("volume", |volume| container.mounts.iter().any(|mount| mount == volume))
            && filters.any("ancestor", |image| is_image(container, image))
            && filters.any("network", |network| {
                container.networks.iter().any(|(name, id)| name == network || id.starts_with(network))
            })
            && has_port(&self.publish, container.ports, |port| port.public.is_some())
            && has_port(&self.expose, container.ports, |_| true)
    }
}

fn parsed<T: FromStr>(filters: &Filters, key: &'static str, rule: &'static str) -> Result<Vec<T>, Error> {
    let parse = |value: &str| value.parse().map_err(|_| Error::Value(key, value.into(), rule));
    filters.values(key).map(parse).collect()
}

fn allows<T: PartialEq>(allowed: &[T], value: &T) -> bool {
    allowed.is_empty() || allowed.contains(value)
}

fn has_port(ranges: &[Range], ports: &[Port], test: impl Fn(&Port) -> bool) -> bool {
    let wanted = |port: &Port| test(port) && ranges.iter().any(|range| range.contains(port));
    ranges.is_empty() || ports.iter().any(wanted)
}

fn is_image(container: &Container<'_>, image: &str) -> bool {
    let hex = |id: &'_ str| id.strip_prefix("sha256:").unwrap_or(id).to_owned();
    let latest = format!("{image}:latest");
    container.images.iter().any(|name| name == image || *name == latest)
        || (!hex(image).is_empty() && hex(container.image_id).starts_with(&hex(image)))
}

/// When the container was created that has this name, or the only one whose id begins with it.
fn created(containers: &[Container<'_>], name: &str) -> Result<Timestamp, Error> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    if let Some(container) =
        containers.iter().find(|container| container.name == plain || container.id == plain)
    {
        return Ok(container.created);
    }
    let mut found =
        containers.iter().filter(|container| !plain.is_empty() && container.id.starts_with(plain));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.created),
        _ => Err(Error::NoContainer(name.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(text: &str) -> Port {
        let (private, protocol) = text.trim_end_matches('*').split_once('/').unwrap();
        let public = text.ends_with('*').then_some(([0, 0, 0, 0].into(), 32768));
        Port { private: private.parse().unwrap(), public, protocol: protocol.into() }
    }

    /// The names of the containers that match, of: web (running), db (exited), new (created).
    fn select(filters: &[&str]) -> Result<String, Error> {
        let text = |text: &str| text.to_owned();
        let labels = BTreeMap::from([(text("tier"), text("front"))]);
        let none = BTreeMap::new();
        let images = ["nginx:latest", "nginx:1.27", "postgres:16"].map(text);
        let mounts = ["data", "/var/lib/data"].map(text);
        let networks = [(text("backend"), text("cafe0123")), (text("bridge"), text("beef4567"))];
        let ports = ["80/tcp*", "8080/tcp", "53/udp*"].map(port);
        let web = Container {
            id: "aaaa1111",
            name: "web",
            labels: &labels,
            created: Timestamp::from_second(100).unwrap(),
            state: State::Running,
            health: Health::Healthy,
            exit_code: 0,
            images: &images[..2],
            image_id: "sha256:abcdef",
            mounts: &[],
            networks: &networks,
            ports: &ports,
        };
        let db = Container {
            id: "aabb2222",
            name: "db",
            labels: &none,
            created: Timestamp::from_second(200).unwrap(),
            state: State::Exited,
            health: Health::None,
            exit_code: 1,
            images: &images[2..],
            image_id: "sha256:123456",
            mounts: &mounts,
            networks: &networks[..1],
            ports: &[],
        };
        let new = Container {
            id: "cccc3333",
            name: "new",
            created: Timestamp::from_second(300).unwrap(),
            state: State::Created,
            exit_code: 0,
            mounts: &[],
            networks: &[],
            ..db
        };
        let all = [web, db, new];
        let filters: Vec<String> = filters.iter().map(|filter| text(filter)).collect();
        let selected = ContainerFilters::parse(&filters)?.select(&all)?;
        Ok(selected.into_iter().map(|index| all[index].name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn selections() {
        for (filters, names) in [
            (&[][..], "web db new"),
            (&["name=e"], "web new"),
            (&["name=^/web$"], "web"),
            (&["name=^web$", "name=^db$"], "web db"),
            (&["id=aa"], "web db"),
            (&["id=aab"], "db"),
            (&["id=1111"], ""),
            (&["label=tier"], "web"),
            (&["label=tier=back"], ""),
            (&["status=running"], "web"),
            (&["status=created", "status=exited"], "db new"),
            (&["health=healthy"], "web"),
            (&["health=none"], "db new"),
            (&["exited=1"], "db"),
            // A container that runs or has never run has no exit code.
            (&["exited=0"], ""),
            (&["ancestor=nginx"], "web"),
            (&["ancestor=nginx:1.27"], "web"),
            (&["ancestor=postgres"], ""),
            (&["ancestor=1234"], "db new"),
            (&["ancestor=sha256:abc"], "web"),
            (&["ancestor="], ""),
            (&["before=db"], "web"),
            (&["since=web"], "db new"),
            (&["since=aaaa"], "db new"),
            (&["since=web", "before=new"], "db"),
            (&["volume=data"], "db"),
            (&["volume=/var/lib/data"], "db"),
            (&["volume=/var"], ""),
            (&["network=backend"], "web db"),
            (&["network=beef"], "web"),
            (&["publish=80"], "web"),
            (&["publish=53"], ""),
            (&["publish=53/udp"], "web"),
            (&["publish=8080"], ""),
            (&["expose=8000-9000/tcp"], "web"),
            (&["name=web", "status=exited"], ""),
        ] {
            assert_eq!(select(filters).as_deref(), Ok(names), "{filters:?}");
        }
    }

    #[test]
    fn errors() {
        for (filter, text) in [
            ("status=up", "invalid filter 'status=up'"),
            ("health=good", "invalid filter 'health=good'"),
            ("exited=x", "invalid filter 'exited=x'"),
            ("publish=80:80", "invalid filter 'publish=80:80'"),
            ("publish=90-80", "invalid filter 'publish=90-80'"),
            ("expose=80/icmp", "invalid filter 'expose=80/icmp'"),
            ("expose=+80", "invalid filter 'expose=+80'"),
            ("is-task=true", "invalid filter 'is-task'"),
            ("before=nothing", "No such container: nothing"),
            // Two ids begin with it.
            ("since=aa", "No such container: aa"),
            ("since=", "No such container: "),
        ] {
            let error = select(&[filter]).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
    }

    #[test]
    fn states_include_stopped_containers() {
        let parse = |filter: &str| ContainerFilters::parse(&[filter.to_owned()]).unwrap();
        assert!(parse("status=exited").include_stopped());
        assert!(!parse("exited=1").include_stopped());
    }
}
