//! What is behind a disk device, which may change while the device runs: shared by its threads, its configuration space
//! and whoever attaches and detaches disks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

use super::{
    DiskCounters,
    disk::{Closed, Disk},
    room::Room,
};
use crate::{
    config::{MAX_DISK_ID_LEN, WhenFull},
    rate_limit::{RateLimit, RateLimiter},
    time::monotonic_ns,
    virtio::Interrupt,
};

/// A serial number, filled up with zeros (virtio 1.2, section 5.2.6).
type Id = [u8; MAX_DISK_ID_LEN];

/// A place for a disk.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its serial number while there is no disk.
    name: Id,
    state: Mutex<State>,
    /// The limits of the disk that is there.
    pub(super) limiter: RateLimiter,
    /// Whether the disk that is there waits for room.
    pub(super) room: Room,
    /// What all its disks together count.
    pub(super) counters: Arc<DiskCounters>,
}

#[derive(Debug)]
struct State {
    target: Target,
    /// Tells when the disk's file has been closed.
    closed: Option<Closed>,
    /// Changes with the capacity.
    generation: u32,
    /// There while the device runs.
    interrupt: Option<Interrupt>,
    /// Whether the capacity has changed since a driver may have read it, and no interrupt could say so.
    unannounced: bool,
}

/// What a request finds.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The disk, if there is one.
    pub(super) disk: Option<Arc<Disk>>,
    /// The serial number.
    pub(super) id: Id,
}

impl Slot {
    /// A place called `name`, with a disk or without.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub(super) fn new(
        name: &str,
        disk: Option<(Disk, Closed)>,
        limit: RateLimit,
        when_full: WhenFull,
    ) -> std::io::Result<Self> {
        let name = id(name);
        let (disk, closed) = disk.unzip();
        let state = State {
            target: Target { disk: disk.map(Arc::new), id: name },
            closed,
            generation: 0,
            interrupt: None,
            unannounced: false,
        };
        Ok(Self {
            name,
            state: Mutex::new(state),
            limiter: RateLimiter::new(limit, monotonic_ns())?,
            room: Room::new(when_full)?,
            counters: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn target(&self) -> Target {
        self.lock().target.clone()
    }

    /// Whether this disk is still there.
    pub(super) fn has(&self, disk: &Arc<Disk>) -> bool {
        self.lock().target.disk.as_ref().is_some_and(|there| Arc::ptr_eq(there, disk))
    }

    /// The disk's id, or the slot's name if there is no disk.
    pub(super) fn id(&self) -> String {
        let id = self.lock().target.id;
        id.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
    }

    /// Capacity in sectors; none without a disk.
    pub(super) fn sectors(&self) -> u64 {
        self.lock().target.disk.as_ref().map_or(0, |disk| disk.sectors())
    }

    /// Changes whenever the capacity does, and at the same moment.
    pub(super) fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// Puts a disk there. What was there is let go.
    pub(super) fn attach(&self, name: &str, (disk, closed): (Disk, Closed), limit: RateLimit) {
        self.limiter.update(limit, monotonic_ns());
        let mut state = self.lock();
        state.target = Target { disk: Some(Arc::new(disk)), id: id(name) };
        state.closed = Some(closed);
        state.announce();
    }

    /// Takes the disk away. Requests that have begun with it go on, but do not wait for room any more; all later ones
    /// fail.
    pub(super) fn detach(&self) -> Option<Closing> {
        let closed = {
            let mut state = self.lock();
            state.target = Target { disk: None, id: self.name };
            state.announce();
            state.closed.take()
        };
        self.room.ask();
        closed.map(Closing)
    }

    /// The device runs, or does not any more.
    pub(super) fn set_interrupt(&self, interrupt: Option<Interrupt>) {
        let mut state = self.lock();
        state.interrupt = interrupt;
        if state.unannounced {
            state.announce_again();
        }
    }
}

impl State {
    fn announce(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.announce_again();
    }

    fn announce_again(&mut self) {
        // A driver reads the capacity before its device runs, so a change in between has to be told afterwards.
        self.unannounced = self.interrupt.is_none();
        if let Some(interrupt) = &self.interrupt {
            interrupt.signal_config_changed();
        }
    }
}

/// A disk that has been taken away, and whose last requests may still run.
#[derive(Debug)]
pub(super) struct Closing(Closed);

impl Closing {
    /// Waits until the disk's file has been closed; returns whether it has.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        // Never gets a message: the sender goes with the disk.
        self.0.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    /// Whether the file has been closed.
    pub(super) fn is_closed(&self) -> bool {
        self.0.try_recv() == Err(TryRecvError::Disconnected)
    }
}

fn id(name: &str) -> Id {
    let mut id = Id::default();
    for (to, from) in id.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    id
}
