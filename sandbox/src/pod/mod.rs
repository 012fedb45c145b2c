//! A pod: a VM in which containers come and go.
//!
//! ```text
//!  Pod ──owns──> husk-vmm (VM) ── disks of images and containers
//!   │                 └─virtio-fs──> husk-fs ── its directory:  <container>/rootfs      bind of a root
//!   │                                                            .volumes/<n>            bind of a directory that is mounted
//!   │                                                            <container>/mounts/<n>  bind of a file that is mounted
//!   └──owns──> a thread in a mount namespace of its own, in which these binds are made
//! ```
//!
//! A pod that shares no directory has neither file server nor thread. None of the mounts is seen by the host. They end with the
//! processes that see them, however those end.

mod clock;
mod containers;
mod disks;
mod jailed;
mod options;
mod processes;
mod share;
mod spec;
mod stalls;
pub mod state;
mod streams;

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    future::pending,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use husk_network::publish::PortMapping;
pub use husk_protocol::agent::{DiskStats, StatsResponse};
use husk_protocol::{
    agent::{Empty, SetupSandboxRequest},
    cgroup,
};
use husk_vmm::client::Client;
use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};

pub use self::options::{
    ContainerRequest, Created, DiskSource, Event, Exit, FsMount, ImageRoot, OwnSpec, PidNamespace, PodAssets,
    PodNetwork, PodOptions, RootfsSource, StdioFlags,
};
pub use self::share::RootView;
use self::{
    disks::{AtStart, Disks},
    jailed::Jailed,
    processes::Processes,
    share::Share,
    streams::Hub,
};
use crate::{
    Error, Result,
    cgroup::Cgroup,
    filesystem::Server,
    guest::{Guest, timed_out},
    network::{Connection, Endpoint, Follow},
    paths::Dirs,
    privilege,
    rundir::RunDir,
    sizing,
    timeline::{Stage, Timeline, now_ns},
    vm::{self, Plan, Vm, VmProcess},
};

/// Slots for disks of containers, which join the running VM.
const SPARE_DISKS: u8 = 8;
/// What a pod's name in the list of names begins with, to tell it from a single container's.
pub const NAME_PREFIX: &str = "pod-";
/// How long to wait for the news that a VM is gone whose agent does not answer any more.
const NEWS_GRACE: Duration = Duration::from_secs(5);
/// After which time the processes that wait for VMM and server join these in their cgroup. Joining makes the host's kernel wait for all its
/// CPUs, and what is started meanwhile with it; so it is not done at the start, and short lives do without.
const WAITING_JOIN: Duration = Duration::from_secs(1);

/// A running pod. Dropping it ends it at once; [`Pod::stop`] says what went wrong with that.
#[derive(Debug)]
pub struct Pod {
    guest: Arc<Guest>,
    hub: Hub,
    disks: Disks,
    share: Option<Share>,
    control: PathBuf,
    network: Follow,
    endpoints: Vec<Endpoint>,
    published: Vec<PortMapping>,
    processes: Processes,
    /// The directory of the cgroup that VMM and server are in.
    cgroup: Option<PathBuf>,
    containers: Mutex<HashMap<String, Member>>,
    ended: watch::Receiver<Option<Arc<str>>>,
    running: tokio::sync::Mutex<Option<Running>>,
}

/// What [`Pod::stop`] takes away.
#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    supervisor: JoinHandle<Result<()>>,
    network: Option<Connection>,
    /// After the processes in it, which are killed with it.
    cgroup: Option<Cgroup>,
    dir: Arc<RunDir>,
    /// What ends when this is dropped.
    watching: JoinSet<()>,
}

/// A container, as its pod knows it.
#[derive(Debug, Default)]
struct Member {
    /// The number of its first process, when it is made.
    pid: Option<u32>,
    /// Its processes are not in a PID namespace of its own, and so don't end with its first one.
    shares_pids: bool,
    /// How readily it is to be killed for lack of memory.
    oom_score: Option<i32>,
    /// Its disks.
    disks: Vec<String>,
}

