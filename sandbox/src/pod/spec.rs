//! From a container's OCI runtime spec as the host has it to the one that the guest's agent gets.
//!
//! | what | in the guest |
//! |---|---|
//! | bind mounts | their sources are shared, and come from below the shared directory; a sandbox's `/dev/shm` is the VM's own |
//! | other mounts | as they are: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup` |
//! | network, IPC and UTS namespaces | the VM's, whatever the spec says; with them host and domain name |
//! | PID namespace | as [`Pids`] says |
//! | mount, cgroup, user and time namespaces | the container's own |
//! | cgroup's path, hooks, `AppArmor`'s and `SELinux`'s labels, Intel RDT, NUMA and CPU placement | left out: they are about the host |
//! | limits of memory, CPU time and processes | as they are, in the guest's cgroup; those of huge pages, disks and networks are left out |
//! | character devices | as they are; block devices are left out: the guest has other ones |
//! | user, capabilities, seccomp, rlimits, sysctls, masked paths, OOM score | as they are |

use std::path::{Path, PathBuf};

use husk_protocol::shared;
use oci_spec::runtime::{
    Linux, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, Process, Spec,
};

use crate::{Error, Result};

/// Where the VM's own shared memory is, which all containers of a pod share.
const SHARED_MEMORY: &str = "/dev/shm";
/// By this name every container engine keeps a sandbox's shared memory on the host.
const SHARED_MEMORY_SOURCE: &str = "shm";
/// What a mount of a file system in the guest may be.
const GUEST_FILESYSTEMS: [&str; 8] =
    ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs"];
/// Limits that a cgroup of the guest knows begin so.
const CONTROLLERS: [&str; 3] = ["cpu.", "memory.", "pids."];

/// What the guest gets.
#[derive(Debug)]
pub(super) struct Guest {
    /// The spec.
    pub(super) spec: Spec,
    /// What is shared with it for this.
    pub(super) binds: Vec<Bind>,
}

/// A bind mount, whose source is on the host. The n-th is expected at `<container>/mounts/<n>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// The source.
    pub(super) source: PathBuf,
    /// Where it is in the container.
    pub(super) destination: PathBuf,
    /// The container may not write to it.
    pub(super) read_only: ReadOnly,
}

/// What of a bind mount is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOnly {
    /// Nothing.
    No,
    /// It, but not what is mounted below it.
    Top,
    /// All of it.
    All,
}

/// A container's PID namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pids {
    /// Its own.
    Own,
    /// The pod's.
    Pod,
    /// That of a process in the VM.
    Of(u32),
}

/// Rewrites a spec.
///
/// # Errors
/// When it has no process, or a mount that can't be made in a guest.
pub(super) fn for_guest(mut spec: Spec, container_id: &str, pids: Pids) -> Result<Guest> {
    let (Some(process), Some(linux)) = (spec.process().clone(), spec.linux().clone()) else {
        return Err(Error::InvalidOption("the OCI runtime spec has no process or no linux section".into()));
    };
    let mut binds = Vec::new();
    let mounts = spec.mounts().clone().unwrap_or_default();
    let mounts = mounts.into_iter().map(|mount| mount_for_guest(mount, container_id, &mut binds));
    let mounts = mounts.collect::<Result<Vec<_>>>()?;
    spec.set_mounts(Some(mounts))
        .set_process(Some(process_for_guest(process)))
        .set_linux(Some(linux_for_guest(linux, pids)))
        .set_hooks(None)
        .set_hostname(None)
        .set_domainname(None);
    Ok(Guest { spec, binds })
}

/// Rewrites a process.
pub(super) fn process_for_guest(mut process: Process) -> Process {
    // Whoever wrote the spec has resolved the user: one without groups has none.
    process.user_mut().additional_gids_mut().get_or_insert_default();
    process.set_apparmor_profile(None).set_selinux_label(None).set_exec_cpu_affinity(None);
    process
}

