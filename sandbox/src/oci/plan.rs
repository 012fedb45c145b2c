//! What kind of pod a container's spec asks for. Pure: nothing of the host is looked at.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::{bundle::Annotations, cgroup, error::Error, netns::Network};
use crate::{
    config::{MEMORY_ANNOTATION, PodDefaults, VCPUS_ANNOTATION},
    sizing,
};

/// An annotation of containerd's CRI plugin: the period of [`CPU_QUOTA`], in microseconds.
pub const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
/// The same: the CPU time that a pod's containers may use together in each period, in microseconds.
pub const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// The same: the CPU shares that they want together.
pub const CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
/// The same: the memory that they may use together, in bytes.
pub const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

/// Most bytes of a host name without dots (RFC 1035, section 2.3.4). Docker's ids are longer.
pub const MAX_HOSTNAME: usize = 63;

/// A pod's VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPlan {
    /// Its virtual CPUs.
    pub vcpus: u8,
    /// Its memory in MiB.
    pub mem_size_mib: u32,
    /// Its network.
    pub network: Network,
    /// Its host name.
    pub hostname: String,
    /// The cgroup that the spec names, below the root of the hierarchy.
    pub cgroup: Option<PathBuf>,
}

/// Reads a pod's plan from the spec of its first container, whose id names a pod without a name.
///
/// # Errors
/// When the spec asks for what a VM can't give, or an annotation makes no sense.
pub fn plan(id: &str, spec: &Spec, defaults: &PodDefaults) -> Result<PodPlan, Error> {
    let empty = Annotations::new();
    let annotations = spec.annotations().as_ref().unwrap_or(&empty);
    let choices = Choices { annotations, defaults };
    let cgroup = cgroup::of(spec);
    let of_all = !cgroup.as_deref().is_some_and(cgroup::is_unlimited_above);
    Ok(PodPlan {
        vcpus: vcpus(spec, &choices)?,
        mem_size_mib: mem_size_mib(spec, &choices, of_all)?,
        network: network(spec)?,
        hostname: hostname(id, spec),
        cgroup,
    })
}

struct Choices<'a> {
    annotations: &'a Annotations,
    defaults: &'a PodDefaults,
}

impl Choices<'_> {
    /// A number that the runtime gave; what is none counts as not given.
    fn number(&self, name: &str) -> Option<u64> {
        self.annotations.get(name)?.parse().ok().filter(|number| *number > 0)
    }

    /// A number that the user gave, if that is allowed.
    fn chosen(&self, name: &'static str) -> Result<Option<u64>, Error> {
        let Some(text) = self.annotations.get(name) else { return Ok(None) };
        if !self.defaults.annotations.iter().any(|allowed| allowed == name) {
            return Err(Error::AnnotationNotAllowed { name });
        }
        let wrong = || Error::AnnotationNotANumber { name, value: text.clone() };
        text.parse().ok().filter(|number| *number > 0).ok_or_else(wrong).map(Some)
    }
}

/// The spec's host name, or the host's own if it shall be that (`--uts host`), or as much of the id as is one.
fn hostname(id: &str, spec: &Spec) -> String {
    let said = spec.hostname().clone().filter(|name| !name.is_empty());
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    let own = namespaces.is_some_and(|all| all.iter().any(|one| one.typ() == LinuxNamespaceType::Uts));
    let of_host = || nix::unistd::gethostname().ok()?.into_string().ok().filter(|name| !name.is_empty());
    let said = if own { said } else { said.or_else(of_host) };
    said.unwrap_or_else(|| id.chars().take(MAX_HOSTNAME).collect())
}

fn vcpus(spec: &Spec, choices: &Choices<'_>) -> Result<u8, Error> {
    let of_pod =
        choices.number(CPU_QUOTA).map(|quota| sizing::cpus_of_quota(quota, choices.number(CPU_PERIOD)));
    let cpu = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.cpu().clone());
    let of_container = cpu.and_then(|cpu| {
        let quota = u64::try_from(cpu.quota()?).ok().filter(|quota| *quota > 0)?;
        Some(sizing::cpus_of_quota(quota, cpu.period()))
    });
    // Shares are what a pod may have at least, not at most.
    let at_least = choices.number(CPU_SHARES).map_or(0, sizing::cpus_of_shares);
    let default = u64::from(choices.defaults.vcpus).max(at_least);
    let wanted = choices.chosen(VCPUS_ANNOTATION)?.or(of_pod).or(of_container).unwrap_or(default);
    Ok(sizing::nearest_vcpus(wanted))
}

/// `of_all`: the limits that the runtime gave together are those of all containers. Of a pod where one has none they are of the others.
fn mem_size_mib(spec: &Spec, choices: &Choices<'_>, of_all: bool) -> Result<u32, Error> {
    let memory = spec.linux().as_ref().and_then(|linux| *linux.resources().as_ref()?.memory());
    let of_container =
        memory.and_then(|memory| u64::try_from(memory.limit()?).ok()).filter(|bytes| *bytes > 0);
    let default_mib = choices.defaults.mem_size_mib;
    let size = match (choices.chosen(MEMORY_ANNOTATION)?, choices.number(MEMORY), of_container) {
        (Some(mib), ..) => sizing::checked_mem_size(mib),
        (None, Some(bytes), _) if !of_all => {
            sizing::with_guest(bytes.saturating_add(u64::from(default_mib) << 20))
        }
        (None, Some(bytes), _) | (None, None, Some(bytes)) => sizing::with_guest(bytes),
        (None, None, None) => Ok(default_mib),
    };
    size.map_err(Error::Size)
}