impl Pod {
    /// Starts a pod without containers in `dir`. To be awaited to its end: what it has done to a network namespace when it is
    /// dropped half-way is undone by the next start, or by [`after_kills`](crate::clean_up::after_kills).
    ///
    /// # Errors
    /// When an option can't be used, or takes root; when the network can't be made or taken over; when file system server or VM
    /// can't be started, or the agent does not answer. Whatever was made is gone then.
    pub async fn start(
        dirs: &Dirs,
        assets: &PodAssets,
        dir: Arc<RunDir>,
        options: PodOptions,
    ) -> Result<Self> {
        check(&options)?;
        let PodOptions { vcpus, mem_size_mib, network, hostname, roots, shares, cgroup, timeout, give_up } =
            options;
        let own_cgroup = match cgroup {
            Some(_) => None,
            None => Cgroup::create(dir.id(), mem_size_mib)?,
        };
        let cgroup = cgroup.or_else(|| own_cgroup.as_ref().map(|own| own.path().to_owned()));
        let share = if shares { Some(Share::start(&dir).await?) } else { None };
        let planned = match &share {
            Some(share) => Some(share.plan(&assets.filesystem, &dir, cgroup.as_deref())?),
            None => None,
        };
        let (server, socket) = planned.unzip();
        let (at_start, disks) = AtStart::of(&roots);
        let mut network = match &network {
            PodNetwork::Namespace { path, resolv_conf } => {
                Connection::of_namespace(dirs, &hostname, Some(path), resolv_conf.as_deref()).await?
            }
            PodNetwork::Planned(plan) => Connection::make(dirs, &dir, plan).await?,
        };
        let files = disks.clone();
        let plan = Plan {
            vcpus,
            mem_size_mib,
            disks,
            spare_disks: SPARE_DISKS,
            nets: network.take_nets(),
            spare_nets: network.spare_nets(),
            filesystem: socket,
            shared_memory: shares,
            cgroup: cgroup.clone(),
            timeout,
        };
        let booted = async {
            let serving = async {
                match (&share, server) {
                    (Some(share), Some(server)) => share.serve(server).await.map(Some),
                    _ => Ok(None),
                }
            };
            // The VM first: its making waits for the host's kernel, and it does not need its server before it has booted.
            let (mut vm, server) = tokio::try_join!(Vm::start(&assets.vm, &dir, plan), serving)?;
            let guest = vm.guest().clone();
            let set_up = SetupSandboxRequest { hostname, ..network.set_up() };
            match guest.set_up(set_up).await {
                Ok(()) => Ok((vm, server)),
                Err(error) => Err(vm.explain(error).await),
            }
        };
        let booted = async {
            tokio::select! {
                booted = booted => booted,
                () = give_up.notified() => Err(Error::WrongState("the container was stopped before it ran".into())),
            }
        };
        let (vm, server) = match booted.await {
            Ok(booted) => booted,
            Err(error) => {
                // The reason counts; what can't be undone now is found by the next start.
                let _ = network.close().await;
                return Err(error);
            }
        };
        let (process, guest) = vm.into_parts();
        let processes = Processes::of([process.id(), server.as_ref().and_then(Server::id)]);
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = watch::channel(None);
        let supervisor = tokio::spawn(supervise(process, server, cgroup.clone(), stopped, end));
        let hub = Hub::start(guest.clone());
        let (endpoints, published) = (network.endpoints(), network.published());
        let served = network.serve(&guest, &dir);
        let follow = network.follow();
        let control = vm::control_path(dir.path());
        let mut watching = JoinSet::new();
        watching.spawn(stalls::watch(Arc::clone(&dir), files));
        watching.spawn(clock::keep(Arc::clone(&guest)));
        let disks = Disks::new(control.clone(), guest.clone(), at_start);
        let running = Running { stop, supervisor, network: Some(network), cgroup: own_cgroup, dir, watching };
        if let Err(error) = served {
            let _ = running.end().await;
            return Err(error);
        }
        Ok(Self {
            guest,
            hub,
            disks,
            share,
            control,
            network: follow,
            endpoints,
            published,
            processes,
            cgroup,
            containers: Mutex::default(),
            ended,
            running: tokio::sync::Mutex::new(Some(running)),
        })
    }

    /// What VMM and guest have recorded of the way here. Timings are an extra: a missing part is left out.
    pub async fn timeline(&self) -> Vec<(Stage, u64)> {
        let mut timeline = Timeline::default();
        if let Ok(guest) = self.guest.agent().timeline(self.guest.soon(), &Empty::default()).await {
            timeline.add_guest(&guest, now_ns());
        }
        let control = self.control.clone();
        let asked = tokio::task::spawn_blocking(move || Client::connect(control)?.state()).await;
        if let Ok(Ok(state)) = asked {
            timeline.mark_at(Stage::VmmConfigured, state.configured_ns);
            timeline.mark_at(Stage::FirstInstruction, state.first_instruction_ns);
        }
        timeline.into_marks()
    }

    /// The networks that the guest is on since its start.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The ports of the host that lead to the guest.
    pub fn published(&self) -> &[PortMapping] {
        &self.published
    }

