//! Kernel settings of the IPC namespace in a container's OCI spec. A pod's containers share that of the machine, so they are
//! the pod's; libcontainer refuses them for a container without a namespace of its own, since elsewhere they would be the host's.

use std::{collections::HashMap, fs, io};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::statvfs::statvfs,
};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::{failure::Failure, network};

/// Where the memory is that containers share, a tmpfs.
const SHARED_MEMORY: &str = "/dev/shm";

/// Settings of the namespace (ipc_namespaces(7)), as paths below /proc/sys.
const NAMES: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];
const QUEUES: &str = "fs/mqueue/";

/// Applies them, and takes them out of the spec, if the container shares the machine's namespace.
pub(super) fn apply_settings(spec: &mut Spec) -> Result<(), Failure> {
    for (path, value) in take(spec) {
        let file = format!("/proc/sys/{path}");
        let written = fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|file| io::Write::write_all(&mut &file, value.as_bytes()));
        written.map_err(|e| Failure::invalid(format!("cannot set {file} to {value:?}: {e}")))?;
    }
    Ok(())
}

/// Gives the memory that containers share its size; 0: as it is. More may be in it than a smaller size allows: then it stays.
pub(super) fn size_shared_memory(bytes: u64) -> Result<(), Failure> {
    let failed = |e: Errno| Failure::io(format_args!("cannot set the size of {SHARED_MEMORY}"), &e.into());
    let now = statvfs(SHARED_MEMORY).map_err(failed)?;
    if bytes == 0 || now.blocks().saturating_mul(now.fragment_size()) == bytes {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let size = format!("size={bytes}");
    match mount(None::<&str>, SHARED_MEMORY, None::<&str>, flags, Some(size.as_str())) {
        Err(Errno::EINVAL) => Ok(()),
        mounted => mounted.map_err(failed),
    }
}

/// Applies settings of the machine's namespaces, by the names that an OCI spec has for them.
pub(crate) fn set_all(values: HashMap<String, String>) -> Result<(), Failure> {
    let mut linux = Linux::default();
    linux.set_sysctl(Some(values)).set_namespaces(None);
    let mut spec = Spec::default();
    spec.set_linux(Some(linux));
    apply_settings(&mut spec)?;
    network::apply_container_settings(&mut spec)?;
    let left = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()?.keys().next());
    match left {
        Some(name) => Err(Failure::invalid(format!("the setting {name} is not one that containers share"))),
        None => Ok(()),
    }
}

fn take(spec: &mut Spec) -> Vec<(String, String)> {
    let Some(linux) = spec.linux_mut() else { return Vec::new() };
    if linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::Ipc) {
        return Vec::new();
    }
    let Some(settings) = linux.sysctl().clone() else { return Vec::new() };
    let (ours, others): (Vec<_>, Vec<_>) = settings
        .into_iter()
        .map(|(name, value)| (name.replace('.', "/"), name, value))
        .partition(|(path, ..)| is_ours(path));
    linux.set_sysctl(Some(others.into_iter().map(|(_, name, value)| (name, value)).collect()));
    let mut ours: Vec<_> = ours.into_iter().map(|(path, _, value)| (path, value)).collect();
    ours.sort();
    ours
}

fn is_ours(path: &str) -> bool {
    let queue = |name: &str| !name.is_empty() && !name.contains('/');
    NAMES.contains(&path) || path.strip_prefix(QUEUES).is_some_and(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.1.0","linux":{{"namespaces":[{namespaces}],"sysctl":{{
                "kernel.shmmax":"1","fs.mqueue.msg_max":"2","kernel/sem":"3","net.ipv4.x":"4","kernel.hostname":"5",
                "fs.mqueue.a/b":"6"}}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn only_those_of_the_namespace_are_taken() {
        let mut shares = spec(r#"{"type":"pid"}"#);
        let taken = take(&mut shares);
        let taken: Vec<_> = taken.iter().map(|(path, value)| (path.as_str(), value.as_str())).collect();
        assert_eq!(taken, [("fs/mqueue/msg_max", "2"), ("kernel/sem", "3"), ("kernel/shmmax", "1")]);
        let linux = shares.linux().as_ref().unwrap();
        let mut left: Vec<_> = linux.sysctl().as_ref().unwrap().keys().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["fs.mqueue.a/b", "kernel.hostname", "net.ipv4.x"]);
    }

    #[test]
    fn a_container_with_a_namespace_of_its_own_keeps_them() {
        let mut own = spec(r#"{"type":"ipc"}"#);
        assert!(take(&mut own).is_empty());
        assert_eq!(own.linux().as_ref().unwrap().sysctl().as_ref().unwrap().len(), 6);
    }
}
