//! What lists and descriptions say of a container, from its record.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::Path,
};

use husk_network::publish::PortMapping;
use husk_sandbox::{
    network::NetworkMode,
    spec,
    store::{Config, Record, Store},
};

use crate::ports::Port;

/// The program with its arguments.
pub(crate) fn command_line(config: &Config) -> Vec<String> {
    let (entrypoint, cmd) = spec::command(&config.image_config, &config.options);
    [entrypoint, cmd].concat()
}

/// Docker's word for where a container is connected to.
pub(crate) fn network_mode(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::None => "none".into(),
        NetworkMode::Container(owner) => format!("container:{owner}"),
        NetworkMode::Networks(wishes) => {
            wishes.first().map_or_else(|| "none".into(), |wish| wish.network.clone())
        }
        NetworkMode::Cni(names) => format!("cni:{}", names.join(",")),
        NetworkMode::Namespace(path) => format!("ns:{}", path.display()),
        NetworkMode::Pasta(_) => "pasta".into(),
    }
}

/// Names and ids of a container's networks. Ids are known only while it runs.
pub(crate) fn networks(record: &Record) -> Vec<(String, String)> {
    if !record.state.endpoints.is_empty() {
        let named = |endpoint: &husk_sandbox::network::Endpoint| {
            let name = if endpoint.network.is_empty() { &endpoint.interface } else { &endpoint.network };
            (name.clone(), endpoint.network_id.clone())
        };
        return record.state.endpoints.iter().map(named).collect();
    }
    let names = match &record.config.network.options.mode {
        NetworkMode::Networks(wishes) => wishes.iter().map(|wish| wish.network.clone()).collect(),
        NetworkMode::Cni(names) => names.clone(),
        mode => vec![network_mode(mode)],
    };
    names.into_iter().map(|name| (name, String::new())).collect()
}

/// The addresses of the host on which a port is published.
pub(crate) fn host_addresses(port: &PortMapping) -> Vec<IpAddr> {
    match port.host_ip {
        Some(address) => vec![address],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// A container's ports that its image exposes, as `80` and `tcp`. What is not a port is left out.
pub(crate) fn exposed_ports(config: &Config) -> impl Iterator<Item = (u16, &str)> {
    config.image_config.exposed_ports.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some((port.parse().ok()?, protocol))
    })
}

/// The ports of a container that runs: those that are published, and those that are only exposed.
pub(crate) fn ports(record: &Record) -> Vec<Port> {
    if !record.state.status.needs_supervisor() {
        return Vec::new();
    }
    let published = &record.state.ports;
    let mut ports: Vec<Port> = published
        .iter()
        .flat_map(|port| {
            let port_on = |address| Port {
                private: port.container_port,
                public: Some((address, port.host_port)),
                protocol: port.protocol.to_string(),
            };
            host_addresses(port).into_iter().map(port_on)
        })
        .collect();
    for (private, protocol) in exposed_ports(&record.config) {
        let same =
            |port: &PortMapping| port.container_port == private && port.protocol.to_string() == protocol;
        if !published.iter().any(same) {
            ports.push(Port { private, public: None, protocol: protocol.to_owned() });
        }
    }
    ports
}

/// Bytes of a container: what it has written, and its image's unpacked disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) written: u64,
    pub(crate) image: u64,
}

/// What a container takes on the host's disk.
pub(crate) fn size(store: &Store, config: &Config) -> Size {
    let on_disk = |path: &Path| on_disk(path).unwrap_or_default();
    Size { written: on_disk(&store.scratch(&config.id)), image: on_disk(&config.image.disk) }
}

/// The bytes that all files of a directory take.
pub(crate) fn directory_size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| on_disk(&entry.path()).unwrap_or_default()).sum()
}

/// The bytes that a file takes; of a sparse one, what is really there.
fn on_disk(path: &Path) -> io::Result<u64> {
    Ok(fs::symlink_metadata(path)?.blocks() * 512)
}

#[cfg(test)]
pub(crate) mod tests {
    use husk_network::publish::PortProtocol;
    use husk_sandbox::{
        container::{ContainerOptions, ImageConfig},
        network::{Endpoint, NetworkOptions, NetworkPlan, NetworkWish},
        store::{ImageInfo, RestartPolicy, State, Status, Timestamp, VERSION},
    };

    use super::*;

    /// A container that runs, with a published port and one that is only exposed.
    pub(crate) fn record() -> Record {
        let id = "0123456789ab".repeat(6)[..64].to_owned();
        let mode = NetworkMode::Networks(vec![NetworkWish {
            network: "back".into(),
            aliases: vec!["db".into()],
            ..NetworkWish::default()
        }]);
        let plan = NetworkPlan::none("web");
        let config = Config {
            version: VERSION,
            name: "web".into(),
            created: Timestamp(1_700_000_000_123_456_789),
            image: ImageInfo {
                name: "nginx".into(),
                id: format!("sha256:{}", "f".repeat(64)),
                disk: "/nowhere".into(),
            },
            image_config: ImageConfig {
                entrypoint: vec!["/entry".into()],
                cmd: vec!["serve".into(), "-v".into()],
                env: vec!["PATH=/bin".into(), "A=image".into()],
                exposed_ports: vec!["80/tcp".into(), "443".into()],
                ..ImageConfig::default()
            },
            options: ContainerOptions {
                env: vec!["A=user".into()],
                memory_bytes: Some(64 << 20),
                milli_cpus: Some(1500),
                labels: vec![("tier".into(), "front".into())],
                ..ContainerOptions::default()
            },
            network: NetworkPlan { options: NetworkOptions { mode, ..plan.options }, ..plan },
            restart: RestartPolicy::OnFailure(Some(3)),
            log: Default::default(),
            auto_remove: false,
            storage_mib: 1024,
            timeout_s: 30,
            kernel: None,
            id: id.clone(),
        };
        let state = State {
            status: Status::Running,
            pod: id,
            pid: 42,
            started: Timestamp(1_700_000_001_000_000_000),
            endpoints: vec![Endpoint {
                network: "back".into(),
                network_id: "abcd".into(),
                interface: "eth0".into(),
                mac: "02:00:00:00:00:01".into(),
                addresses: vec!["10.1.2.3/24".parse().unwrap(), "fd00::3/64".parse().unwrap()],
                gateways: vec!["10.1.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            }],
            ports: vec![PortMapping {
                host_ip: None,
                host_port: 8080,
                container_port: 80,
                protocol: PortProtocol::Tcp,
            }],
            ..State::default()
        };
        Record { config, state }
    }

    #[test]
    fn published_ports_hide_that_they_are_exposed() {
        let mut record = record();
        let shown = crate::ports::ports(&ports(&record));
        assert_eq!(shown, "443/tcp, 0.0.0.0:8080->80/tcp, :::8080->80/tcp");
        record.state.status = Status::Exited;
        assert_eq!(ports(&record), []);
    }

    #[test]
    fn networks_are_known_before_the_start() {
        let mut record = record();
        assert_eq!(networks(&record), [("back".to_owned(), "abcd".to_owned())]);
        record.state.endpoints.clear();
        assert_eq!(networks(&record), [("back".to_owned(), String::new())]);
        record.config.network.options.mode = NetworkMode::None;
        assert_eq!(networks(&record), [("none".to_owned(), String::new())]);
    }

    #[test]
    fn the_command_is_the_entry_points() {
        assert_eq!(command_line(&record().config), ["/entry", "serve", "-v"]);
    }
}
