//! A network of husk's own.

use std::net::IpAddr;

use husk_network::{Definition, Lease};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::times;

/// A network, and the containers that are on it.
pub(crate) fn network(network: &Definition, leases: &[Lease]) -> Value {
    let created = i64::try_from(network.created_s).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    let subnet = |subnet: IpNet, gateway: IpAddr| json!({ "Subnet": subnet, "Gateway": gateway });
    let ipv4 = subnet(network.ipv4.subnet.into(), network.ipv4.gateway.into());
    let ipv6 = network.ipv6.map(|ipv6| subnet(ipv6.subnet.into(), ipv6.gateway.into()));
    let subnets: Vec<Value> = [ipv4].into_iter().chain(ipv6).collect();
    let containers: Map<String, Value> = leases
        .iter()
        .map(|lease| {
            let ipv4 = format!("{}/{}", lease.ipv4, network.ipv4.subnet.prefix_len());
            let ipv6 = lease.ipv6.zip(network.ipv6);
            let ipv6 = ipv6.map(|(address, own)| format!("{address}/{}", own.subnet.prefix_len()));
            let container = json!({
                "Name": lease.name,
                "EndpointID": "",
                "MacAddress": lease.mac,
                "IPv4Address": ipv4,
                "IPv6Address": ipv6.unwrap_or_default(),
            });
            (lease.sandbox.clone(), container)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": created.map(times::rfc3339_nano),
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.ipv6.is_some(),
        "IPAM": {
            "Driver": "default",
            "Options": null,
            "Config": subnets,
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": { "com.docker.network.driver.mtu": network.mtu.to_string() },
        "Labels": {},
    })
}
