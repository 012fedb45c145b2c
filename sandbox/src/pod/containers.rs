//! What a pod's front end does with containers and their processes.

use std::{
    collections::HashMap,
    future::Future,
    path::Path,
    time::{Duration, SystemTime},
};

use husk_protocol::agent::{
    ContainerRef, CreateContainerRequest, Empty, ExecRequest, ProcessInfo, ProcessRef, ProcessResponse,
    ResizeTtyRequest, RootFs, SignalRequest, StatsResponse, Stdio, Sysctls, UpdateRequest, root_fs::Root,
};
use oci_spec::runtime::{LinuxResources, Process};
use serde::Serialize;
use ttrpc::context::{self, Context};

use super::{
    ContainerRequest, Created, Event, Exit, Member, OwnSpec, PidNamespace, Pod, RootfsSource, StdioFlags,
    share::{Places, Tree},
    spec,
};
use crate::{Error, Result, guest::timed_out, untrusted};

/// Processes that a guest lists beyond these are left out.
const MAX_PROCESSES: usize = 4096;
/// Most bytes of a process's command line.
const MAX_COMMAND: usize = 4096;
/// Most bytes of other texts about a process.
const MAX_TEXT: usize = 128;
/// What engines make a pod's shared memory, in bytes.
const SHARED_MEMORY_BYTES: u64 = 64 << 20;

/// How long a guest's next event is not asked for.
const BETWEEN_EVENTS: Duration = Duration::from_millis(20);

/// Why a directory can't be shared with a guest that was started without.
const NO_SHARES: &str = "the pod's virtual machine was started without directories of the host: mount them in the pod's first container, too";

impl Pod {
    /// Makes a container, up to but not including its first process's program.
    ///
    /// # Errors
    /// When there is one of this id; when a source of a mount is missing, or can't be shared with a VM; when spec, root or
    /// program are no good. Nothing is left of it then.
    pub async fn create(&self, request: ContainerRequest) -> Result<Created> {
        let ContainerRequest { id, spec, rootfs, pids, stdio, own } = request;
        let pids = self.pid_namespace(&pids)?;
        let oom_score = spec.process().as_ref().and_then(Process::oom_score_adj);
        let spec::Guest { mut spec, binds, blocks, shared_memory } =
            spec::for_guest(spec, &id, pids, own.is_some())?;
        {
            let mut members = self.members();
            if members.contains_key(&id) {
                return Err(Error::AlreadyExists(format!("container {id:?} exists already")));
            }
            let shares_pids = pids != spec::Pids::Own;
            members.insert(id.clone(), Member { shares_pids, oom_score, ..Default::default() });
        }
        self.apply_oom_score();
        let created = async {
            let (rootfs, places) = self.prepare(&id, rootfs, binds).await?;
            spec::place(&mut spec, &id, &places);
            let mut block_devices = Vec::with_capacity(blocks.len());
            for block in blocks {
                let device = self.disks.attach_block(block).await?;
                self.remember_disk(&id, &device.serial);
                block_devices.push(device);
            }
            let expected = self.hub.expect(&id, "", stdio);
            let OwnSpec { user, volumes, init } = own.unwrap_or_default();
            let request = CreateContainerRequest {
                container_id: id.clone(),
                spec_json: json(&spec)?,
                rootfs: Some(rootfs).into(),
                stdio: Some(self.stdio(stdio, spec.process().as_ref())).into(),
                user,
                volumes,
                init,
                block_devices,
                shared_memory_bytes: shared_memory.map_or(0, |path| size_of_shared_memory(&path)),
                ..Default::default()
            };
            let making = self.guest.agent().create_container(self.guest.soon(), &request);
            self.made(making, expected.all()).await
        };
        match created.await {
            Ok(created) => {
                if let Some(member) = self.members().get_mut(&id) {
                    member.pid = Some(created.pid);
                }
                Ok(created)
            }
            Err(error) => {
                // The reason counts. What is left goes with the pod.
                let _ = self.forget(&id).await;
                Err(error)
            }
        }
    }

