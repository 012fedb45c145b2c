//! Making containers, and adding further processes.

use std::{path::Path, sync::Arc};

use containerd_shim_protos::{
    api::{CreateTaskRequest, Mount},
    events::task::{TaskCreate, TaskExecAdded, TaskIO},
    topics,
};
use husk_sandbox::{
    oci::{
        bundle::{self, Annotations},
        hooks::HostHooks,
        host_namespaces,
    },
    pod::{ContainerRequest, DiskSource, FsMount, PidNamespace, RootfsSource},
};
use oci_spec::runtime::{LinuxNamespaceType, Process as ProcessSpec, Spec};

use super::{Tasks, lock};
use crate::{
    entry::{Entry, ProcessEntry, Role, Stdio},
    error::Error,
    join,
    sandbox_api::files,
    stdio,
};

/// File systems that the guest mounts by itself, if that is all there is to mount.
const DISK_FILESYSTEMS: [&str; 2] = ["ext4", "erofs"];

impl Tasks {
    /// Makes a container, and its pod if it is the first one. Returns its number.
    ///
    /// # Errors
    /// When its id is taken, when its spec is no good, or when pod or container can't be made. Nothing is left of it then.
    pub(crate) async fn create(self: &Arc<Self>, request: CreateTaskRequest) -> Result<u32, Error> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented(
                "a container can't be made from a checkpoint: not implemented".into(),
            ));
        }
        let id = request.id.clone();
        let bundle = Path::new(&request.bundle);
        let mut spec = bundle::spec(bundle)?;
        host_namespaces::refuse(&spec)?;
        let empty = Annotations::new();
        let annotations = spec.annotations().as_ref().unwrap_or(&empty);
        let role = if bundle::is_sandbox(annotations) { Role::Pause } else { Role::Member };
        if role == Role::Member && bundle::sandbox_id(annotations).is_some_and(|sandbox| sandbox != id) {
            // Its pod was started before it, or has been stopped.
            self.pod()?;
        }
        if let Some(sandbox) = self.sandbox_bundle() {
            files::mount(&mut spec, &sandbox);
        }
        let io = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        self.containers().add(&id, Entry::container(request.bundle.clone(), role, io.clone()))?;
        let made = self.make(&id, bundle, spec, role, &io, &request.rootfs).await;
        if made.is_err() {
            let hooks = lock(&self.hosts).remove(&id).and_then(|host| host.hooks);
            if let Some(hooks) = hooks {
                hooks.stopped().await;
            }
            self.containers().remove(&id);
            if self.containers().is_empty() {
                self.stop_pod().await;
                self.end_if_left_alone();
            }
        }
        let pid = made?;
        let event = TaskCreate {
            container_id: id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIO {
                stdin: io.stdin,
                stdout: io.stdout,
                stderr: io.stderr,
                terminal: io.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid,
            ..TaskCreate::default()
        };
        self.publisher.publish(topics::TASK_CREATE_EVENT_TOPIC, &event);
        Ok(pid)
    }

    async fn make(
        self: &Arc<Self>,
        id: &str,
        bundle: &Path,
        spec: Spec,
        role: Role,
        io: &Stdio,
        rootfs: &[Mount],
    ) -> Result<u32, Error> {
        let hooks = HostHooks::of(id, bundle, &spec);
        let (pod, pid) = self.start_pod(id, &spec, hooks.clone()).await?;
        if role == Role::Pause {
            self.set_sysctls(&pod, &spec).await?;
            tokio::spawn(self.clone().attend_sandbox(pod, id.to_owned()));
            return Ok(pid);
        }
        let rootfs = rootfs_source(rootfs, bundle, &spec);
        if let Some(hooks) = hooks {
            hooks.creating(&rootfs, &bundle::root(bundle, &spec), pid).await?;
        }
        let prepared = stdio::prepare(io, id, &self.namespace).await?;
        let request = ContainerRequest {
            id: id.to_owned(),
            rootfs,
            pids: self.pid_namespace(&spec),
            stdio: stdio::flags(io),
            spec,
            own: None,
        };
        let created = pod.create(request).await?;
        let copying = prepared.connect(created.streams);
        lock(&self.copying).insert((id.to_owned(), String::new()), copying);
        tokio::spawn(self.clone().attend_container(pod, id.to_owned()));
        Ok(pid)
    }

    /// Adds a further process, which does not run yet.
    ///
    /// # Errors
    /// When the container does not allow it, or the id is taken.
    pub(crate) fn exec(&self, id: &str, exec_id: &str, io: Stdio, spec: ProcessSpec) -> Result<(), Error> {
        if self.sandbox_pid(id)?.is_some() {
            let text = "the container that stands for the pod has no files, and runs no programs";
            return Err(Error::State(text.into()));
        }
        self.containers().add_exec(id, exec_id, ProcessEntry::new(io, Some(spec)))?;
        let event =
            TaskExecAdded { container_id: id.into(), exec_id: exec_id.into(), ..TaskExecAdded::default() };
        self.publisher.publish(topics::TASK_EXEC_ADDED_EVENT_TOPIC, &event);
        Ok(())
    }

    /// Whose processes a container shall see. A path is one that was made of a number that we gave.
    fn pid_namespace(&self, spec: &Spec) -> PidNamespace {
        let named = join::path(spec, LinuxNamespaceType::Pid).as_deref().and_then(join::number);
        let Some(pid) = named else { return PidNamespace::Own };
        let containers = self.containers();
        let owner =
            containers.ids().find(|id| containers.process(id, "").is_ok_and(|init| init.own.pid == pid));
        match owner {
            Some(id) if containers.get(id).is_ok_and(|owner| owner.own.is_sandbox()) => PidNamespace::Pod,
            Some(id) => PidNamespace::OfContainer(id.to_owned()),
            None => PidNamespace::Own,
        }
    }
}

