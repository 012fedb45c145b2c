//! Network namespaces that somebody else fills: CNI's plugins in one of husk's own, or whoever prepared one beforehand.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use husk_base::{Mac, chain, dirs::make_dir_inside, id::is_id};
use husk_network::{
    Nic,
    cni::{self, Cni, NetworkConfig, Runtime},
    names::resolvers::DnsOptions,
    netns::{self, Netns},
    nic::Interface,
    publish::PortMapping,
    takeover::{Takeover, Update, loopback::Loopback},
};
use husk_protocol::{agent, port};
use husk_vmm::{client::Client, rate_limit::RateLimit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
};

use super::{
    message,
    names_inside::{NamesInside, named_in},
};
use crate::{
    Error, Result,
    guest::{self, Guest},
    paths::Dirs,
    rundir::{self, RunDir},
};

/// Connections at a time to a published port; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// How long to wait before a failed look at a namespace is repeated.
const PAUSE: Duration = Duration::from_secs(1);
/// Where CNI's configurations are.
const CNI_CONFIGS: &str = "/etc/cni/net.d";

/// A namespace whose interfaces are a VM's.
#[derive(Debug)]
pub(super) struct Namespace {
    takeover: Takeover,
    loopback: Option<Loopback>,
    /// Single ports of the loopback address, where there can't be a listener on all.
    listeners: Vec<(TcpListener, u16)>,
    plugins: Option<Plugins>,
    /// Names of the guest's interfaces, by their Ethernet addresses.
    names: BTreeMap<Mac, String>,
    /// Something has changed since the guest was last known to have all of it.
    changed: bool,
    /// Interfaces that the guest would not have as they were, maybe half-made, by their Ethernet addresses.
    owed: BTreeMap<Mac, Owed>,
    /// Why an interface could not be connected.
    refused: Option<Error>,
    /// A name server that may come to serve in it.
    later: Option<LaterNames>,
    /// Told when connections to the loopback addresses are no longer the guest's.
    quiet: Arc<Notify>,
    names_inside: JoinSet<()>,
}

/// Docker's name server, which begins to serve when a container is connected to its first network of a user's.
#[derive(Debug)]
struct LaterNames {
    /// The file that tells so.
    resolv_conf: PathBuf,
    netns: PathBuf,
}

/// An interface that the guest is to have.
#[derive(Debug)]
struct Owed {
    interface: Interface,
    /// The place of its device, if the guest may not know that yet.
    device: Option<String>,
}

/// Asks whoever follows a namespace that the guest have all that is there now; the answer comes when it has.
pub(super) type CatchUp = oneshot::Sender<Result<()>>;

/// How to reach the VM that a namespace's interfaces are given to.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its sandbox's directory.
    pub(super) dir: PathBuf,
    /// Whom its VMM runs as.
    pub(super) uid: u32,
    /// Where its guest is dialled.
    pub(super) guest_socket: PathBuf,
    /// Its VMM's control socket.
    pub(super) control: PathBuf,
}

/// What CNI's plugins made, and where.
#[derive(Debug)]
struct Plugins {
    cni: Cni,
    attachments: Vec<cni::Attachment>,
    netns: PathBuf,
}

impl Namespace {
    /// Takes over a namespace that is there. When an interface comes and `resolv_conf` then names a name server at 127.0.0.11 in
    /// it, that serves the guest's containers from then on.
    pub(super) async fn existing(path: &Path, resolv_conf: Option<&Path>) -> Result<(Self, Vec<Nic>)> {
        let (mut this, nics) = Self::begin(Netns::open(path)?, None).await?;
        this.later =
            resolv_conf.map(|file| LaterNames { resolv_conf: file.to_owned(), netns: path.to_owned() });
        Ok((this, nics))
    }

