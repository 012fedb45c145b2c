//! The networks that there are.
//!
//! ```text
//! STATE/lock            flock of whoever makes or removes networks
//! STATE/NAME.json       a definition; replaced atomically
//! RUN/ID/lock           flock of whoever changes the network's bridge, tables or leases
//! RUN/ID/leases.json    who has which address; replaced atomically
//! ```

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use husk_base::{atomic, dirs::make_private_dir, id, json_file, lock::lock_file};
use ipnet::{IpNet, Ipv4Net};

use crate::{
    Error, Result,
    definition::{DEFAULT_NETWORK, Definition, NewNetwork, check_mtu, check_name, subnet4, subnet6},
    host::{self, HostNetwork},
};

/// The networks of husk's own. Any number of processes may use the same directories.
#[derive(Debug, Clone)]
pub struct Networks {
    state: PathBuf,
    run: PathBuf,
}

impl Networks {
    /// Uses these directories, which are made when missing: `state` survives a reboot, `run` does not.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn open(state: &Path, run: &Path) -> Result<Self> {
        make_private_dir(state)?;
        make_private_dir(run)?;
        Ok(Self { state: state.into(), run: run.into() })
    }

    /// Makes a network's definition. Its bridge comes with the first container.
    ///
    /// # Errors
    /// When the name is invalid or in use, when a setting can't be, when a subnet overlaps another network or what the
    /// host has, when no subnet is free, or when the definition can't be written.
    pub fn create(&self, new: &NewNetwork) -> Result<Definition> {
        check_name(&new.name)?;
        let _lock = lock_file(&self.state.join("lock"))?;
        atomic::sweep(&self.state);
        if self.read(&new.name)?.is_some() {
            return Err(Error::NameInUse(new.name.clone()));
        }
        let definition = self.define(new)?;
        json_file::write_durable(&self.path(&definition.name), &definition)?;
        Ok(definition)
    }

    /// All networks, by name.
    ///
    /// # Errors
    /// When the directory or a definition can't be read.
    pub fn list(&self) -> Result<Vec<Definition>> {
        let mut definitions = Vec::new();
        for entry in fs::read_dir(&self.state).map_err(Error::io("read", &self.state))? {
            let path = entry.map_err(Error::io("read", &self.state))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                definitions.extend(json_file::read::<Definition>(&path)?);
            }
        }
        definitions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(definitions)
    }

    /// The network of this name or id, or whose id begins so, in this order. The default network is made when missing.
    ///
    /// # Errors
    /// When there is none or more than one, or when it can't be read or made.
    pub fn get(&self, name_or_id: &str) -> Result<Definition> {
        if check_name(name_or_id).is_err() {
            return Err(Error::NotFound(name_or_id.into()));
        }
        if let Some(definition) = self.read(name_or_id)? {
            return Ok(definition);
        }
        if name_or_id == DEFAULT_NETWORK {
            let new = NewNetwork { name: name_or_id.into(), ..NewNetwork::default() };
            return match self.create(&new) {
                // Another process was faster.
                Err(Error::NameInUse(_)) => self.get(name_or_id),
                made => made,
            };
        }
        let mut found = self.list()?.into_iter().filter(|definition| definition.id.starts_with(name_or_id));
        let first = found.next().ok_or_else(|| Error::NotFound(name_or_id.into()))?;
        if first.id != name_or_id && found.next().is_some() {
            return Err(Error::Ambiguous(name_or_id.into()));
        }
        Ok(first)
    }

    /// Removes a network that no living sandbox uses, and whatever dead ones left of it. `alive` says of a sandbox's id
    /// whether it lives.
    ///
    /// # Errors
    /// When there is no such network, when it is in use, or when it can't be removed.
    pub fn remove(&self, name_or_id: &str, alive: &dyn Fn(&str) -> bool) -> Result<Definition> {
        let definition = self.get(name_or_id)?;
        let _lock = lock_file(&self.state.join("lock"))?;
        let _network = self.take_down(&definition, alive)?;
        self.forget(&definition)?;
        Ok(definition)
    }

    /// Removes all networks that no living sandbox uses, except the default one.
    ///
    /// # Errors
    /// When one can't be removed; those before it are.
    pub fn prune(&self, alive: &dyn Fn(&str) -> bool) -> Result<Vec<Definition>> {
        let mut removed = Vec::new();
        for definition in self.list()? {
            if definition.name == DEFAULT_NETWORK {
                continue;
            }
            match self.remove(&definition.name, alive) {
                Ok(_) => removed.push(definition),
                // Somebody else removed it.
                Err(Error::InUse { .. } | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    /// Where a network's leases are. It is replaced whenever one changes: who wants to know watches its directory.
    pub fn lease_file(&self, network: &Definition) -> PathBuf {
        self.run_dir(network).join("leases.json")
    }

    /// The directory of what a network has at run time.
    pub(crate) fn run_dir(&self, network: &Definition) -> PathBuf {
        self.run.join(&network.id)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.join(format!("{name}.json"))
    }

    fn read(&self, name: &str) -> Result<Option<Definition>> {
        Ok(json_file::read(&self.path(name))?)
    }

    /// Removes a network's files. Its state's lock is held.
    fn forget(&self, network: &Definition) -> Result<()> {
        let path = self.path(&network.name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        let run = self.run_dir(network);
        match fs::remove_dir_all(&run) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", run)(error)),
            _ => Ok(()),
        }
    }

    fn define(&self, new: &NewNetwork) -> Result<Definition> {
        let others = self.list()?;
        let host = HostNetwork::read()?;
        let taken: Vec<Ipv4Net> = others.iter().map(|other| other.ipv4.subnet).collect();
        let subnet = new.subnet.map_or_else(|| host.free_subnet(&taken), Ok)?;
        let ipv4 = subnet4(subnet, new.gateway)?;
        check_overlap(IpNet::V4(subnet), &others, &host)?;

        let ipv6 = match new.subnet6 {
            _ if new.no_ipv6 => None,
            Some(subnet) => Some(subnet6(subnet, new.gateway6)?),
            None if host::ipv6_disabled() => None,
            None => Some(subnet6(host::random_ula()?, new.gateway6)?),
        };
        if let Some(ipv6) = ipv6 {
            check_overlap(IpNet::V6(ipv6.subnet), &others, &host)?;
        }
        let least = if ipv6.is_some() { 1280 } else { 576 };
        let mtu = new.mtu.unwrap_or_else(|| host.mtu.clamp(least, 65521));
        check_mtu(mtu, ipv6.is_some())?;

        let created_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = new_id(&others)?;
        Ok(Definition { name: new.name.clone(), id, created_s, ipv4, ipv6, mtu, internal: new.internal })
    }
}

fn check_overlap(subnet: IpNet, others: &[Definition], host: &HostNetwork) -> Result<()> {
    let error =
        |used: IpNet, by: String| Error::Overlap { subnet: subnet.to_string(), used: used.to_string(), by };
    for other in others {
        let subnets = [Some(IpNet::V4(other.ipv4.subnet)), other.ipv6.map(|ipv6| IpNet::V6(ipv6.subnet))];
        if let Some(used) = subnets.into_iter().flatten().find(|used| host::overlaps(subnet, *used)) {
            return Err(error(used, format!("network {}", other.name)));
        }
    }
    match host.overlap(subnet) {
        Some((used, by)) => Err(error(used, by.into())),
        None => Ok(()),
    }
}

/// An id whose bridge no other network has.
fn new_id(others: &[Definition]) -> Result<String> {
    loop {
        let id = id::random().map_err(Error::io("read", "the system's random numbers"))?;
        if !others.iter().any(|other| other.id[..8] == id[..8]) {
            return Ok(id);
        }
    }
}