/// Rewrites limits.
pub(super) fn resources_for_guest(mut resources: LinuxResources) -> LinuxResources {
    if let Some(mut cpu) = resources.cpu().clone() {
        cpu.set_cpus(None).set_mems(None).set_realtime_period(None).set_realtime_runtime(None);
        resources.set_cpu(Some(cpu));
    }
    if let Some(mut unified) = resources.unified().clone() {
        unified.retain(|file, _| CONTROLLERS.iter().any(|controller| file.starts_with(controller)));
        resources.set_unified(Some(unified));
    }
    resources.set_block_io(None).set_hugepage_limits(None).set_network(None).set_rdma(None);
    resources
}

fn linux_for_guest(mut linux: Linux, pids: Pids) -> Linux {
    let resources = linux.resources().clone().map(resources_for_guest);
    let namespaces = namespaces(linux.namespaces().as_deref().unwrap_or_default(), pids);
    if let Some(devices) = linux.devices_mut() {
        devices.retain(|device| device.typ() != LinuxDeviceType::B);
    }
    if let Some(seccomp) = linux.seccomp_mut() {
        seccomp.set_listener_path(None).set_listener_metadata(None);
    }
    linux
        .set_resources(resources)
        .set_namespaces(Some(namespaces))
        .set_cgroups_path(None)
        .set_mount_label(None)
        .set_intel_rdt(None)
        .set_memory_policy(None)
        .set_net_devices(None);
    linux
}

fn namespaces(given: &[LinuxNamespace], pids: Pids) -> Vec<LinuxNamespace> {
    let namespace = |typ, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(path);
        namespace
    };
    let pid_path = match pids {
        Pids::Own => None,
        Pids::Pod => Some(shared::PID_NAMESPACE.into()),
        Pids::Of(pid) => Some(format!("/proc/{pid}/ns/pid").into()),
    };
    let mut all = vec![
        namespace(LinuxNamespaceType::Pid, pid_path),
        namespace(LinuxNamespaceType::Mount, None),
        namespace(LinuxNamespaceType::Cgroup, None),
    ];
    let own = [LinuxNamespaceType::User, LinuxNamespaceType::Time];
    all.extend(given.iter().filter(|one| own.contains(&one.typ())).map(|one| namespace(one.typ(), None)));
    all
}

fn mount_for_guest(mut mount: Mount, container_id: &str, binds: &mut Vec<Bind>) -> Result<Mount> {
    let destination = mount.destination().clone();
    let has =
        |names: &[&str]| mount.options().iter().flatten().any(|option| names.contains(&option.as_str()));
    let typ = mount.typ().clone().unwrap_or_default();
    if typ != "bind" && !has(&["bind", "rbind"]) {
        if GUEST_FILESYSTEMS.contains(&typ.as_str()) {
            return Ok(mount);
        }
        return Err(Error::InvalidOption(format!(
            "cannot mount a file system of type {typ:?} on {}: in a virtual machine there are bind mounts and {}",
            destination.display(),
            GUEST_FILESYSTEMS.join(", ")
        )));
    }
    let Some(source) = mount.source().clone() else {
        let text = format!("the bind mount on {} has no source", destination.display());
        return Err(Error::InvalidOption(text));
    };
    if is_shared_memory(&source, &destination) {
        mount.set_source(Some(SHARED_MEMORY.into()));
        return Ok(mount);
    }
    let read_only = match (has(&["rro"]), has(&["ro"])) {
        (true, _) => ReadOnly::All,
        (false, true) => ReadOnly::Top,
        (false, false) => ReadOnly::No,
    };
    mount.set_typ(Some("bind".into())).set_source(Some(in_guest(container_id, binds.len())));
    binds.push(Bind { source, destination, read_only });
    Ok(mount)
}

/// Where the guest finds the n-th bind mount's source.
fn in_guest(container_id: &str, index: usize) -> PathBuf {
    format!("{}/{container_id}/mounts/{index}", shared::PATH).into()
}

/// A sandbox's shared memory has to be that of the VM's kernel, where all of its containers see it.
fn is_shared_memory(source: &Path, destination: &Path) -> bool {
    destination == Path::new(SHARED_MEMORY)
        && source.file_name().is_some_and(|name| name == SHARED_MEMORY_SOURCE)
}