    /// Takes over one in which a name server at 127.0.0.11 serves the guest's containers. Nothing else is at loopback there.
    pub(super) async fn with_names(path: &Path) -> Result<(Self, Vec<Nic>)> {
        let (mut this, nics) = Self::begin(Netns::open(path)?, None).await?;
        this.loopback = None;
        this.takeover.let_names_be_asked()?;
        Ok((this, nics))
    }

    /// Takes over husk's own, which pasta has filled.
    pub(super) async fn of_pasta(ports: &[u16]) -> Result<(Self, Vec<Nic>)> {
        let (mut this, nics) = Self::begin(Netns::current()?, None).await?;
        for port in ports {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await;
            let listener = listener.map_err(Error::io("listen on", format!("127.0.0.1:{port}")))?;
            this.listeners.push((listener, *port));
        }
        Ok((this, nics))
    }

    /// Makes a namespace, has CNI's plugins connect it to networks, and takes it over. What the networks say of name servers
    /// is added to `dns` where the user says nothing.
    pub(super) async fn by_cni(
        dirs: &Dirs,
        dir: &RunDir,
        networks: &[String],
        ports: &[PortMapping],
        dns: &mut DnsOptions,
    ) -> Result<(Self, Vec<Nic>)> {
        let configs = networks
            .iter()
            .map(|name| NetworkConfig::find(Path::new(CNI_CONFIGS), name))
            .collect::<cni::Result<Vec<_>>>()?;
        make_dir_inside(&namespaces(dirs))?;
        let path = namespaces(dirs).join(dir.id());
        let netns = netns::create(&path)?;
        let mut plugins = Plugins { cni: Cni::new(&records(dirs)), attachments: Vec::new(), netns: path };
        let connected = async {
            for (index, config) in configs.into_iter().enumerate() {
                let mut runtime = Runtime::new(dir.id(), &plugins.netns, format!("eth{index}"));
                if index == 0 {
                    runtime.port_mappings = ports.to_vec();
                }
                let attachment = plugins.cni.add(config, runtime).await?;
                add_dns(dns, &attachment.dns);
                plugins.attachments.push(attachment);
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = connected.await {
            // The reason counts; what can't be undone now is undone by the next start.
            let _ = plugins.disconnect().await;
            return Err(error);
        }
        Self::begin(netns, Some(plugins)).await
    }

    async fn begin(netns: Netns, plugins: Option<Plugins>) -> Result<(Self, Vec<Nic>)> {
        // Without the rights for it, or on an old kernel, nobody reaches the loopback address, and all else works.
        let loopback = Loopback::open(&netns).ok();
        match Takeover::begin(netns) {
            Ok((takeover, nics)) => {
                let names = nics.iter().map(|nic| (nic.interface.mac, nic.interface.name.clone()));
                let names = names.collect();
                let (listeners, owed) = (vec![], BTreeMap::new());
                let this = Self {
                    takeover,
                    loopback,
                    listeners,
                    plugins,
                    names,
                    changed: false,
                    owed,
                    refused: None,
                    later: None,
                    quiet: Arc::default(),
                    names_inside: JoinSet::new(),
                };
                Ok((this, nics))
            }
            Err(error) => {
                if let Some(plugins) = plugins {
                    let _ = plugins.disconnect().await;
                }
                Err(error.into())
            }
        }
    }

    /// Sysctls below net that differ from a guest's, by name.
    pub(super) fn sysctls(&self) -> Result<HashMap<String, String>> {
        Ok(self.takeover.sysctls()?)
    }

    /// Goes on for as long as the guest runs: what somebody dials on the namespace's loopback addresses reaches the
    /// guest's, and what changes in the namespace changes in the guest.
    pub(super) async fn follow(
        &mut self,
        guest: &Guest,
        machine: &Machine,
        wishes: &mut mpsc::Receiver<CatchUp>,
    ) {
        let loopback = self.loopback.take();
        let mut tasks = JoinSet::new();
        for (listener, port) in std::mem::take(&mut self.listeners) {
            tasks.spawn(serve(listener, port, machine.guest_socket.clone()));
        }
        let quiet = self.quiet.clone();
        let forward = async {
            if let Some(loopback) = loopback {
                tokio::select! {
                    () = loopback.serve(|port, stream| forward(machine.guest_socket.clone(), port, stream)) => {}
                    () = quiet.notified() => {}
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = forward => {}
            () = self.follow_changes(guest, machine, wishes) => {}
        }
    }

    /// Tells the guest of changes, for as long as it is asked to.
    async fn follow_changes(
        &mut self,
        guest: &Guest,
        machine: &Machine,
        wishes: &mut mpsc::Receiver<CatchUp>,
    ) {
        loop {
            let update = tokio::select! {
                update = self.takeover.next() => update,
                Some(wish) = wishes.recv() => {
                    // Whoever asked may have gone away.
                    let _ = wish.send(self.catch_up(guest, machine).await);
                    continue;
                }
            };
            match update {
                Ok(update) => self.pass_on(update, guest, machine).await,
                Err(error) => {
                    tracing::warn!("cannot tell what changed in the network namespace: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Has the guest get everything that is in the namespace now.
    async fn catch_up(&mut self, guest: &Guest, machine: &Machine) -> Result<()> {
        self.takeover.catch_up()?;
        while let Some(update) = self.takeover.pending() {
            self.pass_on(update, guest, machine).await;
        }
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let owed = std::mem::take(&mut self.owed);
        give(guest, owed.values(), self.takeover.sysctls()?).await?;
        self.refused.take().map_or(Ok(()), Err)
    }

    /// Tells the guest of a change. What fails is noted, and remembered for [`catch_up`](Self::catch_up).
    async fn pass_on(&mut self, update: Update, guest: &Guest, machine: &Machine) {
        self.changed = true;
        let added = matches!(update, Update::Added(_));
        let (interface, device) = match self.accept(update, machine) {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("an interface that was added is not connected: {error}");
                self.refused = Some(error);
                return;
            }
        };
        let owed = self.owed.remove(&interface.mac);
        let owed = Owed { device: device.or(owed.and_then(|owed| owed.device)), interface };
        if let Err(error) = give(guest, [&owed], HashMap::new()).await {
            tracing::warn!("a change of the network is not made in the container: {error}");
            self.owed.insert(owed.interface.mac, owed);
        }
        if added && let Err(error) = self.begin_with_names(guest, machine).await {
            tracing::warn!("names of the network will not be found: {error}");
        }
    }

    /// Has a name server that has come to the namespace serve the guest, if there is one.
    async fn begin_with_names(&mut self, guest: &Guest, machine: &Machine) -> Result<()> {
        let Some(later) = self.later.take_if(|later| named_in(&later.resolv_conf)) else { return Ok(()) };
        let inside = NamesInside::listen(&machine.dir, machine.uid, Netns::open(&later.netns)?)?;
        self.takeover.let_names_be_asked()?;
        // It is at one of them, and nothing else is.
        self.quiet.notify_one();
        self.names_inside.spawn(inside.serve());
        let resolver = agent::Resolver { by_host: true, ..Default::default() };
        guest.agent().start_resolver(guest.soon(), &resolver).await?;
        Ok(())
    }

    /// What the guest is to make of a change: an interface's state, and the place of the device if it is a new one.
    fn accept(&mut self, update: Update, machine: &Machine) -> Result<(Interface, Option<String>)> {
        let (interface, device) = match update {
            Update::Added(nic) => {
                let device = attach(machine, &nic)?;
                (nic.interface, Some(device))
            }
            Update::Changed(interface) => (interface, None),
            Update::Removed(mac) => {
                // It stays, without addresses, and with nobody at its other end.
                let name = self.names.remove(&mac).unwrap_or_default();
                (Interface::new(mac, name), None)
            }
        };
        self.names.insert(interface.mac, interface.name.clone());
        Ok((interface, device))
    }

    /// Gives the namespace back, and removes it if it is husk's own.
    pub(super) async fn close(self) -> Result<()> {
        let released = self.takeover.release().await.map_err(Error::from);
        match self.plugins {
            Some(plugins) => released.and(plugins.disconnect().await),
            None => released,
        }
    }
}

/// Connects what comes to a port to that of the guest's loopback address; ends when it is dropped.
async fn serve(listener: TcpListener, port: u16, guest_socket: PathBuf) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(forward(guest_socket.clone(), port, stream))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Connects a stream to a port of the guest's loopback address. One that is refused there is closed here.
async fn forward(guest_socket: PathBuf, port: u16, mut stream: TcpStream) {
    let connected = async {
        let mut guest = guest::dial(&guest_socket, port::FORWARD).await?;
        guest.write_all(&port.to_be_bytes()).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut guest).await
    };
    // Whoever dialled sees the end of the connection; there is nobody else to tell.
    let _ = connected.await;
}

/// Has the guest plug the devices of interfaces in, and then bring the interfaces to their state.
async fn give<'a>(
    guest: &Guest,
    owed: impl IntoIterator<Item = &'a Owed>,
    sysctls: HashMap<String, String>,
) -> Result<()> {
    let (mut devices, mut interfaces) = (Vec::new(), Vec::new());
    for Owed { interface, device } in owed {
        devices.extend(device.clone());
        interfaces.push(message::interface(interface));
    }
    if !devices.is_empty() {
        guest.plug_in(devices).await?;
    }
    let network = agent::Network { interfaces, sysctls, ..Default::default() };
    guest.agent().update_network(guest.soon(), &network).await?;
    Ok(())
}

/// Gives the running VM an interface; says where its device is.
fn attach(machine: &Machine, nic: &Nic) -> Result<String> {
    let refused = |source| Error::AttachNic { source };
    let mut client = Client::connect(&machine.control).map_err(refused)?;
    let (mac, none) = (nic.interface.mac, RateLimit::default());
    let attached = client.attach_net(&nic.interface.name, mac, nic.tap.as_fd(), None, none, none);
    Ok(attached.map_err(refused)?.device)
}

impl Plugins {
    async fn disconnect(self) -> Result<()> {
        let mut result = Ok(());
        for attachment in self.attachments.iter().rev() {
            result = result.and(self.cni.del(attachment).await.map_err(Error::from));
        }
        result.and(netns::remove(&self.netns).map_err(Error::from))
    }
}

/// Undoes what killed ones left. What plugins fail to undo is a warning, and tried again next time.
pub(super) async fn repair(dirs: &Dirs) -> Result<()> {
    let alive = |id: &str| rundir::is_alive(dirs, id);
    for failure in Cni::new(&records(dirs)).repair(alive).await? {
        tracing::warn!("a killed container's network is not all cleaned up: {failure}");
    }
    // What has another name is not a pod's.
    Ok(netns::repair(&namespaces(dirs), |name| !is_id(name) || alive(name))?)
}

/// The same before a start, which what can't be taken away does not stop: the next one tries again.
pub(super) async fn tidy(dirs: &Dirs) {
    if let Err(error) = repair(dirs).await {
        tracing::warn!(
            "what killed containers left of networks is not all cleaned up: {}",
            chain::text(&error)
        );
    }
}

fn namespaces(dirs: &Dirs) -> PathBuf {
    dirs.run.join("netns")
}

fn records(dirs: &Dirs) -> PathBuf {
    dirs.run.join("cni")
}

fn add_dns(wishes: &mut DnsOptions, dns: &cni::Dns) {
    let lists = [(&mut wishes.search, &dns.search), (&mut wishes.options, &dns.options)];
    for (wished, offered) in lists {
        if wished.is_empty() {
            wished.clone_from(offered);
        }
    }
    if wishes.servers.is_empty() {
        wishes.servers.clone_from(&dns.nameservers);
    }
}
