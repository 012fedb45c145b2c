//! The OCI spec of a pod's sandbox, made from what Kubernetes says of the pod: such as containerd's CRI plugin makes it for a pause
//! container. So pods that are made either way are planned alike.

use std::collections::HashMap;

use containerd_shim_protos::protobuf::{Message, well_known_types::any::Any};
use husk_protocol::cri::{LinuxContainerResources, NamespaceMode, PodSandboxConfig};
use husk_sandbox::oci::plan;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::error::Error;

/// The type of the options that containerd's CRI plugin gives.
const CONFIG: &str = "runtime.v1.PodSandboxConfig";
/// Annotations of the pod that are meant for husk begin so.
const OURS: &str = "io.husk.";
/// What the CRI plugin lets containers without privileges do by its defaults (`enable_unprivileged_ports`,
/// `enable_unprivileged_icmp`), which it does not tell the shim.
const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Reads what Kubernetes says of a pod. One that it gives no name is named by its id, as far as that is a name.
///
/// # Errors
/// When it is something else.
pub(crate) fn config(options: &Any, id: &str) -> Result<PodSandboxConfig, Error> {
    if options.type_url.rsplit('/').next() != Some(CONFIG) {
        return Err(Error::invalid(format!(
            "the sandbox's options are {:?}: {CONFIG} is known",
            options.type_url
        )));
    }
    let mut config = PodSandboxConfig::parse_from_bytes(&options.value)
        .map_err(|error| Error::invalid(format!("the sandbox's options are malformed: {error}")))?;
    if config.hostname.is_empty() {
        config.hostname = id.chars().take(plan::MAX_HOSTNAME).collect();
    }
    Ok(config)
}

