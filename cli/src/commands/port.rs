//! `husk port`

use std::net::SocketAddr;

use anyhow::bail;
use husk_network::publish::PortMapping;
use husk_sandbox::{paths::Dirs, store::Store};

use crate::{
    args::{Format, PortArgs},
    facts, output,
};

pub(crate) fn run(dirs: &Dirs, args: &PortArgs) -> anyhow::Result<u8> {
    let store = Store::open(dirs)?;
    let mut ports = store.get(&store.find(&args.container)?)?.state.ports;
    if let Some(wanted) = &args.private_port {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        ports.retain(|port| {
            port.container_port.to_string() == number && port.protocol.to_string() == protocol
        });
        if ports.is_empty() {
            bail!("No public port '{number}/{protocol}' published for {}", args.container);
        }
    }
    if args.format == Format::Json {
        output::print_json(&ports)?;
        return Ok(0);
    }
    output::print(&lines(ports, args.private_port.is_some()))?;
    Ok(0)
}

/// `80/tcp -> 0.0.0.0:8080`, or where the one port leads to alone.
fn lines(mut ports: Vec<PortMapping>, addresses_alone: bool) -> String {
    ports.sort_by_key(|port| (port.container_port, port.protocol.to_string()));
    let mut text = String::new();
    for port in ports {
        for address in facts::host_addresses(&port) {
            let to = SocketAddr::new(address, port.host_port);
            text += &match addresses_alone {
                true => format!("{to}\n"),
                false => format!("{}/{} -> {to}\n", port.container_port, port.protocol),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use husk_network::publish::PortProtocol;

    use super::*;

    #[test]
    fn lines_are_dockers() {
        let port = |host_ip: Option<&str>, host_port, container_port, protocol| PortMapping {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port,
            protocol,
        };
        let ports = vec![
            port(None, 8080, 80, PortProtocol::Tcp),
            port(Some("127.0.0.1"), 5353, 53, PortProtocol::Udp),
        ];
        assert_eq!(
            lines(ports.clone(), false),
            "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
        );
        assert_eq!(lines(ports[..1].to_vec(), true), "0.0.0.0:8080\n[::]:8080\n");
    }
}
