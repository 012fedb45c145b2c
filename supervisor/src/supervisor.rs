//! The pod's life: it starts with its first container, and ends when that has ended for good. All other containers join it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use husk_network::unprivileged;
use husk_sandbox::{
    Error, Result, disk,
    events::{self, Event},
    logs::Writer,
    network::NetworkMode,
    paths::{Assets, Dirs},
    pod::{
        ContainerRequest, ImageRoot, OwnSpec, Pod, PodAssets, PodNetwork, PodOptions, RootfsSource,
        StdioFlags,
        state::{Action, Status},
    },
    rundir::RunDir,
    sizing, spec,
    store::{self, Config, State, Store},
    timeline::{Stage, now_ns},
};
use tokio::{sync::watch, time::timeout};

use crate::entry::{self, Containers, Entry};

/// How long a container that has ended may take to be out of the pod, so that it can join it again.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(10);

/// Owns one pod.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) dirs: Dirs,
    pub(crate) store: Store,
    pub(crate) dir: Arc<RunDir>,
    pub(crate) containers: Mutex<Containers>,
    pod: Mutex<Option<Arc<Pod>>>,
    /// Held while a container is started.
    pub(crate) starting: tokio::sync::Mutex<()>,
    /// Changes when a container is taken out of the pod.
    pub(crate) forgotten: watch::Sender<()>,
    pub(crate) finished: watch::Sender<bool>,
}

impl Supervisor {
    /// That of the container whose run directory this is. Nothing is started yet.
    ///
    /// # Errors
    /// When its record can't be read.
    pub(crate) fn new(dirs: Dirs, dir: RunDir) -> Result<Arc<Self>> {
        let store = Store::made(&dirs);
        let this = Self {
            dirs,
            store,
            dir: Arc::new(dir),
            containers: Mutex::default(),
            pod: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            forgotten: watch::Sender::default(),
            finished: watch::Sender::new(false),
        };
        this.add(this.dir.id())?;
        let first = this.containers().get(this.dir.id()).map_err(unknown)?.own.config.clone();
        if let NetworkMode::Pasta(_) = first.network.options.mode {
            unprivileged::end_with_pasta().map_err(|source| Error::Io {
                what: "watch",
                path: "pasta".into(),
                source,
            })?;
        }
        Ok(Arc::new(this))
    }

    /// Takes a container into the running pod, once what is left of its last life here is gone.
    ///
    /// # Errors
    /// When it is in the pod already, or its record can't be read.
    pub(crate) async fn join(&self, id: &str) -> Result<()> {
        let mut forgotten = self.forgotten.subscribe();
        let ended =
            || self.containers().process(id, "").is_ok_and(|process| process.watch_exit().borrow().is_some());
        // What the guest does not let go of is in the way, and said to be.
        let _ = timeout(FORGOTTEN_WITHIN, forgotten.wait_for(|_| !ended())).await;
        self.add(id)
    }

    /// Takes a container into the pod, by its record.
    ///
    /// # Errors
    /// When it is in the pod already, or its record can't be read.
    fn add(&self, id: &str) -> Result<()> {
        let (config, state) = (self.store.config(id)?, self.store.state(id)?);
        let added = self.containers().add(id, entry::container(config, state));
        added.map_err(|error| Error::AlreadyExists(error.to_string()))
    }

    /// Whether the pod's VM is this container's own.
    pub(crate) fn is_first(&self, id: &str) -> bool {
        id == self.dir.id()
    }

    /// Whether a client has asked for the end of a container.
    pub(crate) fn is_stopping(&self, id: &str) -> bool {
        self.containers().get(id).is_ok_and(|container| container.own.stopping)
    }

