//! The containers of one pod: what containerd asks for, done with the pod, and told as events in runc's order.

mod create;
mod delete;
mod exits;
mod pod;
mod run;
mod sandbox;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use containerd_shim_protos::{
    api::{ProcessInfo, StateResponse, Status as ApiStatus},
    shim::oci::ProcessDetails,
};
use husk_sandbox::{
    config::Config,
    oci::{hooks::HostHooks, netns::Anchor},
    paths::Dirs,
    pod::{
        Exit, StatsResponse,
        state::{Action, Status},
    },
};
use oci_spec::runtime::LinuxResources;
use tokio::{sync::watch, time::sleep};

use self::{pod::PodSlot, sandbox::Sandbox};
use crate::{
    entry::{Containers, Stdio},
    error::Error,
    message,
    publisher::Publisher,
    stdio::Copying,
};

/// How long a shim without a container waits to be asked for one, or to be shut down. A containerd that has been killed since it started
/// the shim does neither.
const LEFT_ALONE: Duration = Duration::from_secs(120);

/// Docker's namespace in containerd.
const DOCKER: &str = "moby";

/// The containers, the pod that they are in, and what belongs to them on the host.
#[derive(Debug)]
pub(crate) struct Tasks {
    namespace: String,
    config: Config,
    dirs: Dirs,
    publisher: Publisher,
    pod: PodSlot,
    /// What the Sandbox API has said of the pod.
    sandbox: Mutex<Option<Sandbox>>,
    containers: Mutex<Containers>,
    /// What each container has on the host.
    hosts: Mutex<HashMap<String, HostPart>>,
    /// The streams of processes, by container and exec id.
    copying: Mutex<HashMap<(String, String), Copying>>,
    /// Containers whose lack of memory has been told.
    told_oom: Mutex<HashSet<String>>,
    finished: watch::Sender<bool>,
}

/// What a container has on the host.
#[derive(Debug)]
struct HostPart {
    /// Gives it a number here, for as long as it is there.
    _anchor: Anchor,
    /// Programs that are told of its life.
    hooks: Option<HostHooks>,
    /// Held while its start is told, so that its end comes after.
    starting: Arc<tokio::sync::Mutex<()>>,
}

impl Tasks {
    /// No container yet, and no pod.
    pub(crate) fn new(namespace: &str, config: Config, dirs: Dirs, publisher: Publisher) -> Arc<Self> {
        Arc::new(Self {
            namespace: namespace.to_owned(),
            config,
            dirs,
            publisher,
            pod: PodSlot::default(),
            sandbox: Mutex::default(),
            containers: Mutex::default(),
            hosts: Mutex::default(),
            copying: Mutex::default(),
            told_oom: Mutex::default(),
            finished: watch::Sender::new(false),
        })
    }

    /// Returns when the shim is no longer needed.
    pub(crate) async fn finished(&self) {
        // The sender is a part of self.
        let _ = self.finished.subscribe().wait_for(|finished| *finished).await;
    }

    /// The shim is no longer needed, unless there are containers.
    pub(crate) fn finish_if_empty(&self) {
        if self.containers().is_empty() {
            self.finished.send_replace(true);
        }
    }

    /// Sees to it that the shim ends if nobody asks it for a container for a while.
    pub(crate) fn end_if_left_alone(self: &Arc<Self>) {
        // The shim's end waits for whoever may still tell events.
        let tasks = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(LEFT_ALONE).await;
            if let Some(tasks) = tasks.upgrade() {
                tasks.finish_if_empty();
            }
        });
    }

    /// What a process is and does.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn state(&self, id: &str, exec_id: &str) -> Result<StateResponse, Error> {
        let containers = self.containers();
        let process = containers.process(id, exec_id)?;
        let (status, exit) = match process.status {
            Status::Created => (ApiStatus::CREATED, None),
            Status::Running => (ApiStatus::RUNNING, None),
            Status::Paused => (ApiStatus::PAUSED, None),
            Status::Stopped(exit) => (ApiStatus::STOPPED, Some(exit)),
        };
        let Stdio { stdin, stdout, stderr, terminal } = process.own.stdio.clone();
        Ok(StateResponse {
            id: if exec_id.is_empty() { id } else { exec_id }.to_owned(),
            bundle: containers.get(id)?.own.bundle.clone(),
            pid: process.own.pid,
            status: status.into(),
            stdin,
            stdout,
            stderr,
            terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.map(|exit| message::timestamp(exit.at)).into(),
            exec_id: exec_id.to_owned(),
            ..StateResponse::default()
        })
    }

    /// Returns when a process has ended.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit, Error> {
        let mut exit = self.containers().process(id, exec_id)?.watch_exit();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.ok_or_else(|| Error::NotFound(format!("container {id} was deleted before it ended")))
    }

    /// The processes of a container, by their numbers in the VM. Docker looks for them among the host's processes (`docker top`),
    /// where these numbers mean others: it gets the container's own.
    ///
    /// # Errors
    /// When there is no such container.
    pub(crate) async fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>, Error> {
        let number = self.sandbox_pid(id)?;
        let number = match number {
            None if self.namespace == DOCKER => Some(self.containers().process(id, "")?.own.pid),
            number => number,
        };
        if let Some(pid) = number {
            return Ok(vec![ProcessInfo { pid, ..ProcessInfo::default() }]);
        }
        let mut infos = Vec::new();
        for process in self.pod()?.processes(id).await? {
            let mut info = ProcessInfo { pid: process.pid, ..ProcessInfo::default() };
            let exec_id = process.exec_id;
            if !exec_id.is_empty() {
                info.info =
                    Some(message::any(&ProcessDetails { exec_id, ..ProcessDetails::default() })?).into();
            }
            infos.push(info);
        }
        Ok(infos)
    }

    /// What a container uses; the one that stands for its pod, what the VM uses of the host.
    ///
    /// # Errors
    /// When there is no such container, or it has ended.
    pub(crate) async fn stats(&self, id: &str) -> Result<StatsResponse, Error> {
        match self.sandbox_pid(id)? {
            Some(_) => Ok(self.pod()?.usage()),
            None => Ok(self.pod()?.stats(id).await?),
        }
    }

    /// Changes a container's limits.
    ///
    /// # Errors
    /// When there is no such container, or the guest refuses.
    pub(crate) async fn update(&self, id: &str, resources: LinuxResources) -> Result<(), Error> {
        self.containers().allow(id, "", Action::Update)?;
        match self.sandbox_pid(id)? {
            Some(_) => Ok(()),
            None => Ok(self.pod()?.update(id, resources).await?),
        }
    }

    /// The number of the container that stands for its pod; `None` for others.
    fn sandbox_pid(&self, id: &str) -> Result<Option<u32>, Error> {
        let containers = self.containers();
        let container = containers.get(id)?;
        Ok(container.own.is_sandbox().then_some(container.init.own.pid))
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        lock(&self.containers)
    }
}

/// What is guarded is whole even if a thread has panicked with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