fn network(spec: &Spec) -> Result<Network, Error> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let network = namespaces
        .and_then(|all| all.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network));
    match network {
        Some(namespace) => Ok(namespace.path().clone().map_or(Network::New, Network::Namespace)),
        None => Err(Error::HostNetwork),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> Spec {
        let mut spec = json!({ "ociVersion": "1.0.2", "linux": { "namespaces": [{ "type": "network" }, { "type": "uts" }] } });
        for (key, value) in json.as_object().unwrap() {
            match (key.as_str(), value.as_object()) {
                ("linux", Some(linux)) => {
                    for (key, value) in linux {
                        spec["linux"][key] = value.clone();
                    }
                }
                _ => spec[key] = value.clone(),
            }
        }
        serde_json::from_value(spec).unwrap()
    }

    fn planned(json: serde_json::Value) -> PodPlan {
        plan("c1", &spec(json), &PodDefaults::default()).unwrap()
    }

    #[test]
    fn a_pod_that_asks_for_nothing_gets_the_defaults() {
        let defaults = PodDefaults::default();
        let plan = planned(json!({}));
        assert_eq!((plan.vcpus, plan.mem_size_mib), (defaults.vcpus, defaults.mem_size_mib));
        assert_eq!((plan.network, plan.cgroup, plan.hostname.as_str()), (Network::New, None, "c1"));
        assert_eq!(planned(json!({ "hostname": "h" })).hostname, "h");
        let of_host = planned(json!({ "linux": { "namespaces": [{ "type": "network" }] } }));
        assert_eq!(of_host.hostname, nix::unistd::gethostname().unwrap().into_string().unwrap());
        let long = super::plan(&"x".repeat(64), &spec(json!({})), &defaults).unwrap();
        assert_eq!(long.hostname.len(), 63);
    }

    #[test]
    fn sums_of_the_pod_come_before_limits_of_the_container() {
        let resources =
            json!({ "cpu": { "quota": 100_000, "period": 100_000 }, "memory": { "limit": 64 << 20 } });
        let plan = planned(json!({ "linux": { "resources": resources } }));
        assert_eq!((plan.vcpus, plan.mem_size_mib), (1, 160));
        let annotations = json!({ CPU_QUOTA: "250000", CPU_PERIOD: "100000", MEMORY: "1073741824" });
        let plan = planned(json!({ "linux": { "resources": resources }, "annotations": annotations }));
        assert_eq!((plan.vcpus, plan.mem_size_mib), (3, 1120));
    }

    #[test]
    fn what_is_unlimited_is_the_default_and_shares_are_a_minimum() {
        let annotations = json!({ CPU_QUOTA: "0", CPU_PERIOD: "100000", CPU_SHARES: "3000", MEMORY: "0" });
        let resources = json!({ "cpu": { "quota": -1 }, "memory": { "limit": -1 } });
        let plan = planned(json!({ "linux": { "resources": resources }, "annotations": annotations }));
        assert_eq!((plan.vcpus, plan.mem_size_mib), (3, PodDefaults::default().mem_size_mib));
    }

    #[test]
    fn containers_without_a_limit_have_the_default_beside_the_limits_of_others() {
        let defaults = PodDefaults { mem_size_mib: 512, ..PodDefaults::default() };
        let spec = spec(json!({ "annotations": { MEMORY: "67108864" } }));
        let annotations = spec.annotations().clone().unwrap();
        let choices = Choices { annotations: &annotations, defaults: &defaults };
        let [all, some] = [true, false].map(|of_all| mem_size_mib(&spec, &choices, of_all).unwrap());
        assert_eq!((all, some), (160, 160 + 512));
    }

    #[test]
    fn users_choose_what_they_are_allowed_to() {
        let chosen = json!({ "annotations": { VCPUS_ANNOTATION: "2", MEMORY_ANNOTATION: "300" } });
        let plan = planned(chosen.clone());
        assert_eq!((plan.vcpus, plan.mem_size_mib), (2, 300));
        let strict = PodDefaults { annotations: Vec::new(), ..PodDefaults::default() };
        assert!(super::plan("c1", &spec(chosen), &strict).is_err());
        let wrong = spec(json!({ "annotations": { VCPUS_ANNOTATION: "many" } }));
        assert!(super::plan("c1", &wrong, &PodDefaults::default()).is_err());
    }

    #[test]
    fn networks_are_namespaces_and_the_hosts_own_is_refused() {
        let named = json!({ "linux": { "namespaces": [{ "type": "network", "path": "/run/netns/a" }] } });
        assert_eq!(planned(named).network, Network::Namespace("/run/netns/a".into()));
        let host = spec(json!({ "linux": { "namespaces": [{ "type": "pid" }] } }));
        let refused = plan("c1", &host, &PodDefaults::default()).unwrap_err();
        assert!(refused.to_string().contains("host's own network"));
    }
}
