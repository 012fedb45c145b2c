//! What kind of pod a container's spec asks for. Pure: nothing of the host is looked at.

use std::path::PathBuf;

use husk_sandbox::{
    config::PodDefaults,
    sizing::{MAX_VCPUS, with_guest},
};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::{bundle::Annotations, error::Error};

/// Annotations of containerd's CRI plugin with the sum of what a pod's containers want.
pub(crate) const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
pub(crate) const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
pub(crate) const CPU_SHARES: &str = "io.kubernetes.cri.sandbox-cpu-shares";
pub(crate) const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// Annotations of pods by which users choose for themselves, if the configuration lets them.
const HUSK_VCPUS: &str = "io.husk.vcpus";
const HUSK_MEMORY_MIB: &str = "io.husk.memory_mib";

/// Most bytes of a host name without dots (RFC 1035, section 2.3.4). Docker's ids are longer.
pub(crate) const MAX_HOSTNAME: usize = 63;
/// cgroup shares that one CPU has.
const SHARES_OF_CPU: u64 = 1024;
/// cgroup period, in microseconds, if none is said.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Where a pod's network comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// This namespace's interfaces become the pod's.
    Namespace(PathBuf),
    /// A namespace that is still to be made, with nothing in it.
    New,
}

/// A pod's VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPlan {
    pub(crate) vcpus: u8,
    pub(crate) mem_size_mib: u32,
    pub(crate) network: Network,
    pub(crate) hostname: String,
    /// The cgroup that the spec names, below the root of the hierarchy.
    pub(crate) cgroup: Option<PathBuf>,
}

/// Reads a pod's plan from the spec of its first container, whose id names a pod without a name.
///
/// # Errors
/// When the spec asks for what a VM can't give, or an annotation makes no sense.
pub(crate) fn plan(id: &str, spec: &Spec, defaults: &PodDefaults) -> Result<PodPlan, Error> {
    let empty = Annotations::new();
    let annotations = spec.annotations().as_ref().unwrap_or(&empty);
    let choices = Choices { annotations, defaults };
    Ok(PodPlan {
        vcpus: vcpus(spec, &choices)?,
        mem_size_mib: mem_size_mib(spec, &choices)?,
        network: network(spec)?,
        hostname: hostname(id, spec),
        cgroup: cgroup(spec),
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
    fn chosen(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(text) = self.annotations.get(name) else { return Ok(None) };
        if !self.defaults.annotations.iter().any(|allowed| allowed == name) {
            return Err(Error::invalid(format!(
                "annotation {name} may not be set here: /etc/husk/config.toml lists those that may, as pod.annotations"
            )));
        }
        let wrong = || Error::invalid(format!("annotation {name}: {text:?} is no number above 0"));
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
    let of_pod = choices
        .number(CPU_QUOTA)
        .map(|quota| quota.div_ceil(choices.number(CPU_PERIOD).unwrap_or(DEFAULT_PERIOD_US)));
    let cpu = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()?.cpu().clone());
    let of_container = cpu.and_then(|cpu| {
        let quota = u64::try_from(cpu.quota()?).ok().filter(|quota| *quota > 0)?;
        Some(quota.div_ceil(cpu.period().filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD_US)))
    });
    // Shares are what a pod may have at least, not at most.
    let at_least = choices.number(CPU_SHARES).map_or(0, |shares| shares.div_ceil(SHARES_OF_CPU));
    let default = u64::from(choices.defaults.vcpus).max(at_least);
    let wanted = choices.chosen(HUSK_VCPUS)?.or(of_pod).or(of_container).unwrap_or(default);
    u8::try_from(wanted.clamp(1, MAX_VCPUS)).map_err(|error| Error::invalid(error.to_string()))
}

fn mem_size_mib(spec: &Spec, choices: &Choices<'_>) -> Result<u32, Error> {
    let memory = spec.linux().as_ref().and_then(|linux| *linux.resources().as_ref()?.memory());
    let of_container =
        memory.and_then(|memory| u64::try_from(memory.limit()?).ok()).filter(|bytes| *bytes > 0);
    let wanted = match choices.chosen(HUSK_MEMORY_MIB)? {
        Some(mib) => mib,
        None => choices
            .number(MEMORY)
            .or(of_container)
            .map_or(u64::from(choices.defaults.mem_size_mib), with_guest),
    };
    u32::try_from(wanted)
        .map_err(|_| Error::invalid(format!("{wanted} MiB of memory are too much for a pod")))
}

fn network(spec: &Spec) -> Result<Network, Error> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let network = namespaces
        .and_then(|all| all.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network));
    match network {
        Some(namespace) => Ok(namespace.path().clone().map_or(Network::New, Network::Namespace)),
        None => Err(Error::invalid(
            "the pod wants the host's own network (hostNetwork, --net-host, --network host), which a virtual machine can't have: use another runtime for it, or a network of its own",
        )),
    }
}

/// The spec's cgroup as a relative path: plain, or systemd's `slice:prefix:name`.
pub(crate) fn cgroup(spec: &Spec) -> Option<PathBuf> {
    let path = spec.linux().as_ref()?.cgroups_path().as_ref()?.to_str()?;
    let relative = match path.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => systemd_path(slice, prefix, name)?,
        _ => path.trim_start_matches('/').to_owned(),
    };
    let plain = relative.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then(|| PathBuf::from(relative))
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn systemd_path(slice: &str, prefix: &str, name: &str) -> Option<String> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let stem = slice.strip_suffix(".slice")?;
    let mut path = String::new();
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push_str(&stem[..end]);
        path.push_str(".slice/");
    }
    Some(format!("{path}{prefix}-{name}.scope"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
    fn users_choose_what_they_are_allowed_to() {
        let chosen = json!({ "annotations": { HUSK_VCPUS: "2", HUSK_MEMORY_MIB: "300" } });
        let plan = planned(chosen.clone());
        assert_eq!((plan.vcpus, plan.mem_size_mib), (2, 300));
        let strict = PodDefaults { annotations: Vec::new(), ..PodDefaults::default() };
        assert!(super::plan("c1", &spec(chosen), &strict).is_err());
        let wrong = spec(json!({ "annotations": { HUSK_VCPUS: "many" } }));
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

    #[test]
    fn cgroups_of_both_drivers_are_found_and_none_leads_out() {
        let of = |path: &str| planned(json!({ "linux": { "cgroupsPath": path } })).cgroup;
        assert_eq!(of("/kubepods/pod1/c1").as_deref(), Some(Path::new("kubepods/pod1/c1")));
        assert_eq!(
            of("kubepods-burstable-pod1.slice:cri-containerd:c1").as_deref(),
            Some(Path::new(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope"
            ))
        );
        assert_eq!(of("/../x"), None);
        assert_eq!(of("a.slice:../../b:c").as_deref(), None);
    }
}