/// Where a container's root comes from: one disk that the guest can mount, or mounts for the host to make, or the directory in
/// the spec (Docker's own storage).
fn rootfs_source(mounts: &[Mount], bundle: &Path, spec: &Spec) -> RootfsSource {
    match mounts {
        [] => RootfsSource::Directory(bundle::root(bundle, spec)),
        [disk] if DISK_FILESYSTEMS.contains(&disk.type_.as_str()) => RootfsSource::Disk(DiskSource {
            path: disk.source.clone().into(),
            fs_type: disk.type_.clone(),
            options: disk.options.clone(),
            read_only: disk.options.iter().any(|option| option == "ro"),
        }),
        mounts => RootfsSource::Mounts(mounts.iter().map(fs_mount).collect()),
    }
}

fn fs_mount(mount: &Mount) -> FsMount {
    FsMount { fs_type: mount.type_.clone(), source: mount.source.clone(), options: mount.options.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(type_: &str, options: &[&str]) -> Mount {
        Mount {
            type_: type_.into(),
            source: "/s".into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn each_snapshotters_mounts_find_their_way() {
        let spec = Spec::default();
        let of = |mounts: &[Mount]| rootfs_source(mounts, Path::new("/b"), &spec);
        let RootfsSource::Directory(path) = of(&[]) else { panic!("not a directory") };
        assert_eq!(path, Path::new("/b/rootfs"));
        let RootfsSource::Disk(disk) = of(&[mount("ext4", &["ro", "loop"])]) else { panic!("not a disk") };
        assert!(disk.read_only && disk.path == Path::new("/s"));
        for mounts in [
            vec![mount("overlay", &[])],
            vec![mount("bind", &[])],
            vec![mount("erofs", &[]), mount("overlay", &[])],
        ] {
            let RootfsSource::Mounts(made) = of(&mounts) else { panic!("not mounts") };
            assert_eq!(made.len(), mounts.len());
        }
    }
}