    /// Lets a container's first process run its program. What was added to the pod's network namespace before is there then:
    /// Docker does so between a container's creation and its start.
    ///
    /// # Errors
    /// When there is no such container, it was started before, or the guest can't have an interface of the namespace.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.network.catch_up().await?;
        let request = container(id);
        self.done(self.guest.agent().start_container(self.guest.soon(), &request)).await.map(drop)
    }

    /// Runs another process in a started container. `user`, if given, is looked up in the container's own files; an empty one is
    /// the process's.
    ///
    /// # Errors
    /// When there is no such container, it does not run, it has had an exec of this id, or the program can't be run.
    pub async fn exec(
        &self,
        id: &str,
        exec_id: &str,
        process: Process,
        stdio: StdioFlags,
        user: Option<&str>,
    ) -> Result<Created> {
        let process = spec::process_for_guest(process, user.is_some());
        let expected = self.hub.expect(id, exec_id, stdio);
        let request = ExecRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            process_json: json(&process)?,
            stdio: Some(self.stdio(stdio, Some(&process))).into(),
            user: user.unwrap_or_default().into(),
            ..Default::default()
        };
        self.made(self.guest.agent().exec(self.guest.soon(), &request), expected.all()).await
    }

    /// Returns when a process has ended and all its output is in its streams; `exec_id` is empty for the container's first.
    /// Can be called any number of times, until the process is deleted. Where a container's first process does not take the others
    /// with it, since they share a PID namespace, they are killed now.
    ///
    /// # Errors
    /// When there is no such process, or the VM ends.
    pub async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit> {
        let request = process(id, exec_id);
        let ended = self.done(self.guest.agent().wait(Context::default(), &request)).await?;
        if exec_id.is_empty() && self.members().get(id).is_some_and(|member| member.shares_pids) {
            // As runc's shim has it. They may have ended, or the container be deleted.
            let _ = self.signal(id, "", libc::SIGKILL.unsigned_abs(), true).await;
        }
        Ok(Exit { code: ended.exit_code, oom_killed: ended.oom_killed, at: SystemTime::now() })
    }

    /// Sends a signal to a process, or with `all` to every process of the container.
    ///
    /// # Errors
    /// When there is no such process, or it has ended.
    pub async fn signal(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let (container_id, exec_id) = (id.into(), exec_id.into());
        let request = SignalRequest { container_id, exec_id, signal, all, ..Default::default() };
        self.done(self.guest.agent().signal(self.guest.soon(), &request)).await.map(drop)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// When there is no such process, or it has no terminal.
    pub async fn resize(&self, id: &str, exec_id: &str, rows: u32, columns: u32) -> Result<()> {
        let (container_id, exec_id) = (id.into(), exec_id.into());
        let request = ResizeTtyRequest { container_id, exec_id, rows, columns, ..Default::default() };
        self.done(self.guest.agent().resize_tty(self.guest.soon(), &request)).await.map(drop)
    }

    /// The processes of a container. There are not more than the agent's API allows, and their texts are harmless to print.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>> {
        let request = container(id);
        let list = self.done(self.guest.agent().list_processes(self.guest.soon(), &request)).await?;
        Ok(list.processes.into_iter().take(MAX_PROCESSES).map(harmless).collect())
    }

    /// What a container uses, as its cgroup in the guest says.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn stats(&self, id: &str) -> Result<StatsResponse> {
        let request = container(id);
        self.done(self.guest.agent().stats(self.guest.soon(), &request)).await
    }

    /// Stops all processes of a container where they are.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let request = container(id);
        self.done(self.guest.agent().pause(self.guest.soon(), &request)).await.map(drop)
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn resume(&self, id: &str) -> Result<()> {
        let request = container(id);
        self.done(self.guest.agent().resume(self.guest.soon(), &request)).await.map(drop)
    }

    /// Changes a container's limits; what `resources` does not say stays as it is.
    ///
    /// # Errors
    /// When there is no such container, or the guest's kernel refuses a limit.
    pub async fn update(&self, id: &str, resources: LinuxResources) -> Result<()> {
        let resources_json = json(&spec::resources_for_guest(resources))?;
        let request = UpdateRequest { container_id: id.into(), resources_json, ..Default::default() };
        self.done(self.guest.agent().update(self.guest.soon(), &request)).await.map(drop)
    }

    /// Sets what all containers share of an OCI spec's `linux.sysctl`: settings below net, and of the IPC namespace. For those in a
    /// sandbox's own spec; those in a container's apply by themselves.
    ///
    /// # Errors
    /// When one is none of these, or the guest's kernel refuses it.
    pub async fn set_sysctls(&self, values: HashMap<String, String>) -> Result<()> {
        let request = Sysctls { values, ..Default::default() };
        self.done(self.guest.agent().set_sysctls(self.guest.soon(), &request)).await.map(drop)
    }

    /// Returns when something has happened. To be called by one at a time, again and again.
    ///
    /// # Errors
    /// When the VM ends.
    pub async fn next_event(&self) -> Result<Event> {
        let event = self.done(self.guest.agent().next_event(Context::default(), &Empty::default())).await?;
        // A guest that has something to say all the time is not listened to all the time.
        tokio::time::sleep(BETWEEN_EVENTS).await;
        Ok(Event::Oom { container_id: event.container_id })
    }

    /// Forgets a further process that has ended; its id may be used again.
    ///
    /// # Errors
    /// When there is no such process, or it runs.
    pub async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<()> {
        let request = process(id, exec_id);
        self.done(self.guest.agent().delete_process(self.guest.soon(), &request)).await.map(drop)
    }

    /// Kills what is left of a container, and takes its mounts and its disk away.
    ///
    /// # Errors
    /// When there is no such container, or something of it can't be taken away.
    pub async fn delete(&self, id: &str) -> Result<()> {
        self.delete_within(id, self.guest.timeout()).await
    }

    /// The same, and the guest may take so long to write what it has kept of the container's disk.
    ///
    /// # Errors
    /// As of [`Pod::delete`].
    pub async fn delete_within(&self, id: &str, limit: Duration) -> Result<()> {
        let (request, context) = (container(id), context::with_duration(limit));
        self.done(self.guest.agent().delete_container(context, &request)).await?;
        self.forget(id).await
    }

    /// Has the guest write what it has kept of containers' disks, by taking those containers away. A guest that can't, or is
    /// gone, has lost it.
    pub(super) async fn unmount_disks(&self) {
        let requests: Vec<ContainerRef> = {
            let members = self.members();
            let with_disks = members.iter().filter(|(_, member)| !member.disks.is_empty());
            with_disks.map(|(id, _)| container(id)).collect()
        };
        for request in requests {
            let done = self.guest.agent().delete_container(self.guest.soon(), &request).await;
            if done.is_err_and(|error| timed_out(&error)) {
                // Nor would it answer for the others.
                return;
            }
        }
    }

    /// Gives a container's root and mounts to the guest; returns where the sources of the latter are.
    async fn prepare(
        &self,
        id: &str,
        rootfs: RootfsSource,
        binds: Vec<spec::Bind>,
    ) -> Result<(RootFs, Vec<String>)> {
        let (tree, disk) = match rootfs {
            RootfsSource::Directory(path) => (Some(Tree::Directory(path)), None),
            RootfsSource::Mounts(mounts) => (Some(Tree::Mounts(mounts)), None),
            RootfsSource::Disk(source) => {
                let disk = self.disks.attach_root(source).await?;
                self.remember_disk(id, &disk.serial);
                (None, Some(Root::Disk(disk)))
            }
            RootfsSource::Image(root) => {
                let (disks, serials) = self.disks.attach_image(root).await?;
                serials.iter().for_each(|serial| self.remember_disk(id, serial));
                (None, Some(Root::Image(disks)))
            }
        };
        let places = match &self.share {
            Some(share) => share.add(id, tree, binds).await?,
            None if tree.is_none() && binds.is_empty() => Places::default(),
            None => return Err(Error::InvalidOption(NO_SHARES.into())),
        };
        let root = disk.or(places.root.map(Root::SharedDir));
        Ok((RootFs { root, ..Default::default() }, places.binds))
    }

    /// Takes away what the host has of a container.
    async fn forget(&self, id: &str) -> Result<()> {
        let member = self.members().remove(id).unwrap_or_default();
        self.apply_oom_score();
        let mut result = match &self.share {
            Some(share) => share.remove(id).await,
            None => Ok(()),
        };
        for serial in member.disks {
            result = result.and(self.disks.detach(serial).await);
        }
        result
    }

    /// The host is to spare the pod as it would spare its most important container.
    fn apply_oom_score(&self) {
        let most_important = self.members().values().filter_map(|member| member.oom_score).min();
        if let Some(score) = most_important {
            self.processes.set_oom_score(score);
        }
    }

    fn remember_disk(&self, id: &str, serial: &str) {
        if let Some(member) = self.members().get_mut(id) {
            member.disks.push(serial.to_owned());
        }
    }

    fn pid_namespace(&self, wanted: &PidNamespace) -> Result<spec::Pids> {
        Ok(match wanted {
            PidNamespace::Own => spec::Pids::Own,
            PidNamespace::Pod => spec::Pids::Pod,
            PidNamespace::OfContainer(id) => {
                let pid = self.members().get(id).and_then(|member| member.pid);
                let unknown =
                    || Error::NotFound(format!("no container {id:?}, whose processes are to be seen"));
                spec::Pids::Of(pid.ok_or_else(unknown)?)
            }
        })
    }

    fn stdio(&self, flags: StdioFlags, process: Option<&Process>) -> Stdio {
        let size = process.and_then(Process::console_size);
        let side = |side: u64| u32::try_from(side).unwrap_or_default();
        Stdio {
            stdin: flags.stdin,
            stdout: flags.stdout,
            stderr: flags.stderr && !flags.terminal,
            terminal: flags.terminal,
            rows: size.map_or(0, |size| side(size.height())),
            columns: size.map_or(0, |size| side(size.width())),
            port: self.guest.stdio_port(),
            ..Default::default()
        }
    }

    /// A process whose streams come while it is made.
    async fn made(
        &self,
        making: impl Future<Output = ttrpc::Result<ProcessResponse>>,
        streams: impl Future<Output = crate::stdio::Streams>,
    ) -> Result<Created> {
        let making = async { self.done(making).await };
        let late = Error::AgentTimeout { seconds: self.guest.timeout().as_secs(), console: String::new() };
        let streams = async { tokio::time::timeout(self.guest.timeout(), streams).await.map_err(|_| late) };
        let (made, streams) = tokio::try_join!(making, streams)?;
        Ok(Created { pid: made.pid, streams })
    }

    async fn done<T>(&self, request: impl Future<Output = ttrpc::Result<T>>) -> Result<T> {
        match request.await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.explain(error).await),
        }
    }
}

/// The size of the file system that an engine has made for a pod's shared memory; 0: it has no limit. Where it has made none, the
/// size that engines give.
fn size_of_shared_memory(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(SHARED_MEMORY_BYTES, |all| all.f_blocks.saturating_mul(all.f_frsize))
}

/// A process as the guest describes it, with texts that are cut and can be printed.
fn harmless(mut process: ProcessInfo) -> ProcessInfo {
    for text in [&mut process.exec_id, &mut process.user, &mut process.tty] {
        *text = untrusted::line(text, MAX_TEXT);
    }
    process.command = untrusted::line(&process.command, MAX_COMMAND);
    process
}

fn container(id: &str) -> ContainerRef {
    ContainerRef { container_id: id.into(), ..Default::default() }
}

fn process(id: &str, exec_id: &str) -> ProcessRef {
    ProcessRef { container_id: id.into(), exec_id: exec_id.into(), ..Default::default() }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::InvalidOption(format!("cannot describe the container to the guest: {error}")))
}
