//! The part `NetworkSettings`.

use std::net::IpAddr;

use husk_sandbox::{
    network::{Endpoint, NetworkMode},
    store::{Config, Record},
};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::list;
use crate::facts;

/// Where a container is connected to now; its networks without addresses, when it does not run.
pub(super) fn settings(record: &Record) -> Value {
    let networks: Map<String, Value> = facts::networks(record)
        .into_iter()
        .enumerate()
        .map(|(index, (name, id))| {
            let endpoint = record.state.endpoints.get(index).cloned().unwrap_or_default();
            let description = network(&record.config, &name, &id, &endpoint);
            (name, description)
        })
        .collect();
    let first = addresses(&record.state.endpoints.first().cloned().unwrap_or_default());
    let mut settings = json!({
        "Bridge": "",
        "SandboxID": record.state.pod,
        "SandboxKey": "",
        "Ports": ports(record),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": "",
        "Networks": networks,
    });
    if let Value::Object(settings) = &mut settings {
        settings.extend(first);
    }
    settings
}

fn network(config: &Config, name: &str, id: &str, endpoint: &Endpoint) -> Value {
    let aliases = match &config.network.options.mode {
        NetworkMode::Networks(wishes) => {
            wishes.iter().find(|wish| wish.network == name).map(|wish| wish.aliases.as_slice())
        }
        _ => None,
    };
    let mut description = json!({
        "IPAMConfig": null,
        "Links": null,
        "Aliases": list(aliases.unwrap_or_default()),
        "NetworkID": id,
        "EndpointID": "",
        "DriverOpts": null,
        "DNSNames": null,
    });
    if let Value::Object(description) = &mut description {
        description.extend(addresses(endpoint));
    }
    description
}

fn addresses(endpoint: &Endpoint) -> Map<String, Value> {
    let ipv4 = endpoint.addresses.iter().find(|address| matches!(address, IpNet::V4(_)));
    let ipv6 = endpoint.addresses.iter().find(|address| matches!(address, IpNet::V6(_)));
    let gateway = |wanted: fn(&IpAddr) -> bool| {
        endpoint.gateways.iter().find(|address| wanted(address)).map(ToString::to_string).unwrap_or_default()
    };
    let text = |net: Option<&IpNet>| net.map(|net| net.addr().to_string()).unwrap_or_default();
    let length = |net: Option<&IpNet>| net.map(IpNet::prefix_len).unwrap_or_default();
    let addresses = [
        ("Gateway", json!(gateway(IpAddr::is_ipv4))),
        ("IPAddress", json!(text(ipv4))),
        ("IPPrefixLen", json!(length(ipv4))),
        ("IPv6Gateway", json!(gateway(IpAddr::is_ipv6))),
        ("GlobalIPv6Address", json!(text(ipv6))),
        ("GlobalIPv6PrefixLen", json!(length(ipv6))),
        ("MacAddress", json!(endpoint.mac)),
    ];
    addresses.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where ports are published; `null` for one that is only exposed.
fn ports(record: &Record) -> Map<String, Value> {
    let mut ports = Map::new();
    for port in facts::ports(record) {
        let places = ports.entry(format!("{}/{}", port.private, port.protocol)).or_insert(Value::Null);
        if let Some((address, public)) = port.public {
            let place = json!({ "HostIp": address, "HostPort": public.to_string() });
            match places {
                Value::Array(places) => places.push(place),
                _ => *places = json!([place]),
            }
        }
    }
    ports
}
