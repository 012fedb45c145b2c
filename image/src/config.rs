//! Typed access to what an image's configuration says of how to run it.

use std::{collections::BTreeMap, fmt};

use oci_spec::image::ImageConfiguration;

/// Transport protocol of an exposed port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// A port that the image says it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExposedPort {
    /// Port number.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// An image's defaults for running a container, with absent and empty fields made one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Program and first arguments; empty if none is set.
    pub entrypoint: Vec<String>,
    /// Arguments appended to the entry point, or program and arguments if there is no entry point.
    pub cmd: Vec<String>,
    /// `NAME=VALUE` lines.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, ... as written; `None` means root.
    pub user: Option<String>,
    /// Working directory; `None` means `/`.
    pub working_dir: Option<String>,
    /// Signal that asks the container to stop, by name or number; `None` means SIGTERM.
    pub stop_signal: Option<String>,
    /// Paths declared as volumes, sorted.
    pub volumes: Vec<String>,
    /// Ports declared, sorted. Ones that don't parse are left out.
    pub exposed_ports: Vec<ExposedPort>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Defaults {
    /// Takes the defaults out of a configuration.
    pub fn from_config(config: &ImageConfiguration) -> Self {
        let Some(config) = config.config() else {
            return Self::default();
        };
        let text = |field: &Option<String>| field.clone().filter(|t| !t.is_empty());
        let list = |field: &Option<Vec<String>>| field.clone().unwrap_or_default();
        let mut volumes = list(config.volumes());
        volumes.sort();
        let mut exposed_ports: Vec<ExposedPort> =
            list(config.exposed_ports()).iter().filter_map(|port| ExposedPort::parse(port)).collect();
        exposed_ports.sort();
        exposed_ports.dedup();
        Self {
            entrypoint: list(config.entrypoint()),
            cmd: list(config.cmd()),
            env: list(config.env()),
            user: text(config.user()),
            working_dir: text(config.working_dir()),
            stop_signal: text(config.stop_signal()),
            volumes,
            exposed_ports,
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        }
    }
}

impl ExposedPort {
    /// Reads `80`, `80/tcp` or `53/udp`.
    fn parse(text: &str) -> Option<Self> {
        let (port, transport) = text.split_once('/').unwrap_or((text, "tcp"));
        let transport = match transport.to_ascii_lowercase().as_str() {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            _ => return None,
        };
        let port = port.parse().ok().filter(|&port| port != 0)?;
        Some(Self { port, transport })
    }
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        };
        write!(f, "{}/{transport}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(json: &str) -> Defaults {
        Defaults::from_config(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn absent_null_and_empty_are_the_same() {
        let none =
            defaults(r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#);
        assert_eq!(none, Defaults::default());
        let nulls = defaults(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Entrypoint":null,"Cmd":null,"Env":null,"User":"","WorkingDir":"","StopSignal":"",
                "Volumes":null,"ExposedPorts":null,"Labels":null,"OnBuild":null,"ArgsEscaped":true}}"#,
        );
        assert_eq!(nulls, Defaults::default());
    }

    #[test]
    fn everything_is_taken() {
        let all = defaults(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Entrypoint":["/e"],"Cmd":["a","b"],"Env":["PATH=/bin"],"User":"redis:1","WorkingDir":"/data",
                "StopSignal":"SIGINT","Volumes":{"/v":{},"/data":{}},"Labels":{"k":"v"},
                "ExposedPorts":{"6379/tcp":{},"53/udp":{},"80":{},"0/tcp":{},"99999":{},"x":{},"1/ip":{}}}}"#,
        );
        assert_eq!(all.entrypoint, ["/e"]);
        assert_eq!(all.cmd, ["a", "b"]);
        assert_eq!(all.env, ["PATH=/bin"]);
        assert_eq!(all.user.as_deref(), Some("redis:1"));
        assert_eq!(all.working_dir.as_deref(), Some("/data"));
        assert_eq!(all.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(all.volumes, ["/data", "/v"]);
        assert_eq!(all.labels["k"], "v");
        let ports: Vec<_> = all.exposed_ports.iter().map(|p| (p.port, p.transport)).collect();
        assert_eq!(ports, [(53, Transport::Udp), (80, Transport::Tcp), (6379, Transport::Tcp)]);
    }
}
