//! virtio-balloon (virtio 1.2, section 5.5): memory that the guest gives up goes back to the host, when the host asks for
//! it (the balloon) and by itself when it is free (page reporting).
//!
//! | threat | answer |
//! |---|---|
//! | page numbers and ranges outside of the guest's memory | each is cut to the guest's regions; the rest is counted and left alone |
//! | requests with very many pages, or the same ones again and again | 1024 pages of a request are looked at, each once |
//! | the guest lies about its balloon or its statistics | both are only told to whoever asks, and never acted on |
//! | the guest does not give up memory | nothing but the guest's own limit can force it: the host's limits are for that |
//! | the guest takes back what it gave | the memory it was started with is what it may have at any time |

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_BALLOON,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{ActivateError, Activation, Interrupt, VirtioDevice, Worker};
use crate::{config::BalloonConfig, jail::seccomp};

mod engine;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod metrics;
mod release;
mod request;
mod stats;
#[cfg(test)]
mod tests;

pub use metrics::BalloonCounters;

use engine::{Engine, Role};
use release::Releaser;
use stats::Stats;

/// Feature bits (section 5.5.3).
const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;

/// Inflate, deflate, statistics, reporting. Linux wants room for 32 pieces of a report.
const QUEUE_SIZES: [u16; 4] = [64; 4];
/// Pages of 4 KiB.
const PAGES_PER_MIB: u32 = 256;
/// The field of the configuration space that the driver writes: the pages in the balloon (section 5.5.4).
const ACTUAL: u64 = 4;

/// All that the balloon knows, apart from its queues.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Pages that the host wants in the balloon.
    target_pages: u32,
    /// Pages that the driver says are in it.
    actual_pages: u32,
    /// How often the host has changed its wish.
    generation: u32,
    /// The newest statistics.
    stats: Option<Stats>,
}

/// What the device's thread, the vCPUs and the control socket share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Set as long as there is a driver.
    interrupt: Mutex<Option<Interrupt>>,
    /// Written to when the host wants new statistics.
    stats_wanted: EventFd,
    counters: Arc<BalloonCounters>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers are whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt(&self) -> MutexGuard<'_, Option<Interrupt>> {
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the control socket tells of a balloon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// How much memory the host wants back, in MiB.
    pub target_mib: u32,
    /// How much the guest says that it gave, in MiB.
    pub actual_mib: u32,
    /// What the guest said last of its memory, by name; empty until it has.
    pub stats: BTreeMap<String, u64>,
    /// Where the guest's driver finds the balloon, if it is not told so at its start: "4K@0xd0002000:7".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// The balloon for whoever steers it.
#[derive(Debug, Clone)]
pub struct BalloonHandle {
    shared: Arc<Shared>,
    device: Option<String>,
}

impl BalloonHandle {
    /// Asks the guest to give up so much memory in all. It does when it can.
    pub fn set_target_mib(&self, target_mib: u32) {
        {
            let mut state = self.shared.lock();
            state.target_pages = target_mib.saturating_mul(PAGES_PER_MIB);
            state.generation = state.generation.wrapping_add(1);
        }
        if let Some(interrupt) = &*self.shared.interrupt() {
            interrupt.signal_config_changed();
        }
    }

    /// What is known now. Asks the guest for new statistics, too, for the next time.
    pub fn state(&self) -> BalloonState {
        // Fails only when the counter would overflow, and then the guest is being asked already.
        let _ = self.shared.stats_wanted.write(1);
        let State { target_pages, actual_pages, stats, .. } = *self.shared.lock();
        BalloonState {
            target_mib: target_pages / PAGES_PER_MIB,
            actual_mib: actual_pages / PAGES_PER_MIB,
            stats: stats.map(|stats| stats.by_name()).unwrap_or_default(),
            device: self.device.clone(),
        }
    }

    /// What the balloon counts.
    pub fn counters(&self) -> Arc<BalloonCounters> {
        self.shared.counters.clone()
    }
}

/// A balloon.
#[derive(Debug)]
pub struct Balloon {
    config: BalloonConfig,
    releaser: Releaser,
    shared: Arc<Shared>,
    worker: Option<Worker>,
}

impl Balloon {
    /// A balloon for memory that is shared with other processes, or not.
    ///
    /// # Errors
    /// When no eventfd can be had.
    pub fn new(config: &BalloonConfig, shared_memory: bool) -> std::io::Result<Self> {
        let state =
            State { target_pages: config.target_mib.saturating_mul(PAGES_PER_MIB), ..State::default() };
        let shared = Shared {
            state: Mutex::new(state),
            interrupt: Mutex::default(),
            stats_wanted: EventFd::new(EFD_NONBLOCK)?,
            counters: Arc::default(),
        };
        let releaser = Releaser::new(shared_memory);
        Ok(Self { config: config.clone(), releaser, shared: Arc::new(shared), worker: None })
    }

    /// To steer it; `device` is where a guest's driver finds it that is told later.
    pub fn handle(&self, device: Option<String>) -> BalloonHandle {
        BalloonHandle { shared: self.shared.clone(), device }
    }
}

/// What the queues are for. Linux leaves no gaps in their numbers for features that were not agreed on.
fn roles(features: u64) -> Vec<Role> {
    let has = |feature| features & feature != 0;
    let mut roles = vec![Role::Inflate, Role::Deflate];
    roles.extend(has(F_STATS_VQ).then_some(Role::Stats));
    roles.extend(has(F_REPORTING).then_some(Role::Reporting));
    roles
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BALLOON
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM
            | if self.config.stats { F_STATS_VQ } else { 0 }
            | if self.config.free_page_reporting { F_REPORTING } else { 0 }
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES[..roles(self.features()).len()]
    }

    /// num_pages and actual; the fields after them belong to features that are not offered.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let State { target_pages, actual_pages, .. } = *self.shared.lock();
        let config = u64::from(target_pages) | u64::from(actual_pages) << 32;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = config.to_le_bytes();
        let mut rest = bytes.get(start..).unwrap_or_default().iter();
        data.fill_with(|| rest.next().copied().unwrap_or(0));
    }

    fn config_generation(&self) -> u32 {
        self.shared.lock().generation
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (ACTUAL, Ok(bytes)) = (offset, data.try_into()) {
            self.shared.lock().actual_pages = u32::from_le_bytes(bytes);
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let roles = roles(activation.features);
        let (expected, found) = (roles.len(), activation.queues.iter().flatten().count());
        if expected != found {
            return Err(ActivateError::QueueCount { expected, found });
        }
        let os = |what| move |source| ActivateError::Os { what, source };
        let interrupt = activation.interrupt.clone();
        let engine = Engine::new(activation, &roles, self.releaser, self.shared.clone())
            .map_err(os("cannot set up the balloon's event loop"))?;
        let worker = Worker::spawn("balloon", seccomp::Role::Balloon, interrupt.clone(), move |stop| {
            engine.run(&stop)
        })
        .map_err(os("cannot start the balloon's thread"))?;
        self.worker = Some(worker);
        *self.shared.interrupt() = Some(interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        *self.shared.interrupt() = None;
        self.worker = None;
        // The guest has all its memory again (section 5.5.5).
        let mut state = self.shared.lock();
        (state.actual_pages, state.stats) = (0, None);
    }
}
