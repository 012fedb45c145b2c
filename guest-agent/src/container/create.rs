//! Makes containers and further processes in them. Everything here runs in a helper process.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use husk_base::chain;
use husk_protocol::agent::{BlockDevice, RootFs};
use libcontainer::{
    container::{Container, ContainerStatus, builder::ContainerBuilder},
    syscall::syscall::SyscallType,
};
use nix::unistd::{Pid, Uid, fchown};
use oci_spec::runtime::{Capability, LinuxCapabilities};

use super::{
    devices, disk,
    errors::ErrorLog,
    executor::{AgentExecutor, Confinement},
    helper::{Made, Reporter},
    in_root::Root,
    init, ipc, pids, rootfs, spec,
};
use crate::{
    failure::Failure,
    network, paths, shared,
    stdio::{ChildEnds, WindowSize},
};

/// A container to make.
pub(crate) struct NewContainer {
    pub(crate) id: String,
    /// OCI runtime spec.
    pub(crate) spec_json: Arc<[u8]>,
    pub(crate) rootfs: RootFs,
    pub(crate) user: String,
    pub(crate) volumes: Vec<String>,
    pub(crate) block_devices: Vec<BlockDevice>,
    pub(crate) shared_memory_bytes: u64,
    pub(crate) init: bool,
    pub(crate) ends: ChildEnds,
    /// The console socket, with a terminal.
    pub(crate) console: Option<PathBuf>,
    pub(crate) window: Option<WindowSize>,
}

/// A further process to make in a container.
pub(crate) struct NewProcess {
    pub(crate) container_id: String,
    pub(crate) exec_id: String,
    /// OCI `process` object.
    pub(crate) process_json: Vec<u8>,
    pub(crate) user: String,
    /// The container's first process.
    pub(crate) init: Pid,
    /// The container's OCI runtime spec.
    pub(crate) spec_json: Arc<[u8]>,
    pub(crate) ends: ChildEnds,
    pub(crate) console: Option<PathBuf>,
    pub(crate) window: Option<WindowSize>,
}

/// Mounts the root, completes the spec, and makes the container, up to but not including its program's execve.
pub(crate) fn container(new: NewContainer, reporter: Reporter) -> Result<Made, Failure> {
    let NewContainer {
        id,
        spec_json,
        rootfs,
        user,
        volumes,
        block_devices,
        shared_memory_bytes,
        init,
        ends,
        console,
        window,
    } = new;
    let mut spec = spec::parse(&spec_json)?;
    let bundle = paths::bundle(&id);
    shared::provide(&rootfs, &spec)?;
    ipc::size_shared_memory(shared_memory_bytes)?;
    let root_path = rootfs::mount_root(&rootfs, &id)?;
    let root = Root::open(&root_path)
        .map_err(|e| Failure::io("cannot open the container's root file system", &e))?;
    spec::complete(&mut spec, &id, &root_path, &root, &user, &volumes)?;
    let terminal = console.is_some();
    let Some(process) = spec.process_mut() else { return Err(Failure::invalid("the spec has no process")) };
    process.set_terminal(Some(terminal));
    let uid = process.user().uid();
    network::apply_container_settings(&mut spec)?;
    ipc::apply_settings(&mut spec)?;
    pids::provide(&spec)?;
    disk::add_devices(&mut spec, &block_devices)?;
    write_json(&bundle.join("config.json"), &spec)?;
    let cgroup = paths::cgroup(&id);
    make_cgroup(&cgroup)?;
    devices::restrict(&spec, &cgroup)
        .map_err(|e| Failure::io("cannot restrict the container's devices", &e))?;

    let init = if init { Some(init::program()?) } else { None };
    let executor = AgentExecutor { reporter, confinement: None, window, init };
    let log = ErrorLog::start();
    let container = builder(&id, ends, uid, console, executor)?
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|e| logged(failure("cannot create the container", &e), log))?;
    let pid = container
        .pid()
        .ok_or_else(|| Failure::internal("libcontainer made a container without a process"))?;
    Ok(Made { pid: pid.as_raw(), uid })
}