/// The spec of the sandbox `id` whose network is the namespace `netns`; without one it is the host's.
///
/// # Errors
/// When it can't be made, which does not happen.
pub(crate) fn of_sandbox(id: &str, config: &PodSandboxConfig, netns: &str) -> Result<Spec, Error> {
    let modes = &config.linux.security_context.namespace_options;
    let of_host = |mode: NamespaceMode| mode == NamespaceMode::NODE;
    let mut namespaces = vec![json!({ "type": "mount" }), json!({ "type": "uts" })];
    if !of_host(modes.network.enum_value_or_default()) && !netns.is_empty() {
        namespaces.push(json!({ "type": "network", "path": netns }));
    }
    if !of_host(modes.pid.enum_value_or_default()) {
        namespaces.push(json!({ "type": "pid" }));
    }
    if !of_host(modes.ipc.enum_value_or_default()) {
        namespaces.push(json!({ "type": "ipc" }));
    }
    let mut sysctls: HashMap<&str, &str> = SYSCTLS.into();
    sysctls.extend(config.linux.sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let mut linux = json!({ "namespaces": namespaces, "sysctl": sysctls });
    if let Some(cgroup) = cgroup(&config.linux.cgroup_parent, id) {
        linux["cgroupsPath"] = cgroup.into();
    }
    let spec = json!({
        "ociVersion": "1.1.0", "hostname": config.hostname, "linux": linux, "annotations": annotations(config),
    });
    serde_json::from_value(spec).map_err(|error| Error::invalid(error.to_string()))
}

fn annotations(config: &PodSandboxConfig) -> HashMap<String, Value> {
    let ours = config.annotations.iter().filter(|(name, _)| name.starts_with(OURS));
    let mut all: HashMap<String, Value> =
        ours.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    if let Some(resources) = config.linux.resources.as_ref() {
        let LinuxContainerResources { cpu_period, cpu_quota, cpu_shares, memory_limit_in_bytes, .. } =
            resources;
        for (name, number) in [
            (plan::CPU_PERIOD, cpu_period),
            (plan::CPU_QUOTA, cpu_quota),
            (plan::CPU_SHARES, cpu_shares),
            (plan::MEMORY, memory_limit_in_bytes),
        ] {
            all.insert(name.to_owned(), number.to_string().into());
        }
    }
    all
}

/// The sandbox's cgroup in its pod's, as the CRI plugin names it: by systemd's way if the pod's is a slice.
fn cgroup(parent: &str, id: &str) -> Option<String> {
    let name = parent.trim_end_matches('/').rsplit('/').next()?;
    if parent.is_empty() {
        None
    } else if name.ends_with(".slice") {
        Some(format!("{name}:cri-containerd:{id}"))
    } else {
        Some(format!("{}/{id}", parent.trim_end_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use husk_protocol::cri::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption};
    use husk_sandbox::{
        config::PodDefaults,
        oci::{host_namespaces, netns::Network},
    };
    use proptest::prelude::*;

    use super::*;

    fn linux() -> LinuxPodSandboxConfig {
        LinuxPodSandboxConfig { cgroup_parent: "/kubepods/pod1".into(), ..Default::default() }
    }

    fn with_linux(linux: LinuxPodSandboxConfig) -> PodSandboxConfig {
        PodSandboxConfig { hostname: "web-0".into(), linux: Some(linux).into(), ..Default::default() }
    }

    fn spec(config: &PodSandboxConfig) -> Spec {
        of_sandbox("p1", config, "/run/netns/x").unwrap()
    }

    #[test]
    fn a_pod_is_planned_as_with_a_pause_container() {
        let resources = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 250_000,
            memory_limit_in_bytes: 1 << 30,
            ..Default::default()
        };
        let mut config = with_linux(LinuxPodSandboxConfig { resources: Some(resources).into(), ..linux() });
        let of =
            |config: &PodSandboxConfig| plan::plan("p1", &spec(config), &PodDefaults::default()).unwrap();
        let plan = of(&config);
        assert_eq!((plan.vcpus, plan.mem_size_mib, plan.hostname.as_str()), (3, 1120, "web-0"));
        assert_eq!(plan.network, Network::Namespace("/run/netns/x".into()));
        assert_eq!(plan.cgroup.as_deref(), Some("kubepods/pod1/p1".as_ref()));
        host_namespaces::refuse(&spec(&config)).unwrap();

        config.annotations.insert("io.husk.vcpus".into(), "2".into());
        // The plugin's own are not the user's to set.
        config.annotations.insert(plan::MEMORY.into(), "1".into());
        let plan = of(&config);
        assert_eq!((plan.vcpus, plan.mem_size_mib), (2, 1120));
    }

    #[test]
    fn slices_are_named_as_systemd_does() {
        assert_eq!(
            cgroup("/kubepods.slice/kubepods-pod1.slice", "p1").unwrap(),
            "kubepods-pod1.slice:cri-containerd:p1"
        );
        assert_eq!(cgroup("/kubepods/pod1/", "p1").unwrap(), "/kubepods/pod1/p1");
        assert_eq!(cgroup("", "p1"), None);
    }

    #[test]
    fn the_nodes_own_namespaces_are_refused() {
        const NODE: NamespaceMode = NamespaceMode::NODE;
        let with = |change: fn(&mut NamespaceOption)| {
            let mut options = NamespaceOption::default();
            change(&mut options);
            let context =
                LinuxSandboxSecurityContext { namespace_options: Some(options).into(), ..Default::default() };
            spec(&with_linux(LinuxPodSandboxConfig { security_context: Some(context).into(), ..linux() }))
        };
        let refused = |spec: &Spec| host_namespaces::refuse(spec).unwrap_err().to_string();
        assert!(refused(&with(|options| options.pid = NODE.into())).contains("host's own processes"));
        assert!(refused(&with(|options| options.ipc = NODE.into())).contains("host's own IPC"));
        let planned =
            plan::plan("p1", &with(|options| options.network = NODE.into()), &PodDefaults::default());
        assert!(planned.unwrap_err().to_string().contains("host's own network"));
    }

    #[test]
    fn settings_of_the_pod_come_before_defaults() {
        let mut config = with_linux(linux());
        config.linux.as_mut().unwrap().sysctls.insert(SYSCTLS[0].0.into(), "1024".into());
        let spec = spec(&config);
        let sysctls = spec.linux().as_ref().unwrap().sysctl().as_ref().unwrap();
        assert_eq!((sysctls[SYSCTLS[0].0].as_str(), sysctls[SYSCTLS[1].0].as_str()), ("1024", SYSCTLS[1].1));
    }

    #[test]
    fn only_what_the_cri_says_is_read() {
        let any = |type_url: &str, value: &[u8]| Any {
            type_url: type_url.into(),
            value: value.to_vec(),
            ..Default::default()
        };
        let bytes = with_linux(linux()).write_to_bytes().unwrap();
        for name in [CONFIG.to_owned(), format!("type.googleapis.com/{CONFIG}")] {
            assert_eq!(config(&any(&name, &bytes), "p1").unwrap().hostname, "web-0");
        }
        assert_eq!(config(&any(CONFIG, &[]), &"x".repeat(64)).unwrap().hostname, "x".repeat(63));
        assert!(config(&any("other.Config", &bytes), "p1").is_err());
        assert!(config(&any(CONFIG, &[0xff]), "p1").is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_read_makes_a_spec(bytes: Vec<u8>, id in "[a-z0-9]{1,64}") {
            let any = Any { type_url: CONFIG.into(), value: bytes, ..Default::default() };
            if let Ok(config) = config(&any, &id) {
                let _ = plan::plan(&id, &of_sandbox(&id, &config, "").unwrap(), &PodDefaults::default());
            }
        }
    }
}