    /// Takes the pod's network away, so that addresses and ports are free for others. No process of it speaks any more.
    ///
    /// # Errors
    /// What could not be taken away; the next start tries again.
    pub async fn close_network(&self) -> Result<()> {
        let network = self.running.lock().await.as_mut().and_then(|running| running.network.take());
        match network {
            Some(network) => network.close().await,
            None => Ok(()),
        }
    }

    /// Returns when the pod has ended: why, if nobody stopped it.
    pub async fn ended(&self) -> Arc<str> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The supervisor does not end without a word, unless the runtime does.
            Err(_) => Arc::default(),
        }
    }

    /// What VMM and file server use of the host, the guest's memory included; nothing where they have no cgroup of their own.
    pub fn usage(&self) -> StatsResponse {
        self.cgroup.as_deref().map(cgroup::read).unwrap_or_default()
    }

    /// Ends the VM, and takes away everything that the pod had on the host. The second call finds nothing to do. What containers
    /// have written into shared files is the host's already, and the VM is ended at once; only disks are unmounted before.
    ///
    /// # Errors
    /// What could not be taken away; the next start tries again.
    pub async fn stop(&self) -> Result<()> {
        let Some(running) = self.running.lock().await.take() else { return Ok(()) };
        self.unmount_disks().await;
        self.members().clear();
        let ended = running.end().await;
        match &self.share {
            Some(share) => share.close().await.and(ended),
            None => ended,
        }
    }

    /// What a failed request means: the agent's own error, or that the VM is gone and why.
    async fn explain(&self, error: ttrpc::Error) -> Error {
        if timed_out(&error) {
            let seconds = self.guest.timeout().as_secs();
            return Error::AgentTimeout { seconds, console: String::new() };
        }
        if let ttrpc::Error::RpcStatus(_) = &error {
            return error.into();
        }
        match tokio::time::timeout(NEWS_GRACE, self.ended()).await {
            Ok(reason) => Error::VmLost { reason: reason.to_string() },
            Err(_) => error.into(),
        }
    }

    fn members(&self) -> MutexGuard<'_, HashMap<String, Member>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Ends VM and server, and takes network and directory away.
    async fn end(self) -> Result<()> {
        let Self { stop, supervisor, network, cgroup, dir, watching } = self;
        drop(watching);
        // It has ended by itself if nobody listens.
        let _ = stop.send(());
        let close = async {
            match network {
                Some(network) => network.close().await,
                None => Ok(()),
            }
        };
        let (killed, closed) = tokio::join!(supervisor, close);
        drop((cgroup, dir));
        killed.unwrap_or(Ok(())).and(closed)
    }
}

/// Ends VM and server when one of them ends, or when it is asked to, and says why in `end`.
async fn supervise(
    mut vm: VmProcess,
    mut server: Option<Server>,
    cgroup: Option<PathBuf>,
    stopped: oneshot::Receiver<()>,
    end: watch::Sender<Option<Arc<str>>>,
) -> Result<()> {
    let processes = [vm.id(), server.as_ref().and_then(Server::id)];
    let served = async {
        match &mut server {
            Some(server) => server.ended().await,
            None => pending().await,
        }
    };
    let reason = tokio::select! {
        reason = join(cgroup, processes) => match reason {},
        _ = stopped => "it was stopped".to_owned(),
        reason = vm.ended() => reason,
        reason = served => {
            // It ends when the VM does, too.
            match tokio::time::timeout(NEWS_GRACE, vm.ended()).await {
                Ok(reason) => reason,
                Err(_) => reason,
            }
        }
    };
    let jailed = Jailed::of(processes);
    let kill_server = async {
        match &mut server {
            Some(server) => server.kill().await,
            None => Ok(()),
        }
    };
    let (vm, server) = tokio::join!(vm.kill(), kill_server);
    jailed.gone().await;
    end.send_replace(Some(reason.into()));
    vm.and(server)
}

/// Puts processes into a cgroup, after a while, and never returns. What has ended, or can't join, is left where it is.
async fn join(cgroup: Option<PathBuf>, processes: [Option<u32>; 2]) -> Infallible {
    tokio::time::sleep(WAITING_JOIN).await;
    if let Some(cgroup) = cgroup {
        let join = move || {
            for pid in processes.into_iter().flatten() {
                let _ = fs::write(cgroup.join("cgroup.procs"), pid.to_string());
            }
        };
        let _ = tokio::task::spawn_blocking(join).await;
    }
    pending().await
}

fn check(options: &PodOptions) -> Result<()> {
    let invalid = |text: String| Err(Error::InvalidOption(text));
    if options.shares && !privilege::is_root() {
        return invalid(
            "directories of the host take root: they are served by a process that gives them to any user"
                .into(),
        );
    }
    Ok(sizing::check_vcpus(options.vcpus)?)
}
