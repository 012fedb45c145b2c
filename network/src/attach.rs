//! Joins a sandbox to a network of husk's own, and parts them.

use std::{
    fs::{self, File},
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use husk_base::{Mac, atomic, dirs::make_private_dir, lock::lock_file};
use ipnet::IpNet;

use crate::{
    Error, Nic, Result,
    definition::Definition,
    firewall::{self, Obstacle},
    forwarding,
    lease::{Lease, Leases, Wanted},
    link::{self, Links},
    nic::{Address, Interface, Neighbour, Route, Scope},
    publish::PortMapping,
    rules::Rules,
    store::Networks,
};

/// Digits of a sandbox's id in a tap's name.
const TAP_ID_LEN: usize = 10;
/// Most bytes of an interface's name (IFNAMSIZ without the zero byte).
const MAX_INTERFACE: usize = 15;

/// What a sandbox wants of a network.
#[derive(Debug, Clone, Default)]
pub struct AttachRequest {
    /// Name or id of the network.
    pub network: String,
    /// The sandbox's id: at least 10 hexadecimal digits that no other living one begins with.
    pub sandbox_id: String,
    /// The interface's name in the guest: "eth0". A sandbox's interfaces differ in the number at the end.
    pub interface: String,
    /// The container's name; empty: none.
    pub name: String,
    /// More names for others on the network.
    pub aliases: Vec<String>,
    /// A certain address.
    pub ip: Option<Ipv4Addr>,
    /// A certain address.
    pub ip6: Option<Ipv6Addr>,
    /// A certain Ethernet address.
    pub mac: Option<Mac>,
    /// Ports of the host that lead to the container. What is published on the host's loopback takes a relay: see there.
    pub ports: Vec<PortMapping>,
    /// Whether this is the sandbox's way out, if the network has one: to be said of one network only.
    pub default_route: bool,
}

/// A sandbox's interface on a network.
#[derive(Debug)]
pub struct Attached {
    /// For the VMM and the agent.
    pub nic: Nic,
    /// To be kept for as long as the interface is used.
    pub attachment: Attachment,
    /// Others' firewalls that seem to drop what containers send. Looked for when the network's bridge is made only.
    pub obstacles: Vec<Obstacle>,
}

/// A sandbox's part of a network. It has to be given back by [`Attachment::detach`]; if it is not, then whoever uses a
/// network next does so, as soon as the sandbox is dead.
#[derive(Debug)]
#[must_use = "it has to be detached"]
pub struct Attachment {
    networks: Networks,
    /// The network.
    pub network: Definition,
    /// Addresses and names.
    pub lease: Lease,
}

impl Networks {
    /// Joins a sandbox to a network. `alive` says of a sandbox's id whether it lives; it is asked about all that are on
    /// any network, and has to be true of this one already.
    ///
    /// Takes a few requests to the kernel and waits for nothing but the network's lock.
    ///
    /// # Errors
    /// When there is no such network, when an address that was asked for is invalid or taken, when none is free, or when
    /// the kernel refuses: then nothing is left of it.
    pub fn attach(&self, request: &AttachRequest, alive: &dyn Fn(&str) -> bool) -> Result<Attached> {
        let tap_name = tap_name(&request.sandbox_id, &request.interface)?;
        let network = self.get(&request.network)?;
        // What can't be taken away now is no reason not to start: this network's own leases are read below.
        let _ = self.repair(alive);

        // First, since it fails when the name is taken, and goes by itself.
        let tap = link::make_tap(&tap_name)?;
        let (links, rules) = (Links::open()?, Rules::open()?);
        let lock = self.lock(&network)?;
        let path = self.lease_file(&network);
        let mut leases = Leases::read(&path)?;
        if let Some(lease) = leases.leases.iter().find(|lease| lease.tap == tap_name) {
            let (network, by) = (network.name, lease.owner());
            return Err(Error::Taken { what: "interface", value: request.interface.clone(), network, by });
        }
        let wanted = Wanted { ipv4: request.ip, ipv6: request.ip6, mac: request.mac };
        let (ipv4, ipv6, mac) = leases.choose(&network, wanted)?;
        let existing = if leases.leases.is_empty() { None } else { link::index(&network.bridge()).ok() };
        let bridge = match existing {
            Some(bridge) => bridge,
            None => set_up(&network, &links, &rules)?,
        };
        let lease = Lease {
            sandbox: request.sandbox_id.clone(),
            name: request.name.clone(),
            aliases: request.aliases.clone(),
            ipv4,
            ipv6,
            mac,
            interface: request.interface.clone(),
            tap: tap_name,
            ports: request.ports.clone(),
        };
        // From here on it is known what a dead sandbox may leave.
        leases.leases.push(lease.clone());
        leases.write(&path)?;
        drop(lock);

        let connected = rules
            .admit(&network, &lease, &leases.leases)
            .and_then(|()| links.plug(&lease, link::index(&lease.tap)?, bridge, &network));
        let attachment = Attachment { networks: self.clone(), network, lease };
        if let Err(error) = connected {
            // The reason counts; what can't be undone now is undone by the next repair.
            let _ = attachment.detach_now();
            return Err(error);
        }
        let made = existing.is_none() && !attachment.network.internal;
        // A hint only: a network whose neighbours can't be looked at works all the same.
        let obstacles = if made { firewall::obstacles().unwrap_or_default() } else { vec![] };
        let interface = interface(&attachment, request.default_route);
        Ok(Attached { nic: Nic { tap, interface }, attachment, obstacles })
    }

    /// Removes what dead sandboxes left: leases, rules, bridges. Reads one small file for each network that was used
    /// since the host's start when there is nothing to do.
    ///
    /// # Errors
    /// When leases can't be read or written, or when the kernel refuses.
    pub fn repair(&self, alive: &dyn Fn(&str) -> bool) -> Result<()> {
        for network in self.used()? {
            let leases = Leases::read(&self.lease_file(&network))?;
            if leases.leases.iter().all(|lease| alive(&lease.sandbox)) {
                continue;
            }
            let Some(_lock) = self.try_lock(&network)? else { continue };
            self.release(&network, |lease| !alive(&lease.sandbox))?;
        }
        Ok(())
    }

    /// Who is on a network: living sandboxes, and dead ones that nobody cleaned up after yet.
    ///
    /// # Errors
    /// When the leases can't be read.
    pub fn leases(&self, network: &Definition) -> Result<Vec<Lease>> {
        Ok(Leases::read(&self.lease_file(network))?.leases)
    }

    /// What a sandbox has published, on all networks.
    ///
    /// # Errors
    /// When leases can't be read.
    pub fn published(&self, sandbox_id: &str) -> Result<Vec<PortMapping>> {
        let mut ports = Vec::new();
        for network in self.used()? {
            let leases = self.leases(&network)?.into_iter().filter(|lease| lease.sandbox == sandbox_id);
            ports.extend(leases.flat_map(|lease| lease.ports));
        }
        Ok(ports)
    }

    /// Takes down what a network has at run time, if no living sandbox uses it. Nobody can join before the lock that is
    /// returned is dropped.
    pub(crate) fn take_down(&self, network: &Definition, alive: &dyn Fn(&str) -> bool) -> Result<File> {
        let lock = self.lock(network)?;
        let left = self.release(network, |lease| !alive(&lease.sandbox))?;
        if left.is_empty() {
            return Ok(lock);
        }
        let by: Vec<String> = left.iter().map(Lease::owner).collect();
        Err(Error::InUse { network: network.name.clone(), by: by.join(", ") })
    }

    /// Networks that were used since the host's start.
    fn used(&self) -> Result<Vec<Definition>> {
        let mut networks = self.list()?;
        networks.retain(|network| self.run_dir(network).exists());
        Ok(networks)
    }

    /// Waits for a network's lock.
    fn lock(&self, network: &Definition) -> Result<File> {
        let gone = || Error::NotFound(network.name.clone());
        let dir = self.run_dir(network);
        make_private_dir(&dir)?;
        let lock = match lock_file(&dir.join("lock")) {
            // The directory that was just made is gone: the network is being removed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone()),
            lock => lock?,
        };
        atomic::sweep(&dir);
        if self.list()?.iter().any(|other| other.id == network.id) {
            return Ok(lock);
        }
        let _ = fs::remove_dir_all(&dir);
        Err(gone())
    }

    /// A network's lock; `None`: the network is gone.
    fn try_lock(&self, network: &Definition) -> Result<Option<File>> {
        match self.lock(network) {
            Ok(lock) => Ok(Some(lock)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes leases and what belongs to them, and the bridge and its rules with the last. The network's lock is held.
    /// Returns the leases that are left. Killed half-way, it has forgotten no lease whose things are still there.
    fn release(&self, network: &Definition, is_gone: impl Fn(&Lease) -> bool) -> Result<Vec<Lease>> {
        let path = self.lease_file(network);
        let mut leases = Leases::read(&path)?;
        let (gone, left) = std::mem::take(&mut leases.leases).into_iter().partition::<Vec<_>, _>(is_gone);
        if gone.is_empty() {
            return Ok(left);
        }
        let (links, rules) = (Links::open()?, Rules::open()?);
        if left.is_empty() {
            links.unplug(&gone, network, true)?;
            rules.take_down(network)?;
        } else {
            links.unplug(&gone, network, false)?;
            rules.expel(network, &gone, &left)?;
        }
        leases.leases = left;
        leases.write(&path)?;
        Ok(leases.leases)
    }
}

impl Attachment {
    /// The sandbox's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.lease.ipv4)), self.lease.ipv6.map(IpAddr::V6)].into_iter().flatten()
    }

    /// The bridge's addresses.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        let ipv6 = self.network.ipv6.map(|ipv6| IpAddr::V6(ipv6.gateway));
        [Some(IpAddr::V4(self.network.ipv4.gateway)), ipv6].into_iter().flatten()
    }

    /// Gives back the address, and removes rules and tap; with the last container, the network's bridge and tables. The
    /// kernel takes some 10 ms for each interface, which is waited for on a thread of its own.
    ///
    /// # Errors
    /// When leases can't be read or written, or when the kernel refuses.
    pub async fn detach(self) -> Result<()> {
        let network = self.network.name.clone();
        match tokio::task::spawn_blocking(move || self.detach_now()).await {
            Ok(result) => result,
            Err(error) => Err(Error::io("leave network", network)(error.into())),
        }
    }

    fn detach_now(&self) -> Result<()> {
        let Some(_lock) = self.networks.try_lock(&self.network)? else { return Ok(()) };
        let own = |lease: &Lease| lease.sandbox == self.lease.sandbox && lease.tap == self.lease.tap;
        self.networks.release(&self.network, own).map(|_| ())
    }
}

/// Makes a network's bridge and rules.
fn set_up(network: &Definition, links: &Links, rules: &Rules) -> Result<u32> {
    if !network.internal {
        forwarding::enable4()?;
        if network.ipv6.is_some() {
            forwarding::enable6()?;
        }
    }
    rules.set_up(network)?;
    links.ensure_bridge(network)
}

/// What the guest is to make of its end.
fn interface(attachment: &Attachment, default_route: bool) -> Interface {
    let (network, lease) = (&attachment.network, &attachment.lease);
    let ipv4 = network.ipv4;
    let ipv4 = (lease.ipv4.into(), ipv4.subnet.prefix_len(), ipv4.gateway.into());
    let ipv6 = lease
        .ipv6
        .zip(network.ipv6)
        .map(|(address, ipv6)| (address.into(), ipv6.subnet.prefix_len(), ipv6.gateway.into()));
    let mut interface = Interface::new(lease.mac, &*lease.interface);
    interface.mtu = network.mtu;
    let ends: [Option<(IpAddr, u8, IpAddr)>; 2] = [Some(ipv4), ipv6];
    for (address, prefix_len, gateway) in ends.into_iter().flatten() {
        // The length is that of a network of the same family.
        let ip = IpNet::new(address, prefix_len).unwrap_or_else(|_| address.into());
        interface.addresses.push(Address { ip, peer: None, scope: Scope::GLOBAL });
        if default_route && !network.internal {
            interface.routes.push(Route::default_by(gateway));
        }
        interface.neighbours.push(Neighbour { ip: gateway, mac: network.gateway_mac().octets() });
    }
    interface
}

/// `hkt`, digits of the sandbox's id, and the number that the interface's name ends with.
fn tap_name(sandbox_id: &str, interface: &str) -> Result<String> {
    let unusable = |why: &str| Error::unusable("interface name", format!("{interface:?}"), why);
    if interface.len() > MAX_INTERFACE || !interface.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(unusable("use up to 15 letters and digits"));
    }
    let number = interface.trim_start_matches(|c: char| !c.is_ascii_digit());
    if !matches!(number.len(), 1..=2) || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(unusable("end it with a number of one or two digits"));
    }
    let id = sandbox_id.get(..TAP_ID_LEN).filter(|id| id.bytes().all(|b| b.is_ascii_hexdigit()));
    let id =
        id.ok_or_else(|| Error::unusable("sandbox id", sandbox_id, "it does not begin with 10 digits"))?;
    Ok(format!("hkt{id}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_have_names_that_linux_allows() {
        let id = "0123456789abcdef";
        assert_eq!(tap_name(id, "eth0").unwrap(), "hkt01234567890");
        assert_eq!(tap_name(id, "eth12").unwrap(), "hkt012345678912");
        for bad in ["", "eth", "eth123", "e1th2", "et/h0", "0123456789012345"] {
            assert!(tap_name(id, bad).is_err(), "{bad}");
        }
        assert!(tap_name("012345678", "eth0").is_err());
        assert!(tap_name("012345678/", "eth0").is_err());
    }
}