/// Runs a further process.
pub(crate) fn process(new: NewProcess, reporter: Reporter) -> Result<Made, Failure> {
    let NewProcess { container_id, exec_id, process_json, user, init, spec_json, ends, console, window } =
        new;
    let mut process = spec::parse_process(&process_json)?;
    let seccomp = spec::parse(&spec_json)?.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    // The container's root as its first process sees it.
    let root = Root::open(Path::new(&format!("/proc/{init}/root")))
        .map_err(|e| Failure::io("cannot open the container's root file system", &e))?;
    spec::complete_process(&mut process, &root, &user)?;
    process.set_terminal(Some(console.is_some()));
    let uid = process.user().uid();
    let confinement = Confinement { capabilities: process.capabilities().clone(), seccomp };
    if let (Some(capabilities), Some(_)) = (process.capabilities().clone(), &confinement.seccomp) {
        process.set_capabilities(Some(with_filter_rights(capabilities)));
    }
    let file = paths::bundle(&container_id).join(format!("{exec_id}.json"));
    write_json(&file, &process)?;
    let executor = AgentExecutor { reporter, confinement: Some(confinement), window, init: None };
    let log = ErrorLog::start();
    let built = builder(&container_id, ends, uid, console, executor)?
        .as_tenant()
        .with_process(Some(&file))
        .with_detach(true)
        .build();
    let _ = fs::remove_file(&file);
    let pid = built.map_err(|e| logged(failure("cannot run a process in the container", &e), log))?;
    Ok(Made { pid: pid.as_raw(), uid })
}

/// Records for libcontainer that a container was started: it runs further processes in running containers only.
pub(crate) fn mark_running(container_id: &str) -> Result<(), Failure> {
    let mark = || {
        let mut container = Container::load(PathBuf::from(paths::STATE).join(container_id))?;
        container.set_status(ContainerStatus::Running).save()
    };
    mark().map_err(|e| failure("cannot update the container's state", &e))
}

fn builder(
    container_id: &str,
    ends: ChildEnds,
    owner: u32,
    console: Option<PathBuf>,
    executor: AgentExecutor,
) -> Result<ContainerBuilder, Failure> {
    // So that a process that is not root can open its own /dev/stdout and so on.
    for end in ends.open() {
        fchown(end, Some(Uid::from_raw(owner)), None)
            .map_err(|e| Failure::io("cannot give a pipe to the process's user", &e.into()))?;
    }
    let mut builder = ContainerBuilder::new(container_id.to_owned(), SyscallType::default())
        .with_root_path(paths::STATE)
        .map_err(|e| failure("cannot use the state directory", &e))?
        .with_console_socket(console)
        .with_executor(executor);
    builder.stdin = ends.stdin;
    builder.stdout = ends.stdout;
    builder.stderr = ends.stderr;
    Ok(builder)
}

/// What loading a seccomp filter takes, besides what the process may keep.
fn with_filter_rights(mut capabilities: LinuxCapabilities) -> LinuxCapabilities {
    let add = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend([Capability::SysAdmin, Capability::Setpcap]);
        Some(set)
    };
    let (bounding, effective, permitted) =
        (add(capabilities.bounding()), add(capabilities.effective()), add(capabilities.permitted()));
    capabilities.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    capabilities
}

/// libcontainer only joins a cgroup that exists, and spends more on making one than it takes.
fn make_cgroup(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Failure::io(format_args!("cannot make {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Failure> {
    let json = serde_json::to_vec(value).map_err(|e| Failure::internal(e.to_string()))?;
    fs::write(path, json).map_err(|e| Failure::io(format_args!("cannot write {}", path.display()), &e))
}

/// Adds what libcontainer has logged.
fn logged(mut failure: Failure, log: io::Result<ErrorLog>) -> Failure {
    if let Ok(mut log) = log {
        failure.message.push_str(&log.text());
    }
    failure
}

/// An error of libcontainer's with everything that caused it, on one line.
fn failure(what: &str, error: &dyn Error) -> Failure {
    Failure::internal(format!("{what}: {}", chain::text(error)))
}
