//! From a container's OCI runtime spec as the host has it to the one that the guest's agent gets.
//!
//! | what | in the guest |
//! |---|---|
//! | bind mounts | their sources are shared, and come from below the shared directory; a sandbox's `/dev/shm` is the VM's own |
//! | other mounts | as they are: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup` |
//! | propagation of the root's mounts | private if it says so, else slave: nothing that a container mounts leaves it |
//! | network, IPC and UTS namespaces | the VM's, whatever the spec says; with them host and domain name |
//! | PID namespace | as [`Pids`] says |
//! | mount, cgroup, user and time namespaces | the container's own |
//! | `startContainer` hooks | as they are: programs of the container |
//! | cgroup's path, other hooks, `AppArmor`'s and `SELinux`'s labels, Intel RDT, NUMA and CPU placement | left out: they are about the host |
//! | limits of memory, CPU time and processes | as they are, in the guest's cgroup; those of huge pages, disks and networks are left out |
//! | character devices | as they are |
//! | block devices | those that a rule allows by their number become disks of the VM, with the guest's number; others, as privileged containers have them all, are left out |
//! | user, capabilities, seccomp, rlimits, sysctls, masked paths, OOM score | as they are |

use std::path::{Path, PathBuf};

use husk_protocol::shared;
use oci_spec::runtime::{
    Hooks, Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType,
    LinuxResources, Mount, Process, Spec,
};

use crate::{Error, Result};

/// Where the VM's own shared memory is, which all containers of a pod share.
const SHARED_MEMORY: &str = "/dev/shm";
/// By this name every container engine keeps a sandbox's shared memory on the host.
const SHARED_MEMORY_SOURCE: &str = "shm";
/// What a mount of a file system in the guest may be.
const GUEST_FILESYSTEMS: [&str; 8] =
    ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs"];
/// The mode of a device's node, if the spec has none.
const DEVICE_MODE: u32 = 0o660;
/// Limits that a cgroup of the guest knows begin so.
const CONTROLLERS: [&str; 3] = ["cpu.", "memory.", "pids."];

/// What the guest gets.
#[derive(Debug)]
pub(super) struct Guest {
    /// The spec.
    pub(super) spec: Spec,
    /// What is shared with it for this.
    pub(super) binds: Vec<Bind>,
    /// What it gets as disks.
    pub(super) blocks: Vec<Block>,
    /// Where the host has the shared memory in whose place the VM's own is used, which gets its size.
    pub(super) shared_memory: Option<PathBuf>,
}

/// A block device of the host that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Where it is in the container.
    pub(super) path: PathBuf,
    pub(super) major: i64,
    pub(super) minor: i64,
    /// The container may not write to it.
    pub(super) read_only: bool,
    /// Mode and owners of its node.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A bind mount, whose source is on the host. The n-th is thought to be at `<container>/mounts/<n>` (see [`place`]).
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Rewrites a spec. With `own`, one that husk has made, which leaves the user to the guest, and whose container has an IPC namespace
/// of its own and the pod's files in `/etc`.
///
/// # Errors
/// When it has no process, or a mount that can't be made in a guest.
pub(super) fn for_guest(mut spec: Spec, container_id: &str, pids: Pids, own: bool) -> Result<Guest> {
    let (Some(process), Some(linux)) = (spec.process().clone(), spec.linux().clone()) else {
        return Err(Error::InvalidOption("the OCI runtime spec has no process or no linux section".into()));
    };
    let blocks = blocks(&linux);
    let mut binds = Vec::new();
    let mounts = spec.mounts().clone().unwrap_or_default();
    let shared_memory = mounts.iter().find_map(|mount| {
        mount.source().clone().filter(|source| is_shared_memory(source, mount.destination()))
    });
    let mounts = mounts.into_iter().map(|mount| mount_for_guest(mount, container_id, &mut binds));
    let mut mounts = mounts.collect::<Result<Vec<_>>>()?;
    if own {
        mounts.extend(etc_files());
    }
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().clone()).map(|start| {
        let mut hooks = Hooks::default();
        hooks.set_start_container(Some(start));
        hooks
    });
    spec.set_mounts(Some(mounts))
        .set_process(Some(process_for_guest(process, own)))
        .set_linux(Some(linux_for_guest(linux, pids, own)))
        .set_hooks(hooks)
        .set_hostname(None)
        .set_domainname(None);
    Ok(Guest { spec, binds, blocks, shared_memory })
}

