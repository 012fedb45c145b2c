//! What a plugin is told about the container.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Error, Result, config::is_name};
use crate::publish::{PortMapping, PortProtocol};

/// Longest name of an interface: `IFNAMSIZ` less its end.
const MAX_INTERFACE: usize = 15;

/// The container that joins a network, and what it asks for. What a plugin takes is up to its `capabilities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The container's id.
    pub container_id: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Name of the interface to make: `eth0`.
    pub interface: String,
    /// `CNI_ARGS`, in order.
    #[serde(default)]
    pub args: Vec<(String, String)>,
    /// Ports of the host that lead to it (capability `portMappings`).
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Limits (capability `bandwidth`).
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// Addresses that it wants (capability `ips`).
    #[serde(default)]
    pub ips: Vec<IpNet>,
    /// MAC that it wants (capability `mac`).
    #[serde(default)]
    pub mac: Option<String>,
}

/// Limits of an interface; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// To the container, in bits per second.
    pub ingress_rate: u64,
    /// In bits.
    pub ingress_burst: u64,
    /// From the container, in bits per second.
    pub egress_rate: u64,
    /// In bits.
    pub egress_burst: u64,
}

impl Runtime {
    /// A container that asks for nothing in particular.
    pub fn new(
        container_id: impl Into<String>,
        netns: impl Into<PathBuf>,
        interface: impl Into<String>,
    ) -> Self {
        Self {
            container_id: container_id.into(),
            netns: netns.into(),
            interface: interface.into(),
            args: Vec::new(),
            port_mappings: Vec::new(),
            bandwidth: None,
            ips: Vec::new(),
            mac: None,
        }
    }

    /// # Errors
    /// [`Error::Name`] for what would be taken for something else in a plugin's environment or in a path.
    pub(super) fn validate(&self) -> Result<()> {
        let bad = |what, value: &str| Err(Error::Name { what, value: value.into() });
        if !is_name(&self.container_id) {
            return bad("container id", &self.container_id);
        }
        let interface = &self.interface;
        let is_odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if interface.is_empty()
            || interface.len() > MAX_INTERFACE
            || interface == "."
            || interface == ".."
            || interface.contains(is_odd)
        {
            return bad("interface name", interface);
        }
        for text in self.args.iter().flat_map(|(key, value)| [key, value]) {
            if text.is_empty() || text.contains([';', '=', '\0']) {
                return bad("argument", text);
            }
        }
        Ok(())
    }

    /// `CNI_ARGS`.
    pub(super) fn args(&self) -> String {
        let pairs: Vec<_> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }

    /// `runtimeConfig` for a plugin with these `capabilities`.
    pub(super) fn config(&self, capabilities: Option<&Value>) -> Map<String, Value> {
        let has = |name: &str| capabilities.and_then(|all| all.get(name)).is_some_and(|value| *value == true);
        let mut config = Map::new();
        if has("portMappings") && !self.port_mappings.is_empty() {
            config.insert("portMappings".into(), self.port_mappings.iter().map(port_mapping).collect());
        }
        if let Some(bandwidth) = self.bandwidth.filter(|_| has("bandwidth")) {
            config.insert("bandwidth".into(), bandwidth_config(bandwidth));
        }
        if has("ips") && !self.ips.is_empty() {
            config.insert("ips".into(), self.ips.iter().map(|ip| json!(ip.to_string())).collect());
        }
        if let Some(mac) = self.mac.as_ref().filter(|_| has("mac")) {
            config.insert("mac".into(), json!(mac));
        }
        config
    }
}

fn port_mapping(mapping: &PortMapping) -> Value {
    let protocol = match mapping.protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
    };
    let mut value = json!({
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": protocol,
    });
    if let Some(ip) = mapping.host_ip.as_ref().map(IpAddr::to_string) {
        value["hostIP"] = json!(ip);
    }
    value
}

/// Rates that are not limited are left out: plugins refuse a burst without a rate.
fn bandwidth_config(limits: Bandwidth) -> Value {
    let mut value = json!({});
    if limits.ingress_rate > 0 {
        value["ingressRate"] = json!(limits.ingress_rate);
        value["ingressBurst"] = json!(limits.ingress_burst);
    }
    if limits.egress_rate > 0 {
        value["egressRate"] = json!(limits.egress_rate);
        value["egressBurst"] = json!(limits.egress_burst);
    }
    value
}