    /// The pod's VM.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn pod(&self) -> Result<Arc<Pod>> {
        let gone = || Error::WrongState("the container is not running".into());
        lock(&self.pod).clone().ok_or_else(gone)
    }

    /// Starts a container that has not been started, or has ended. Nothing is left of it when that fails.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) async fn start_now(&self, id: &str) -> Result<()> {
        let started = self.start_process(id).await;
        if started.is_err() {
            self.take_away(id).await;
        }
        started
    }

    async fn start_process(&self, id: &str) -> Result<()> {
        let (config, hub, log) = {
            let containers = self.containers();
            let entry = containers.get(id).map_err(unknown)?;
            (entry.own.config.clone(), entry.init.own.hub.clone(), entry.own.log.clone())
        };
        let root = self.root(&config)?;
        let spec = spec::build(&config.image.name, &config.image_config, &config.options, id)?;
        let writer = Writer::open(&self.store.log(id), &config.log, &config.log_attributes())?;
        *lock(&log) = writer;
        let pod = if self.is_first(id) { self.boot(&config, root.clone()).await? } else { self.pod()? };
        let options = &config.options;
        let stdio = StdioFlags {
            stdin: options.interactive,
            stdout: true,
            stderr: !options.terminal,
            terminal: options.terminal,
        };
        let user = options.user.clone().or(config.image_config.user.clone()).unwrap_or_default();
        let request = ContainerRequest {
            id: id.to_owned(),
            spec: spec.clone(),
            rootfs: RootfsSource::Image(root),
            pids: Default::default(),
            stdio,
            own: Some(OwnSpec {
                user,
                volumes: config.image_config.volumes.clone(),
                init: config.options.init,
            }),
        };
        let created = pod.create(request).await?;
        hub.connect(created.streams, &log).map_err(|source| Error::Io {
            what: "use",
            path: "the container's standard streams".into(),
            source,
        })?;
        if self.is_stopping(id) {
            return Err(Error::WrongState("the container was stopped before it ran".into()));
        }
        pod.start_container(id).await?;
        self.change(id, |entry| {
            entry.spec = Some(spec);
            let (pid, pod_id) = (std::process::id(), self.dir.id().to_owned());
            entry.state = State {
                status: store::Status::Running,
                pod: pod_id,
                pid,
                started: store::Timestamp::now(),
                restarts: entry.state.restarts,
                finished: entry.state.finished,
                lost_log_lines: entry.state.lost_log_lines,
                endpoints: pod.endpoints().to_vec(),
                ports: pod.published().to_vec(),
                ..State::default()
            };
        })?;
        {
            let mut containers = self.containers();
            let process = containers.process_mut(id, "").map_err(unknown)?;
            process.status = Status::Running;
            process.own.pid = created.pid;
        }
        self.event(id, "start", &[]);
        Ok(())
    }

    /// Starts the VM.
    async fn boot(&self, config: &Config, root: ImageRoot) -> Result<Arc<Pod>> {
        let assets = PodAssets { vm: Assets::find(config.kernel.as_deref())?, filesystem: PathBuf::new() };
        let options = PodOptions {
            vcpus: sizing::vcpus(config.options.milli_cpus)?,
            mem_size_mib: sizing::mem_size_mib(config.options.memory_bytes)?,
            network: PodNetwork::Planned(config.network.clone()),
            hostname: config.network.hostname.clone(),
            roots: vec![root],
            shares: false,
            cgroup: None,
            timeout: Duration::from_secs(config.timeout_s),
            give_up: self.containers().get(&config.id).map_err(unknown)?.own.stop.clone(),
        };
        let planned = now_ns();
        let pod = Arc::new(Pod::start(&self.dirs, &assets, self.dir.clone(), options).await?);
        *lock(&self.pod) = Some(pod.clone());
        self.change(&config.id, |entry| entry.timeline = vec![(Stage::Planned.name(), planned)])?;
        Ok(pod)
    }

    /// The container's disks. What it has written before is kept.
    fn root(&self, config: &Config) -> Result<ImageRoot> {
        let scratch = self.store.scratch(&config.id);
        if !scratch.exists() {
            let kind = match config.auto_remove {
                true => disk::Kind::Temporary,
                false => disk::Kind::Kept,
            };
            disk::create(&self.dirs, &scratch, config.storage_mib, kind)?;
        }
        Ok(ImageRoot { container_id: config.id.clone(), base: config.image.disk.clone(), scratch })
    }

    /// Takes away what the host and the guest have of a container that does not run; with the first one, the VM.
    pub(crate) async fn take_away(&self, id: &str) {
        if self.is_first(id) {
            self.end_vm().await;
            if let Err(error) = self.dir.clear() {
                tracing::warn!("{}", husk_base::chain::text(&error));
            }
        } else if let Ok(pod) = self.pod() {
            // It may not have been made. What is left goes with the pod.
            let _ = pod.delete(id).await;
        }
    }

    /// Ends the VM, if there is one, at once.
    pub(crate) async fn end_vm(&self) {
        let Some(pod) = lock(&self.pod).take() else { return };
        if let Err(error) = pod.stop().await {
            tracing::warn!("not all is cleaned up: {}", husk_base::chain::text(&error));
        }
    }

    /// Whether a container is being started.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting.try_lock().is_err()
    }

    /// Whether something may be done with a process now.
    ///
    /// # Errors
    /// When not.
    pub(crate) fn allow(&self, id: &str, exec_id: &str, action: Action) -> Result<()> {
        self.containers().allow(id, exec_id, action).map_err(unknown)
    }

    /// Changes a container's entry, and its record with it. Returns whether the container is removed now.
    ///
    /// # Errors
    /// When there is no such container. A record that can't be written (the disk is full) is noted: the container goes on.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) -> Result<bool> {
        let state = {
            let mut containers = self.containers();
            let entry = &mut containers.get_mut(id).map_err(unknown)?.own;
            let before = entry.state.clone();
            change(entry);
            if entry.state == before || entry.removed {
                return Ok(entry.removed);
            }
            entry.state.clone()
        };
        if let Err(error) = self.store.write_state(id, &state) {
            tracing::warn!("{}", husk_base::chain::text(&error));
        }
        Ok(false)
    }

    /// Writes an event of a container down, with attributes of its own.
    pub(crate) fn event(&self, id: &str, action: &str, attributes: &[(&str, String)]) {
        let event = {
            let containers = self.containers();
            let Ok(container) = containers.get(id) else { return };
            Event::of_container(&container.own.config, action)
        };
        let event = attributes.iter().fold(event, |event, (key, value)| event.with(key, value.as_str()));
        events::record(&self.dirs, &event);
    }

    pub(crate) fn containers(&self) -> MutexGuard<'_, Containers> {
        lock(&self.containers)
    }
}

/// A refusal of the table of containers, in Docker's words where it has some.
pub(crate) fn unknown(error: husk_sandbox::pod::state::StateError) -> Error {
    use husk_sandbox::pod::state::StateError;
    match error {
        StateError::NoContainer(id) => Error::NoContainer { name: id },
        StateError::NoProcess(_) => Error::NotFound(error.to_string()),
        StateError::ContainerExists(_) | StateError::ProcessExists(_) => {
            Error::AlreadyExists(error.to_string())
        }
        StateError::Finished | StateError::NoExecId | StateError::NotAllowed { .. } => {
            Error::WrongState(error.to_string())
        }
    }
}

/// What is guarded is whole even if a thread has panicked with it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