/// Says where in the shared directory the sources of bind mounts are.
pub(super) fn place(spec: &mut Spec, container_id: &str, places: &[String]) {
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let index = places.iter().enumerate().find_map(|(index, place)| {
            (mount.source().as_deref() == Some(in_guest(container_id, index).as_path())).then_some(place)
        });
        if let Some(place) = index {
            mount.set_source(Some(Path::new(shared::PATH).join(place)));
        }
    }
}

/// Rewrites a process. With `own`, its user is left to the guest.
pub(super) fn process_for_guest(mut process: Process, own: bool) -> Process {
    if !own {
        // Whoever wrote the spec has resolved the user: one without groups has none.
        process.user_mut().additional_gids_mut().get_or_insert_default();
    }
    process.set_apparmor_profile(None).set_selinux_label(None).set_exec_cpu_affinity(None);
    process
}

/// Rewrites limits.
pub(super) fn resources_for_guest(mut resources: LinuxResources) -> LinuxResources {
    if let Some(mut cpu) = resources.cpu().clone() {
        cpu.set_cpus(None).set_mems(None).set_realtime_period(None).set_realtime_runtime(None);
        resources.set_cpu(Some(cpu));
    }
    // Their numbers are the host's.
    if let Some(mut rules) = resources.devices().clone() {
        rules.retain(|rule| !is_about_a_block_device(rule));
        resources.set_devices(Some(rules));
    }
    if let Some(mut unified) = resources.unified().clone() {
        unified.retain(|file, _| CONTROLLERS.iter().any(|controller| file.starts_with(controller)));
        resources.set_unified(Some(unified));
    }
    resources.set_block_io(None).set_hugepage_limits(None).set_network(None).set_rdma(None);
    resources
}

fn linux_for_guest(mut linux: Linux, pids: Pids, own: bool) -> Linux {
    // Nobody else's mounts are in the guest: what is mounted on the host later comes as part of what is shared.
    let propagation = linux.rootfs_propagation().as_ref().map(|given| match given.as_str() {
        "private" | "rprivate" => "private".to_owned(),
        _ => "slave".to_owned(),
    });
    let resources = linux.resources().clone().map(resources_for_guest);
    let namespaces = namespaces(linux.namespaces().as_deref().unwrap_or_default(), pids, own);
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
        .set_rootfs_propagation(propagation)
        .set_intel_rdt(None)
        .set_memory_policy(None)
        .set_net_devices(None);
    linux
}

/// The block devices that are allowed one by one. A privileged container's spec lists all that the host has, and allows all at
/// once: those stay outside.
fn blocks(linux: &Linux) -> Vec<Block> {
    let rules =
        linux.resources().as_ref().and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let allowed = |device: &LinuxDevice| {
        let (major, minor) = (Some(device.major()), Some(device.minor()));
        let is_it = |rule: &&LinuxDeviceCgroup| {
            is_about_a_block_device(rule) && rule.allow() && rule.major() == major && rule.minor() == minor
        };
        // The last rule counts.
        rules.iter().rfind(is_it)
    };
    let block = |device: &LinuxDevice| {
        let writable = allowed(device)?.access().as_deref().is_none_or(|access| access.contains('w'));
        Some(Block {
            path: device.path().clone(),
            major: device.major(),
            minor: device.minor(),
            read_only: !writable,
            mode: device.file_mode().unwrap_or(DEVICE_MODE),
            uid: device.uid().unwrap_or_default(),
            gid: device.gid().unwrap_or_default(),
        })
    };
    let devices = linux.devices().iter().flatten();
    devices.filter(|device| device.typ() == LinuxDeviceType::B).filter_map(block).collect()
}

fn is_about_a_block_device(rule: &LinuxDeviceCgroup) -> bool {
    rule.typ() == Some(LinuxDeviceType::B) && rule.major().is_some()
}

