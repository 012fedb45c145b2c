//! A sandbox's network: what was asked for, made on the host, told to the guest, and taken away again.

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc};

use husk_network::{
    Attachment, Networks, Nic,
    definition::DEFAULT_NETWORK,
    names::{
        hosts, resolvers,
        resolvers::{DnsOptions, Resolvers},
        table::NameTable,
    },
    netns::Netns,
    nic::Interface,
    publish::{self, BoundPort, PortMapping, Relay},
};
use husk_protocol::agent::{self, Resolver, SetupSandboxRequest};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use self::{
    names_inside::{NamesInside, named_in},
    namespace::{CatchUp, Machine, Namespace},
};
use crate::{
    Error, Result,
    guest::Guest,
    paths::Dirs,
    rundir::{self, RunDir},
    vm::{self, NetPlan},
};

mod endpoint;
mod message;
mod names_inside;
mod namespace;
mod options;

/// Interfaces that may come to a namespace after its VM's start.
const SPARE_NETS: u8 = 4;

pub use endpoint::Endpoint;
pub use husk_vmm::rate_limit::{BucketConfig, RateLimit};
pub use options::{NetworkMode, NetworkOptions, NetworkPlan, NetworkWish};

/// The networks of husk's own.
///
/// # Errors
/// When their directories can't be made.
pub fn networks(dirs: &Dirs) -> Result<Networks> {
    Ok(Networks::open(&dirs.data.join("networks"), &dirs.run.join("networks"))?)
}

/// Undoes what killed ones left of networks, namespaces, and CNI's networks.
///
/// # Errors
/// When that is not possible; what CNI's plugins say is a warning.
pub async fn repair(dirs: &Dirs) -> Result<()> {
    networks(dirs)?.repair(&|id| rundir::is_alive(dirs, id))?;
    namespace::repair(dirs).await
}

/// Reaches whoever follows a namespace for a running guest, if anybody does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Follow(Option<mpsc::Sender<CatchUp>>);

impl Follow {
    /// Returns when the guest has all that is in the namespace now.
    ///
    /// # Errors
    /// When something of it can't be given to the guest.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        let Some(follower) = &self.0 else { return Ok(()) };
        let (caught_up, done) = oneshot::channel();
        if follower.send(caught_up).await.is_err() {
            // The sandbox is being taken away.
            return Ok(());
        }
        done.await.unwrap_or(Ok(()))
    }
}

