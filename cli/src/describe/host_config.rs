//! The part `HostConfig`: what the user asked of the host.

use std::collections::BTreeMap;

use husk_network::publish::HostPort;
use husk_sandbox::{
    logs::Driver,
    spec,
    store::{Config, RestartPolicy},
};
use serde_json::{Map, Value, json};

use super::list;
use crate::facts;

const SHM_SIZE: u64 = 64 << 20;
/// Docker counts CPUs in billionths.
const NANO_OF_MILLI: u64 = 1_000_000;

/// What the user asked of the host. What husk does not have is as Docker has it when it is not used.
pub(super) fn host_config(config: &Config) -> Value {
    let (options, network) = (&config.options, &config.network.options);
    let texts = |items: &[std::net::IpAddr]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
    let hosts = network.extra_hosts.iter().map(|host| match host.address {
        Some(address) => format!("{}:{address}", host.name),
        None => format!("{}:host-gateway", host.name),
    });
    let mut description = json!({
        "Binds": null,
        "ContainerIDFile": "",
        "LogConfig": { "Type": driver(config.log.driver()), "Config": config.log.options() },
        "NetworkMode": facts::network_mode(&network.mode),
        "PortBindings": port_bindings(config),
        "RestartPolicy": restart_policy(config.restart),
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "CapAdd": null,
        "CapDrop": null,
        "CgroupnsMode": "private",
        "Dns": texts(&network.dns.servers),
        "DnsOptions": network.dns.options,
        "DnsSearch": network.dns.search,
        "ExtraHosts": list(&hosts.collect::<Vec<_>>()),
        "GroupAdd": null,
        "IpcMode": "private",
        "Cgroup": "",
        "Links": null,
        "OomScoreAdj": 0,
        "PidMode": "",
        "Privileged": false,
        "PublishAllPorts": network.publish_all,
        "ReadonlyRootfs": options.read_only,
        "MaskedPaths": spec::masked_paths(),
        "ReadonlyPaths": spec::readonly_paths(),
        "SecurityOpt": null,
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": SHM_SIZE,
        "Runtime": "husk",
        "Isolation": "",
        "StorageOpt": { "size": format!("{}m", config.storage_mib) },
    });
    if let Value::Object(description) = &mut description {
        description.extend(limits(config));
        if config.options.init {
            description.insert("Init".into(), true.into());
        }
        if let tmpfs @ Value::Object(_) = tmpfs(config) {
            description.insert("Tmpfs".into(), tmpfs);
        }
    }
    description
}

fn limits(config: &Config) -> Map<String, Value> {
    let memory = config.options.memory_bytes.unwrap_or_default();
    let limits = json!({
        "CpuShares": 0,
        "Memory": memory,
        "NanoCpus": config.options.milli_cpus.unwrap_or_default().saturating_mul(NANO_OF_MILLI),
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "",
        "CpusetMems": "",
        "Devices": [],
        "DeviceCgroupRules": null,
        "DeviceRequests": null,
        "MemoryReservation": 0,
        // Swap is not given to containers: memory and swap together are memory.
        "MemorySwap": memory,
        "MemorySwappiness": null,
        "OomKillDisable": null,
        "PidsLimit": null,
        "Ulimits": [],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    });
    match limits {
        Value::Object(limits) => limits,
        _ => Map::new(),
    }
}

fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::JsonFile => "json-file",
        Driver::Local => "local",
        Driver::None => "none",
    }
}

fn restart_policy(policy: RestartPolicy) -> Value {
    let (name, most) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure(most) => ("on-failure", most.unwrap_or_default()),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    json!({ "Name": name, "MaximumRetryCount": most })
}

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`
fn port_bindings(config: &Config) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &config.network.options.publish {
        let host_port = match &port.host_port {
            HostPort::Any => String::new(),
            HostPort::FirstOf(range) if range.start() == range.end() => range.start().to_string(),
            HostPort::FirstOf(range) => format!("{}-{}", range.start(), range.end()),
        };
        let host_ip = port.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let inside = format!("{}/{}", port.container_port, port.protocol);
        bindings.entry(inside).or_default().push(json!({ "HostIp": host_ip, "HostPort": host_port }));
    }
    json!(bindings)
}

/// `{"/run": "size=64m"}`; `null` without any.
fn tmpfs(config: &Config) -> Value {
    let mounts = config.options.tmpfs.iter();
    let mounts: Map<String, Value> =
        mounts.map(|tmpfs| (tmpfs.path.display().to_string(), tmpfs.options.join(",").into())).collect();
    if mounts.is_empty() { Value::Null } else { mounts.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::record;

    #[test]
    fn restart_policies_have_dockers_names() {
        for (policy, name, most) in [
            (RestartPolicy::No, "no", 0),
            (RestartPolicy::OnFailure(None), "on-failure", 0),
            (RestartPolicy::OnFailure(Some(2)), "on-failure", 2),
            (RestartPolicy::Always, "always", 0),
            (RestartPolicy::UnlessStopped, "unless-stopped", 0),
        ] {
            assert_eq!(restart_policy(policy), json!({ "Name": name, "MaximumRetryCount": most }));
        }
    }

    #[test]
    fn ports_and_mounts_are_as_the_user_asked() {
        let mut config = record().config;
        for (text, host_port) in [("8080:80", HostPort::FirstOf(8080..=8080)), ("80", HostPort::Any)] {
            let parsed = husk_network::publish::spec::parse(text).unwrap();
            assert_eq!(parsed[0].host_port, host_port);
            config.network.options.publish.extend(parsed);
        }
        config.options.tmpfs.push("/run:size=64m".parse().unwrap());
        let described = host_config(&config);
        let bindings = json!([{ "HostIp": "", "HostPort": "8080" }, { "HostIp": "", "HostPort": "" }]);
        assert_eq!(described["PortBindings"], json!({ "80/tcp": bindings }));
        assert_eq!(described["Tmpfs"], json!({ "/run": "noexec,nosuid,nodev,size=64m" }));
    }
}
