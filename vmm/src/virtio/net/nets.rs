//! All interfaces of a VM, for whoever attaches and limits them while it runs.

use std::sync::{Arc, Mutex, OnceLock};

use husk_base::Mac;

use super::{Net, NetCounters, NetError, NetLimits, SpareNet};
use crate::{
    config::{NetConfig, NetConfigError},
    control::Attached,
    rate_limit::{RateLimit, RateLimitError},
    time::monotonic_ns,
};

/// An interface can't be attached or limited.
#[derive(Debug, thiserror::Error)]
pub enum NetsError {
    /// Its settings make no sense.
    #[error(transparent)]
    Config(#[from] NetConfigError),
    /// The id is an interface's.
    #[error("there is a network interface {0} already")]
    Taken(String),
    /// The address is an interface's.
    #[error("the network interface {id} has the MAC address {mac} already")]
    MacTaken {
        /// Whose it is.
        id: String,
        /// The address.
        mac: Mac,
    },
    /// All slots have had an interface.
    #[error("all of the VM's {0} slots for network interfaces are taken: set spare_nets higher")]
    Full(usize),
    /// No interface has this id.
    #[error("there is no network interface {0:?}")]
    Unknown(String),
    /// The tap is no good.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The limit is no good.
    #[error(transparent)]
    Limit(#[from] RateLimitError),
}

/// The interfaces of a VM.
#[derive(Debug, Default)]
pub struct Nets {
    known: Vec<Known>,
    spares: Vec<Spare>,
}

/// An interface that is there.
#[derive(Debug)]
struct Known {
    id: String,
    mac: Mac,
    limits: NetLimits,
}

/// A slot, which takes one interface.
#[derive(Debug)]
struct Spare {
    name: String,
    /// Where its device is, for the guest's driver.
    device: String,
    net: Arc<OnceLock<Mutex<Net>>>,
}

impl Nets {
    /// Adds an interface.
    pub fn add(&mut self, net: &Net) {
        self.known.push(Known { id: net.state.id.clone(), mac: net.state.mac, limits: net.limits() });
    }

    /// Adds a slot that has no interface yet, and that the guest is not told of before: `device` is where its driver finds
    /// it.
    pub fn add_spare(&mut self, spare: &SpareNet, name: String, device: String) {
        self.spares.push(Spare { name, device, net: spare.net.clone() });
    }

    /// Puts an interface into a free slot, where it stays. Returns where that is, and what the interface counts.
    ///
    /// # Errors
    /// When there is no free slot, or the interface is no good, or another has its id or address; the slot is free then.
    pub fn attach(&mut self, config: &NetConfig) -> Result<(Attached, Arc<NetCounters>), NetsError> {
        config.validate()?;
        if self.known.iter().any(|known| known.id == config.id) {
            return Err(NetsError::Taken(config.id.clone()));
        }
        if let Some(other) = self.known.iter().find(|known| known.mac == config.mac) {
            return Err(NetsError::MacTaken { id: other.id.clone(), mac: config.mac });
        }
        let free = self.spares.iter().find(|spare| spare.net.get().is_none());
        let Spare { name, device, net: place } = free.ok_or(NetsError::Full(self.spares.len()))?;
        let attached = Attached { slot: name.clone(), device: device.clone() };
        let (net, place) = (Net::new(config)?, place.clone());
        self.add(&net);
        let counters = net.counters();
        // Nobody else fills it.
        let _ = place.set(Mutex::new(net));
        Ok((attached, counters))
    }

    /// Changes an interface's rate limits, those that are given.
    ///
    /// # Errors
    /// When there is no such interface, or a limit makes no sense; nothing has changed then.
    pub fn set_limits(
        &self,
        id: &str,
        rx: Option<RateLimit>,
        tx: Option<RateLimit>,
    ) -> Result<(), NetsError> {
        for limit in [rx, tx].into_iter().flatten() {
            limit.validate()?;
        }
        let found = self.known.iter().find(|known| known.id == id);
        let limits = &found.ok_or_else(|| NetsError::Unknown(id.to_owned()))?.limits;
        for (limiter, limit) in [(&limits.rx, rx), (&limits.tx, tx)] {
            if let Some(limit) = limit {
                limiter.update(limit, monotonic_ns());
            }
        }
        Ok(())
    }
}