/// A sandbox's network on the host. To be closed; what is dropped instead is cleaned up after by the next that starts.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    nets: Vec<NetPlan>,
    attachments: Vec<Attachment>,
    namespace: Option<Namespace>,
    interfaces: Vec<Interface>,
    sysctls: HashMap<String, String>,
    ports: Vec<BoundPort>,
    names: Option<NameTable>,
    names_inside: Option<Netns>,
    set_up: SetupSandboxRequest,
    relay: Option<Relay>,
    follower: Option<JoinHandle<Namespace>>,
    follow: Follow,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Connection {
    /// Makes what the guest's interfaces need.
    pub(crate) async fn make(dirs: &Dirs, dir: &RunDir, plan: &NetworkPlan) -> Result<Self> {
        let mut this = Self::default();
        match this.fill(dirs, dir, plan).await {
            Ok(()) => Ok(this),
            Err(error) => {
                // The reason counts; what can't be undone now is found by the next start.
                let _ = this.close().await;
                Err(error)
            }
        }
    }

    /// Takes over the interfaces of a namespace that somebody else prepared; without one there is loopback alone. If
    /// `resolv_conf` names a name server at 127.0.0.11 in it, that answers the guest.
    pub(crate) async fn of_namespace(
        dirs: &Dirs,
        hostname: &str,
        netns: Option<&Path>,
        resolv_conf: Option<&Path>,
    ) -> Result<Self> {
        let mut this = Self::default();
        let filled = async {
            namespace::tidy(dirs).await;
            let resolver = Resolver { by_host: true, ..Default::default() };
            let resolver = match netns {
                Some(path) if resolv_conf.is_some_and(named_in) => {
                    this.take_over(Namespace::with_names(path).await?)?;
                    this.names_inside = Some(Netns::open(path)?);
                    Some(resolver)
                }
                Some(path) => {
                    this.take_over(Namespace::existing(path, resolv_conf).await?)?;
                    None
                }
                None => None,
            };
            this.set_up = SetupSandboxRequest {
                resolver: resolver.into(),
                hosts: hosts::text(hostname, &this.addresses(), &[], &[])?,
                resolv_conf: resolvers::for_containers(&DnsOptions::default())?.conf.text(),
                network: this.network().into(),
                ..Default::default()
            };
            Ok(())
        };
        if let Err(error) = filled.await {
            // The reason counts; what can't be undone now is found by the next start.
            let _ = this.close().await;
            return Err(error);
        }
        Ok(this)
    }

    async fn fill(&mut self, dirs: &Dirs, dir: &RunDir, plan: &NetworkPlan) -> Result<()> {
        let options = &plan.options;
        let mut dns = options.dns.clone();
        let ports = plan.wanted_ports();
        if options.mode == NetworkMode::None && !ports.is_empty() {
            return Err(Error::InvalidOption("a container without a network can't publish ports".into()));
        }
        self.ports = publish::bind::bind(&ports)?;
        namespace::tidy(dirs).await;
        let mut own_names = false;
        match &options.mode {
            NetworkMode::None | NetworkMode::Container(_) => {}
            NetworkMode::Networks(wishes) => {
                self.attach(dirs, dir, wishes, plan)?;
                own_names = wishes.iter().any(|wish| wish.network != DEFAULT_NETWORK);
            }
            NetworkMode::Cni(networks) => {
                let ports: Vec<PortMapping> = self.ports.iter().map(|port| port.mapping.clone()).collect();
                self.take_over(Namespace::by_cni(dirs, dir, networks, &ports, &mut dns).await?)?;
            }
            NetworkMode::Namespace(path) => self.take_over(Namespace::existing(path, None).await?)?,
            NetworkMode::Pasta(ports) => self.take_over(Namespace::of_pasta(ports).await?)?,
        }

        let resolvers = resolvers::for_containers(&dns)?;
        if resolvers.conf.servers.is_empty() && !self.interfaces.is_empty() {
            tracing::warn!("{}", no_servers(&resolvers));
        }
        let conf = if own_names { resolvers.conf.behind_guest_resolver() } else { resolvers.conf.clone() };
        let gateways: Vec<IpAddr> = self.attachments.iter().take(1).flat_map(Attachment::gateways).collect();
        let resolver = own_names.then(|| self.resolver(dirs, &resolvers)).transpose()?;
        self.set_up = SetupSandboxRequest {
            hosts: hosts::text(&plan.hostname, &self.addresses(), &options.extra_hosts, &gateways)?,
            resolv_conf: conf.text(),
            network: self.network().into(),
            resolver: resolver.into(),
            ..Default::default()
        };
        Ok(())
    }

    /// Has the VM take a namespace's interfaces.
    fn take_over(&mut self, (namespace, nics): (Namespace, Vec<Nic>)) -> Result<()> {
        self.sysctls = namespace.sysctls()?;
        self.namespace = Some(namespace);
        nics.into_iter().for_each(|nic| self.add(nic, RateLimit::default(), RateLimit::default()));
        Ok(())
    }

    /// Has the VM take an interface.
    fn add(&mut self, Nic { tap, interface }: Nic, limit_rx: RateLimit, limit_tx: RateLimit) {
        self.nets.push(NetPlan { tap, mac: interface.mac, limit_rx, limit_tx });
        self.interfaces.push(interface);
    }

    /// The guest's network; `None`: it has loopback alone.
    fn network(&self) -> Option<agent::Network> {
        let interfaces: Vec<_> = self.interfaces.iter().map(message::interface).collect();
        let sysctls = self.sysctls.clone();
        (!interfaces.is_empty()).then(|| agent::Network { interfaces, sysctls, ..Default::default() })
    }

    fn attach(
        &mut self,
        dirs: &Dirs,
        dir: &RunDir,
        wishes: &[NetworkWish],
        plan: &NetworkPlan,
    ) -> Result<()> {
        let networks = networks(dirs)?;
        let alive = |id: &str| rundir::is_alive(dirs, id);
        for (index, wish) in wishes.iter().enumerate() {
            let ports = if index == 0 { &self.ports[..] } else { &[] };
            let attached = networks.attach(
                &husk_network::AttachRequest {
                    network: wish.network.clone(),
                    sandbox_id: dir.id().into(),
                    interface: format!("eth{index}"),
                    name: plan.name.clone().unwrap_or_default(),
                    aliases: wish.aliases.clone(),
                    ip: wish.ip,
                    ip6: wish.ip6,
                    mac: wish.mac,
                    ports: ports.iter().map(|port| port.mapping.clone()).collect(),
                    default_route: index == 0,
                },
                &alive,
            )?;
            for obstacle in &attached.obstacles {
                let remedy = obstacle.remedy().join("; ");
                tracing::warn!("{obstacle}: to let containers out, run: {remedy}");
            }
            self.attachments.push(attached.attachment);
            self.add(attached.nic, wish.limit_rx, wish.limit_tx);
        }
        Ok(())
    }

    /// The networks that the guest is on, for its container's record.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let networks = self.attachments.iter().map(|attachment| Some(&attachment.network));
        let networks = networks.chain(std::iter::repeat(None));
        self.interfaces.iter().zip(networks).map(|(one, network)| Endpoint::of(one, network)).collect()
    }

    /// The ports of the host that lead to the guest.
    pub(crate) fn published(&self) -> Vec<PortMapping> {
        self.ports.iter().map(|port| port.mapping.clone()).collect()
    }

    /// The container's addresses, those of its first interface first.
    fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        addresses.map(|address| address.ip.addr()).collect()
    }

    /// What the guest's resolver does, and begins to watch for other containers' names.
    fn resolver(&mut self, dirs: &Dirs, resolvers: &Resolvers) -> Result<Resolver> {
        let networks = networks(dirs)?;
        let own = self.attachments.iter().map(|attachment| attachment.network.clone());
        let own = own.filter(|network| network.name != DEFAULT_NETWORK).collect();
        let (table, names) = NameTable::watch(networks, own)?;
        self.names = Some(table);
        Ok(Resolver {
            upstreams: resolvers.conf.servers.iter().map(ToString::to_string).collect(),
            names: Some(message::names(&names)).into(),
            ..Default::default()
        })
    }

    /// The interfaces for the VM; once.
    pub(crate) fn take_nets(&mut self) -> Vec<NetPlan> {
        std::mem::take(&mut self.nets)
    }

    /// What the agent is to be told.
    pub(crate) fn set_up(&self) -> SetupSandboxRequest {
        self.set_up.clone()
    }

    /// Slots for interfaces that come later.
    pub(crate) fn spare_nets(&self) -> u8 {
        if self.namespace.is_some() { SPARE_NETS } else { 0 }
    }

    /// Begins with all that has to go on while the guest of the sandbox in `dir` runs.
    pub(crate) fn serve(&mut self, guest: &Arc<Guest>, dir: &RunDir) -> Result<()> {
        let ports = std::mem::take(&mut self.ports);
        if !ports.is_empty() {
            let relay = Relay::start(ports, &self.addresses());
            self.relay = Some(relay.map_err(Error::io("serve", "the published ports"))?);
        }
        if let Some(netns) = self.names_inside.take() {
            self.tasks.spawn(NamesInside::listen(&dir.join(""), dir.uid(), netns)?.serve());
        }
        if let Some(table) = self.names.take() {
            self.tasks.spawn(pass_names_on(table, guest.clone()));
        }
        if let Some(mut namespace) = self.namespace.take() {
            let here = dir.join("");
            let machine = Machine {
                guest_socket: vm::guest_socket(&here),
                control: vm::control_path(&here),
                uid: dir.uid(),
                dir: here,
            };
            let guest = guest.clone();
            let (stop, stopped) = oneshot::channel();
            self.stop = Some(stop);
            let (wish, mut wishes) = mpsc::channel(1);
            self.follow = Follow(Some(wish));
            self.follower = Some(tokio::spawn(async move {
                tokio::select! {
                    () = namespace.follow(&guest, &machine, &mut wishes) => {}
                    _ = stopped => {}
                }
                namespace
            }));
        }
        Ok(())
    }

    /// Reaches whoever follows the namespace, once the sandbox is served.
    pub(crate) fn follow(&self) -> Follow {
        self.follow.clone()
    }

    /// Takes everything away.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { attachments, relay, mut tasks, stop, follower, mut namespace, .. } = self;
        drop((relay, stop));
        tasks.abort_all();
        let mut result = Ok(());
        for attachment in attachments {
            result = result.and(attachment.detach().await.map_err(Error::from));
        }
        if let Some(follower) = follower {
            // A follower that panicked has lost it; the next start repairs.
            namespace = follower.await.ok();
        }
        match namespace {
            Some(namespace) => result.and(namespace.close().await),
            None => result,
        }
    }
}

/// What to do about names that don't resolve.
fn no_servers(resolvers: &Resolvers) -> String {
    let why = match resolvers.host_only.first() {
        Some(server) => format!("the host's name server {server} can't be reached from a virtual machine"),
        None => "the host has no name servers".to_owned(),
    };
    format!("{why}: names won't resolve in the container; name a server with --dns")
}

/// Tells the guest's resolver of other containers, as they come and go.
async fn pass_names_on(mut table: NameTable, guest: Arc<Guest>) {
    // Without the directory there is nobody to tell of; without the guest, nobody to tell.
    while let Ok(names) = table.changed().await {
        if guest.agent().update_names(guest.soon(), &message::names(&names)).await.is_err() {
            return;
        }
    }
}
