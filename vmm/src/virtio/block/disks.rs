//! All disks of a VM, for whoever attaches, detaches and limits them while it runs.

use std::{sync::Arc, time::Duration};

use super::{
    Block, DiskCounters, DiskError,
    disk::{Disk, Source},
    slot::{Closing, Slot},
};
use crate::{
    config::is_disk_id,
    control::{Attached, StalledDisk},
    rate_limit::{RateLimit, RateLimitError},
    time::monotonic_ns,
};

/// How long a detached disk's last requests may take, less than a client waits for an answer.
const DETACH_TIMEOUT: Duration = Duration::from_secs(4);

/// A disk can't be attached, detached or limited.
#[derive(Debug, thiserror::Error)]
pub enum DisksError {
    /// The id does not fit.
    #[error("a disk's id must have 1 to 20 bytes, all printable ASCII without spaces")]
    Id,
    /// The id is a disk's, or a slot's.
    #[error("there is a disk {0} already")]
    Taken(String),
    /// All slots have a disk.
    #[error("all of the VM's {0} slots for disks are taken: detach one, or set spare_disks higher")]
    Full(usize),
    /// No disk has this id.
    #[error("there is no disk {0}")]
    Unknown(String),
    /// The disk belongs to the VM's configuration.
    #[error("the disk {0} is part of the VM's configuration and can't be detached")]
    Fixed(String),
    /// Its last requests take too long.
    #[error("the disk {0} is detached, but its last requests still run: its file is closed when they end")]
    Busy(String),
    /// The file is no good.
    #[error("cannot attach the disk {id}")]
    Open {
        /// The disk.
        id: String,
        /// Why.
        #[source]
        source: DiskError,
    },
    /// The limit is no good.
    #[error(transparent)]
    Limit(#[from] RateLimitError),
}

/// The disks of a VM.
#[derive(Debug, Default)]
pub struct Disks {
    slots: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The slot's name: for a disk of the configuration, its id.
    name: String,
    slot: Arc<Slot>,
    /// The id of the disk that is there.
    id: Option<String>,
    /// Where a spare slot's device is, for the guest's driver.
    spare: Option<String>,
    /// A disk that was detached and had requests that did not end in time.
    closing: Option<Closing>,
}

impl Disks {
    /// Adds a device that has a disk.
    pub fn add_fixed(&mut self, block: &Block) {
        self.add(block, None);
    }

    /// Adds a device that has none yet, and that the guest is not told of before: `device` is where its driver finds it.
    pub fn add_spare(&mut self, block: &Block, device: String) {
        self.add(block, Some(device));
    }

    fn add(&mut self, block: &Block, spare: Option<String>) {
        let name = block.name.clone();
        let id = spare.is_none().then(|| name.clone());
        self.slots.push(Entry { name, slot: block.slot.clone(), id, spare, closing: None });
    }

    /// What the devices count, by name: a disk's id, or a spare slot's name.
    pub fn counters(&self) -> impl Iterator<Item = (String, Arc<DiskCounters>)> {
        self.slots.iter().map(|entry| (entry.name.clone(), entry.slot.counters.clone()))
    }

    /// Puts a disk into a free spare slot. A guest that knows the slot's device sees a disk whose size has changed. A
    /// read-only disk refuses writes, but the guest finds it writable, since its driver knows that from the start.
    ///
    /// # Errors
    /// When there is no free slot, or the disk is no good; nothing has changed then.
    pub fn attach(
        &mut self,
        id: &str,
        source: Source,
        read_only: bool,
        limit: RateLimit,
    ) -> Result<Attached, DisksError> {
        if !is_disk_id(id) {
            return Err(DisksError::Id);
        }
        limit.validate()?;
        if self.slots.iter().any(|entry| entry.name == id || entry.id.as_deref() == Some(id)) {
            return Err(DisksError::Taken(id.to_owned()));
        }
        let spares = self.slots.iter().filter(|entry| entry.spare.is_some()).count();
        for entry in &mut self.slots {
            entry.closing.take_if(|closing| closing.is_closed());
        }
        // Of those that wait for a last request, none is used: its queue would hold up the new disk's.
        let free =
            |entry: &&mut Entry| entry.spare.is_some() && entry.id.is_none() && entry.closing.is_none();
        let entry = self.slots.iter_mut().find(free).ok_or(DisksError::Full(spares))?;
        let disk =
            Disk::open(source, read_only).map_err(|source| DisksError::Open { id: id.to_owned(), source })?;
        entry.slot.attach(id, disk, limit);
        entry.id = Some(id.to_owned());
        Ok(Attached { slot: entry.name.clone(), device: entry.spare.clone().unwrap_or_default() })
    }

    /// Takes a disk out of its slot. Its file is closed when this returns.
    ///
    /// # Errors
    /// When there is no such disk, or it is part of the configuration, or its last requests do not end in time.
    pub fn detach(&mut self, id: &str) -> Result<(), DisksError> {
        let entry = self.find(id)?;
        if entry.spare.is_none() {
            return Err(DisksError::Fixed(id.to_owned()));
        }
        entry.id = None;
        entry.closing = entry.slot.detach();
        match &entry.closing {
            Some(closing) if !closing.wait(DETACH_TIMEOUT) => Err(DisksError::Busy(id.to_owned())),
            _ => Ok(()),
        }
    }

    /// Changes how much a disk may do.
    ///
    /// # Errors
    /// When there is no such disk, or the limit makes no sense.
    pub fn set_limit(&mut self, id: &str, limit: RateLimit) -> Result<(), DisksError> {
        limit.validate()?;
        self.find(id)?.slot.limiter.update(limit, monotonic_ns());
        Ok(())
    }

    /// The disks that wait for room on the host's file system.
    pub fn stalled(&self) -> Vec<StalledDisk> {
        let stalled =
            |entry: &Entry| Some(StalledDisk { id: entry.id.clone()?, reason: entry.slot.room.stalled()? });
        self.slots.iter().filter_map(stalled).collect()
    }

    /// Has all disks that wait for room try again at once.
    pub fn retry(&self) {
        self.slots.iter().for_each(|entry| entry.slot.room.ask());
    }

    fn find(&mut self, id: &str) -> Result<&mut Entry, DisksError> {
        let found = self.slots.iter_mut().find(|entry| entry.id.as_deref() == Some(id));
        found.ok_or_else(|| DisksError::Unknown(id.to_owned()))
    }
}
