//! A sandbox's network: what was asked for, made on the host, told to the guest, and taken away again.

use std::{net::IpAddr, sync::Arc};

use husk_network::{
    Attachment, Networks, Nic,
    definition::DEFAULT_NETWORK,
    names::{hosts, resolvers, resolvers::Resolvers, table::NameTable},
    publish::{self, BoundPort, PortMapping, Relay},
};
use husk_protocol::agent::{self, Resolver, SetupSandboxRequest};
use husk_vmm::config::MacAddress;
use tokio::task::JoinSet;

use crate::{
    Error, Result,
    guest::Guest,
    paths::Dirs,
    run::RunRequest,
    rundir::{self, RunDir},
    vm::NetPlan,
};

mod options;

pub use husk_vmm::rate_limit::{BucketConfig, RateLimit};
pub use options::{NetworkMode, NetworkOptions, NetworkWish};

/// The networks of husk's own.
///
/// # Errors
/// When their directories can't be made.
pub fn networks(dirs: &Dirs) -> Result<Networks> {
    Ok(Networks::open(&dirs.data.join("networks"), &dirs.run.join("networks"))?)
}

/// The ports of the host that lead to a running container.
///
/// # Errors
/// When there is no such container.
pub fn published(dirs: &Dirs, container: &str) -> Result<Vec<PortMapping>> {
    let (id, _) = rundir::find(dirs, container)?;
    Ok(networks(dirs)?.published(&id)?)
}

/// A sandbox's network on the host. To be closed; what is dropped instead is cleaned up after by the next that starts.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    nets: Vec<NetPlan>,
    attachments: Vec<Attachment>,
    interfaces: Vec<agent::Interface>,
    ports: Vec<BoundPort>,
    names: Option<NameTable>,
    set_up: SetupSandboxRequest,
    relay: Option<Relay>,
    tasks: JoinSet<()>,
}

impl Connection {
    /// Makes what the guest's interfaces need.
    pub(crate) async fn make(
        dirs: &Dirs,
        dir: &RunDir,
        hostname: &str,
        request: &RunRequest,
    ) -> Result<Self> {
        let mut this = Self::default();
        match this.fill(dirs, dir, hostname, request) {
            Ok(()) => Ok(this),
            Err(error) => {
                // The reason counts; what can't be undone now is found by the next start.
                let _ = this.close().await;
                Err(error)
            }
        }
    }

    fn fill(&mut self, dirs: &Dirs, dir: &RunDir, hostname: &str, request: &RunRequest) -> Result<()> {
        let options = &request.network;
        let wishes = match &options.mode {
            NetworkMode::Networks(wishes) => wishes.as_slice(),
            NetworkMode::None | NetworkMode::Container(_) => &[],
        };
        let ports = wanted_ports(request);
        if wishes.is_empty() && !ports.is_empty() {
            return Err(Error::InvalidOption("a container without a network can't publish ports".into()));
        }
        self.ports = publish::bind::bind(&ports)?;
        if !wishes.is_empty() {
            self.attach(dirs, dir, wishes, request)?;
        }

        let resolvers = resolvers::for_containers(&options.dns)?;
        let own_names = wishes.iter().any(|wish| wish.network != DEFAULT_NETWORK);
        let conf = if own_names { resolvers.conf.behind_guest_resolver() } else { resolvers.conf.clone() };
        let gateways: Vec<IpAddr> = self.attachments.iter().take(1).flat_map(Attachment::gateways).collect();
        self.set_up = SetupSandboxRequest {
            hosts: hosts::text(hostname, &self.addresses(), &options.extra_hosts, &gateways)?,
            resolv_conf: conf.text(),
            network: (!self.interfaces.is_empty()).then(|| self.network()).into(),
            resolver: if own_names { Some(self.resolver(dirs, &resolvers)?).into() } else { None.into() },
            ..Default::default()
        };
        Ok(())
    }

    fn attach(
        &mut self,
        dirs: &Dirs,
        dir: &RunDir,
        wishes: &[NetworkWish],
        request: &RunRequest,
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
                    name: request.name.clone().unwrap_or_default(),
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
                (request.note)(&format!("{obstacle}: to let containers out, run: {remedy}"));
            }
            self.attachments.push(attached.attachment);
            let Nic { tap, interface } = attached.nic;
            self.nets.push(NetPlan {
                tap,
                mac: mac_of(&interface)?,
                limit_rx: wish.limit_rx,
                limit_tx: wish.limit_tx,
            });
            self.interfaces.push(interface);
        }
        Ok(())
    }

    /// The container's addresses.
    fn addresses(&self) -> Vec<IpAddr> {
        self.attachments.iter().flat_map(Attachment::addresses).collect()
    }

    fn network(&self) -> agent::Network {
        agent::Network { interfaces: self.interfaces.clone(), ..Default::default() }
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
            names: Some(names).into(),
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

    /// Begins with all that has to go on while the guest runs.
    pub(crate) fn serve(&mut self, guest: Arc<Guest>) -> Result<()> {
        let ports = std::mem::take(&mut self.ports);
        if !ports.is_empty() {
            let relay = Relay::start(ports, &self.addresses());
            self.relay = Some(relay.map_err(Error::io("serve", "the published ports"))?);
        }
        if let Some(table) = self.names.take() {
            self.tasks.spawn(pass_names_on(table, guest));
        }
        Ok(())
    }

    /// Takes everything away.
    pub(crate) async fn close(self) -> Result<()> {
        let Self { attachments, relay, mut tasks, .. } = self;
        drop(relay);
        tasks.abort_all();
        let mut result = Ok(());
        for attachment in attachments {
            result = result.and(attachment.detach().await);
        }
        Ok(result?)
    }
}

/// Tells the guest's resolver of other containers, as they come and go.
async fn pass_names_on(mut table: NameTable, guest: Arc<Guest>) {
    // Without the directory there is nobody to tell of; without the guest, nobody to tell.
    while let Ok(names) = table.changed().await {
        if guest.agent().update_names(guest.soon(), &names).await.is_err() {
            return;
        }
    }
}

fn wanted_ports(request: &RunRequest) -> Vec<publish::PortRequest> {
    let mut ports = request.network.publish.clone();
    if request.network.publish_all {
        let exposed: Vec<String> =
            request.image.defaults().exposed_ports.iter().map(ToString::to_string).collect();
        let all = publish::spec::publish_all(exposed.iter().map(String::as_str), &ports);
        ports.extend(all);
    }
    ports
}

fn mac_of(interface: &agent::Interface) -> Result<MacAddress> {
    let mac: std::result::Result<MacAddress, _> = interface.mac.parse();
    mac.map_err(|error| Error::InvalidOption(error.to_string()))
}
