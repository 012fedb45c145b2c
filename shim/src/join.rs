//! Containers that share namespaces of another one: Docker's `--network container:ID`, `--pid container:ID`. An engine names the
//! other by its number (`/proc/<number>/ns/net`), which is one of a shim's threads. Such containers are in one VM, as those of a
//! pod are, and so of one shim: two VMs can't have one network stack.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::Error;

/// A shim's environment has this: `<containerd's namespace> <address>`.
pub(crate) const VARIABLE: &str = "HUSK_SHIM";
/// Whose namespaces mean that two containers are in one VM.
const SHARED: [LinuxNamespaceType; 3] =
    [LinuxNamespaceType::Network, LinuxNamespaceType::Pid, LinuxNamespaceType::Ipc];

/// The address of the shim whose VM a container is to be in, if it shares a namespace of one there.
///
/// # Errors
/// When it shares the network of a process that is in no VM: its network would be taken from that.
pub(crate) fn address(spec: &Spec, namespace: &str) -> Result<Option<String>, Error> {
    for kind in SHARED {
        let Some(number) = path(spec, kind).as_deref().and_then(number) else { continue };
        if let Some(address) = address_of(number, namespace) {
            return Ok(Some(address));
        }
        if kind == LinuxNamespaceType::Network {
            return Err(Error::invalid(format!(
                "the container shall share the network of process {number}, which is no container of husk's: use the same runtime for both"
            )));
        }
    }
    Ok(None)
}

/// The path of a namespace that a container shares.
pub(crate) fn path(spec: &Spec, kind: LinuxNamespaceType) -> Option<PathBuf> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    namespaces.iter().find(|namespace| namespace.typ() == kind)?.path().clone()
}

/// The number in `/proc/<number>/ns/<kind>`.
pub(crate) fn number(path: &Path) -> Option<u32> {
    path.strip_prefix("/proc").ok()?.iter().next()?.to_str()?.parse().ok()
}

/// Whether two paths name the same namespace.
pub(crate) fn same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// The address of a living shim, by one of its threads. What runs another program, or in a PID namespace of its own, as a
/// container of another runtime does, is none, whatever it says.
fn address_of(number: u32, namespace: &str) -> Option<String> {
    let place = |name: &str| PathBuf::from(format!("/proc/{number}/{name}"));
    let ours = same(&place("exe"), Path::new("/proc/self/exe"))
        && same(&place("ns/pid"), Path::new("/proc/self/ns/pid"));
    let environment = ours.then(|| fs::read(place("environ")).ok())??;
    let mut variables = environment.split(|byte| *byte == 0).filter_map(|one| str::from_utf8(one).ok());
    let value = variables.find_map(|one| one.strip_prefix(VARIABLE)?.strip_prefix('='))?;
    let (theirs, address) = value.split_once(' ')?;
    (theirs == namespace).then(|| address.to_owned())
}

/// The address at which this shim serves.
pub(crate) fn own_address() -> Option<String> {
    Some(env::var(VARIABLE).ok()?.split_once(' ')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use serde_json::json;

    use super::*;

    fn spec(kind: &str, number: u32) -> Spec {
        let path = format!("/proc/{number}/ns/{kind}");
        let kind = if kind == "net" { "network" } else { kind };
        let namespaces = json!([{ "type": "network" }, { "type": "pid" }]);
        let mut spec = json!({ "ociVersion": "1.0.2", "linux": { "namespaces": namespaces } });
        for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == kind {
                namespace["path"] = path.clone().into();
            }
        }
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn another_of_this_program_is_found_by_its_number_in_its_namespace_alone() {
        let own = std::process::id();
        // This test's own process has no such variable: it is started again, with one.
        if let Some(address) = own_address() {
            assert_eq!(super::address(&spec("net", own), "moby").unwrap(), Some(address.clone()));
            assert_eq!(super::address(&spec("pid", own), "moby").unwrap(), Some(address));
            assert_eq!(super::address(&spec("pid", own), "other").unwrap(), None);
            return;
        }
        assert_eq!(super::address(&spec("pid", own), "moby").unwrap(), None);
        let refused = super::address(&spec("net", own), "moby").unwrap_err();
        assert!(refused.text().contains("no container of husk's"), "{}", refused.text());
        let name = "another_of_this_program_is_found_by_its_number_in_its_namespace_alone";
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["--exact", &format!("join::tests::{name}")]).env(VARIABLE, "moby unix:///x");
        assert!(again.stdout(Stdio::null()).status().unwrap().success());
    }

    #[test]
    fn other_programs_are_no_shims() {
        let mut other = Command::new("sleep").arg("1000").env(VARIABLE, "moby unix:///x").spawn().unwrap();
        let found = super::address(&spec("pid", other.id()), "moby");
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found.unwrap(), None);
        let fresh = serde_json::from_value(json!({ "ociVersion": "1.0.2", "linux": {} })).unwrap();
        assert_eq!(super::address(&fresh, "moby").unwrap(), None);
        assert_eq!(number(Path::new("/proc/12/ns/pid")), Some(12));
        assert_eq!(number(Path::new("/proc/self/ns/pid")), None);
        assert_eq!(number(Path::new("/run/12")), None);
    }
}