fn namespaces(given: &[LinuxNamespace], pids: Pids, own: bool) -> Vec<LinuxNamespace> {
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
    if own {
        all.push(namespace(LinuxNamespaceType::Ipc, None));
    }
    let kept = [LinuxNamespaceType::User, LinuxNamespaceType::Time];
    all.extend(given.iter().filter(|one| kept.contains(&one.typ())).map(|one| namespace(one.typ(), None)));
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

/// The files in `/etc` that the pod's containers have from its guest.
fn etc_files() -> impl Iterator<Item = Mount> {
    ["hostname", "hosts", "resolv.conf"].into_iter().map(|name| {
        let mut mount = Mount::default();
        mount
            .set_destination(format!("/etc/{name}").into())
            .set_typ(Some("bind".into()))
            .set_source(Some(format!("/run/husk/etc/{name}").into()))
            .set_options(Some(["bind", "rprivate"].map(str::to_owned).to_vec()));
        mount
    })
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn host_spec(mounts: &Value) -> Spec {
        let spec = json!({
            "ociVersion": "1.1.0", "hostname": "box", "domainname": "domain", "root": {"path": "/bundle/rootfs", "readonly": true},
            "process": {
                "user": {"uid": 5, "gid": 6, "umask": 18}, "args": ["sh"], "cwd": "/", "apparmorProfile": "default",
                "selinuxLabel": "a:b:c", "oomScoreAdj": 900, "noNewPrivileges": true,
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000}],
            },
            "hooks": {"createRuntime": [{"path": "/bin/true"}]},
            "mounts": mounts,
            "linux": {
                "cgroupsPath": "/kubepods/x", "mountLabel": "a:b:c", "rootfsPropagation": "rshared",
                "namespaces": [
                    {"type": "pid", "path": "/proc/7/ns/pid"}, {"type": "network", "path": "/run/netns/x"}, {"type": "uts"},
                    {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "mount"}, {"type": "user", "path": "/proc/7/ns/user"},
                ],
                "uidMappings": [{"containerID": 0, "hostID": 100_000, "size": 65536}],
                "sysctl": {"net.ipv4.ip_forward": "1"}, "intelRdt": {"closID": "x"},
                "devices": [
                    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
                    {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0},
                ],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock"},
                "maskedPaths": ["/proc/kcore"],
                "resources": {
                    "memory": {"limit": 1000}, "pids": {"limit": 10}, "cpu": {"shares": 512, "cpus": "0-3", "mems": "0"},
                    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "blockIO": {"weight": 10},
                    "network": {"classID": 1}, "unified": {"memory.high": "900", "io.max": "8:0 rbps=1", "cpuset.cpus": "1"},
                    "devices": [{"allow": false, "access": "rwm"}],
                },
            },
        });
        serde_json::from_value(spec).unwrap()
    }

    fn namespaces_of(spec: &Spec) -> Vec<(LinuxNamespaceType, Option<String>)> {
        let namespaces = spec.linux().as_ref().unwrap().namespaces().as_ref().unwrap();
        namespaces
            .iter()
            .map(|n| (n.typ(), n.path().as_ref().map(|path| path.display().to_string())))
            .collect()
    }

    #[test]
    fn what_is_the_hosts_goes_and_the_rest_stays() {
        let Guest { spec, binds, blocks, shared_memory } =
            for_guest(host_spec(&json!([])), "c", Pids::Own, false).unwrap();
        assert!(binds.is_empty() && blocks.is_empty() && shared_memory.is_none());
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(json["root"]["readonly"], true);
        for gone in ["hostname", "domainname", "hooks"] {
            assert_eq!(json[gone], Value::Null, "{gone}");
        }
        let linux = &json["linux"];
        for gone in ["cgroupsPath", "mountLabel", "intelRdt"] {
            assert_eq!(linux[gone], Value::Null, "{gone}");
        }
        assert_eq!(linux["rootfsPropagation"], "slave");
        assert_eq!(linux["sysctl"]["net.ipv4.ip_forward"], "1");
        assert_eq!(linux["maskedPaths"][0], "/proc/kcore");
        assert_eq!(linux["uidMappings"][0]["hostID"], 100_000);
        assert_eq!(linux["seccomp"], json!({"defaultAction": "SCMP_ACT_ALLOW"}));
        let devices = linux["devices"].as_array().unwrap();
        assert_eq!((devices.len(), &devices[0]["path"]), (1, &json!("/dev/fuse")));
        let resources = json!({
            "memory": {"limit": 1000}, "pids": {"limit": 10}, "cpu": {"shares": 512}, "unified": {"memory.high": "900"},
            "devices": [{"allow": false, "access": "rwm"}],
        });
        assert_eq!(linux["resources"], resources);
        let process = &json["process"];
        assert_eq!(process["user"], json!({"uid": 5, "gid": 6, "umask": 18, "additionalGids": []}));
        assert_eq!((&process["apparmorProfile"], &process["selinuxLabel"]), (&Value::Null, &Value::Null));
        assert_eq!((&process["oomScoreAdj"], &process["noNewPrivileges"]), (&json!(900), &json!(true)));
        assert_eq!(process["rlimits"][0]["hard"], 2000);
    }

    #[test]
    fn block_devices_that_are_allowed_by_number_become_disks() {
        let mut spec = serde_json::to_value(host_spec(&json!([]))).unwrap();
        let device = |path: &str, minor: u32| json!({"path": path, "type": "b", "major": 8, "minor": minor, "fileMode": 384});
        let rule = |allow: bool, minor: u32, access: &str| json!({"allow": allow, "type": "b", "major": 8, "minor": minor, "access": access});
        spec["linux"]["devices"] =
            json!([device("/dev/xvda", 16), device("/dev/ro", 32), device("/dev/sda", 0)]);
        let everything = json!({"allow": true, "access": "rwm"});
        spec["linux"]["resources"]["devices"] =
            json!([everything, rule(true, 16, "rwm"), rule(true, 32, "rm"), rule(false, 0, "rwm")]);
        let Guest { spec, blocks, .. } =
            for_guest(serde_json::from_value(spec).unwrap(), "c", Pids::Own, false).unwrap();
        let found: Vec<_> =
            blocks.iter().map(|b| (b.path.to_str().unwrap(), b.minor, b.read_only, b.mode)).collect();
        assert_eq!(found, [("/dev/xvda", 16, false, 384), ("/dev/ro", 32, true, 384)]);
        let linux = serde_json::to_value(spec.linux()).unwrap();
        assert_eq!((&linux["devices"], &linux["resources"]["devices"]), (&json!([]), &json!([everything])));
    }

    #[test]
    fn only_pids_mounts_cgroups_and_users_are_a_containers_own() {
        use LinuxNamespaceType::{Cgroup, Mount, Pid, User};
        for (pids, path) in
            [(Pids::Own, None), (Pids::Pod, Some("/run/husk/pids")), (Pids::Of(9), Some("/proc/9/ns/pid"))]
        {
            let Guest { spec, .. } = for_guest(host_spec(&json!([])), "c", pids, false).unwrap();
            let path = path.map(str::to_owned);
            assert_eq!(namespaces_of(&spec), [(Pid, path), (Mount, None), (Cgroup, None), (User, None)]);
        }
    }

    #[test]
    fn bind_mounts_come_from_the_shared_directory() {
        let mounts = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": "/host/data", "options": ["rbind", "rslave", "ro"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/run/x/sandboxes/y/shm", "options": ["rbind"]},
            {"destination": "/etc/hosts", "source": "/host/hosts", "options": ["bind"]},
            {"destination": "/all", "type": "none", "source": "/host/all", "options": ["rbind", "rro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
            {"destination": "/dev/shm", "type": "bind", "source": "/volumes/memory", "options": ["rbind"]},
        ]);
        let Guest { spec, binds, shared_memory, .. } =
            for_guest(host_spec(&mounts), "c1", Pids::Own, false).unwrap();
        assert_eq!(shared_memory.as_deref(), Some(Path::new("/run/x/sandboxes/y/shm")));
        let json = serde_json::to_value(spec.mounts()).unwrap();
        let sources: Vec<&str> =
            json.as_array().unwrap().iter().map(|mount| mount["source"].as_str().unwrap()).collect();
        let shared = |n| format!("/run/husk/shared/c1/mounts/{n}");
        let shared: Vec<String> = (0..4).map(shared).collect();
        assert_eq!(sources, ["proc", &shared[0], "/dev/shm", &shared[1], &shared[2], "tmpfs", &shared[3]]);
        assert_eq!(json[1]["options"], json!(["rbind", "rslave", "ro"]));
        assert_eq!((&json[3]["type"], &json[5]["options"]), (&json!("bind"), &json!(["size=1m"])));
        let planned: Vec<_> =
            binds.iter().map(|bind| (bind.source.to_str().unwrap(), bind.read_only)).collect();
        assert_eq!(
            planned,
            [
                ("/host/data", ReadOnly::Top),
                ("/host/hosts", ReadOnly::No),
                ("/host/all", ReadOnly::All),
                ("/volumes/memory", ReadOnly::No)
            ]
        );
    }

    #[test]
    fn what_a_guest_cannot_mount_is_refused() {
        for (mount, text) in [
            (json!({"destination": "/x", "type": "nfs", "source": "s:/"}), "type \"nfs\" on /x"),
            (json!({"destination": "/x", "type": "ext4", "source": "/dev/sda"}), "type \"ext4\" on /x"),
            (json!({"destination": "/x"}), "type \"\" on /x"),
            (json!({"destination": "/x", "type": "bind"}), "the bind mount on /x has no source"),
        ] {
            let error = for_guest(host_spec(&json!([mount])), "c", Pids::Own, false).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        let empty: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.0"}"#).unwrap();
        assert!(for_guest(empty, "c", Pids::Own, false).is_err());
    }
}
