//! Tests in network namespaces of their own: real bridges, taps, rules and traffic. They need root.

mod attach;
mod flood;
mod guest;
mod namespace;
mod repair;
mod rules;
mod spoof;
mod store;
mod traffic;

use std::net::Ipv4Addr;

use crate::{
    AttachRequest, Networks,
    publish::{PortMapping, PortProtocol},
};

/// Networks in a directory of the test's own.
fn networks() -> (tempfile::TempDir, Networks) {
    let dir = tempfile::tempdir().unwrap();
    let networks = Networks::open(&dir.path().join("state"), &dir.path().join("run")).unwrap();
    (dir, networks)
}

fn sandbox_id(number: u32) -> String {
    format!("{number:06x}aaaaaaaaaaaaaaaaaaaaaaaaaa")
}

fn request(network: &str, number: u32) -> AttachRequest {
    AttachRequest {
        network: network.into(),
        sandbox_id: sandbox_id(number),
        interface: "eth0".into(),
        default_route: true,
        ..AttachRequest::default()
    }
}

fn port(
    host_ip: Option<Ipv4Addr>,
    host_port: u16,
    container_port: u16,
    protocol: PortProtocol,
) -> PortMapping {
    PortMapping { host_ip: host_ip.map(Into::into), host_port, container_port, protocol }
}

fn everybody(_: &str) -> bool {
    true
}
