//! virtio-net (virtio 1.2, section 5.1): network interfaces on taps of the host.
//!
//! Frames move by `readv` and `writev` straight between the tap and the guest's buffers. Checksums and segmentation are
//! left to whoever can do them last: the tap takes and gives frames with a virtio-net header that says what is missing,
//! and that header is the guest's own. Each pair of queues has a thread.
//!
//! | threat | answer |
//! |---|---|
//! | descriptors outside of the guest's memory, loops, long or endless chains, wrong directions | the device stops until it is reset ([`pieces`]) |
//! | frames too short or too long, headers that make no sense | never offered to the tap, or checked and refused by the host's kernel; dropped and counted |
//! | buffers too few or too small for a frame | the frame waits for more, or is dropped if a frame can't have more; the tap is not read meanwhile |
//! | the guest changes a buffer during the transfer, or a chain that waits | neither header nor frame is ever looked at, but for the field that the device itself writes; a chain that waits is read and checked anew |
//! | more traffic than agreed | rate limits; the tap's own queue drops what waits too long |
//! | wrong commands, or for queues that do not exist | answered with an error |
//! | foreign source addresses | for the host to filter at the tap, where it filters everything else |

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use husk_base::Mac;
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
        VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vmm_sys_util::epoll::Epoll;

use super::{ActivateError, Activation, ActiveQueue, VirtioDevice, Worker};
use crate::{config::NetConfig, jail::seccomp::Role, rate_limit::RateLimiter, time::monotonic_ns};

mod control;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod metrics;
mod nets;
mod pair;
mod pieces;
mod ring;
mod rx;
mod spare;
mod tap;
#[cfg(test)]
mod tests;
mod throttle;
mod tx;

pub use metrics::NetCounters;
pub use nets::{Nets, NetsError};
pub use spare::SpareNet;
pub use tap::TapError;

use control::Steering;
use pair::{ControlQueue, Mode, Pair};
use tap::Tap;
use throttle::Throttle;

const QUEUE_SIZE: u16 = 256;
/// Bytes before each frame (section 5.1.6).
const HEADER_LEN: usize = 12;
/// Most bytes of a frame and its header: a packet of 65535 bytes in a tagged Ethernet frame.
const MAX_LEN: usize = HEADER_LEN + 65535 + 18;
/// Most frames of one direction between two looks at other things. Their completion is signalled together.
const BATCH: usize = 64;

/// What one direction of a pair waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// The tap: has no frame, or takes none.
    Tap,
    /// The driver: has given no buffer, or no frame.
    Ring,
    /// The rate limit.
    Tokens,
}

/// An interface can't be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Its tap can't be used.
    #[error("cannot set up the network interface {id}")]
    Tap {
        /// The interface.
        id: String,
        /// Why.
        #[source]
        source: TapError,
    },
    /// The host's kernel refused something.
    #[error("cannot set up the rate limits of the network interface {id}")]
    Limits {
        /// The interface.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An interface's rate limits, which can be changed while it runs.
#[derive(Debug, Clone)]
pub struct NetLimits {
    /// Of what the guest receives.
    pub rx: RateLimiter,
    /// Of what the guest sends.
    pub tx: RateLimiter,
}

/// All that there is to know of an interface, apart from its limits, threads and descriptors.
#[derive(Debug, Clone)]
struct State {
    id: String,
    mac: Mac,
    mtu: Option<u16>,
    queue_pairs: u16,
    /// Whether the host's taps know UDP segmentation.
    udp_segmentation: bool,
    /// Features that the driver accepted; zero when the device is not active.
    negotiated: u64,
    /// How many queue pairs the driver uses; the control queue changes it.
    pairs_in_use: Arc<AtomicU16>,
}

impl State {
    fn features(&self) -> u64 {
        let mut features = bits(&[
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_MAC,
            VIRTIO_NET_F_MRG_RXBUF,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
        ]);
        if self.udp_segmentation {
            features |= bits(&[VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6]);
        }
        if self.mtu.is_some() {
            features |= bits(&[VIRTIO_NET_F_MTU]);
        }
        if self.queue_pairs > 1 {
            features |= bits(&[VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ]);
        }
        features
    }

    /// The configuration space: mac, status, max_virtqueue_pairs and mtu (section 5.1.4).
    fn config_space(&self) -> [u8; 12] {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac.octets());
        config[8..10].copy_from_slice(&self.queue_pairs.to_le_bytes());
        config[10..].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        config
    }

    fn has(&self, feature: u32) -> bool {
        self.negotiated & 1 << feature != 0
    }

    /// TUN_F_*: what the tap may leave to the guest.
    fn offloads(&self) -> u32 {
        // Each of the others needs the checksum to be left out.
        if !self.has(VIRTIO_NET_F_GUEST_CSUM) {
            return 0;
        }
        let mut offloads = libc::TUN_F_CSUM;
        if self.has(VIRTIO_NET_F_GUEST_TSO4) {
            offloads |= libc::TUN_F_TSO4;
        }
        if self.has(VIRTIO_NET_F_GUEST_TSO6) {
            offloads |= libc::TUN_F_TSO6;
        }
        // The tap knows them together only.
        if self.has(VIRTIO_NET_F_GUEST_USO4) && self.has(VIRTIO_NET_F_GUEST_USO6) {
            offloads |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
        offloads
    }
}

fn bits(features: &[u32]) -> u64 {
    features.iter().fold(0, |all, feature| all | 1 << feature)
}

/// A network interface.
#[derive(Debug)]
pub struct Net {
    state: State,
    taps: Arc<[Tap]>,
    limits: NetLimits,
    counters: Arc<NetCounters>,
    queue_sizes: Vec<u16>,
    workers: Vec<Worker>,
}

impl Net {
    /// Opens an interface's tap.
    ///
    /// # Errors
    /// When it is not to be had, or is another than it should be.
    pub fn new(config: &NetConfig) -> Result<Self, NetError> {
        let tap_error = |source| NetError::Tap { id: config.id.clone(), source };
        let limit_error = |source| NetError::Limits { id: config.id.clone(), source };
        let taps: Arc<[Tap]> = tap::open(&config.tap, config.queue_pairs).map_err(tap_error)?.into();
        let all = libc::TUN_F_CSUM | libc::TUN_F_USO4 | libc::TUN_F_USO6;
        let udp_segmentation = taps.first().is_some_and(|tap| tap.set_offloads(all).is_ok());
        let now = monotonic_ns();
        let limits = NetLimits {
            rx: RateLimiter::new(config.limit_rx, now).map_err(limit_error)?,
            tx: RateLimiter::new(config.limit_tx, now).map_err(limit_error)?,
        };
        let state = State {
            id: config.id.clone(),
            mac: config.mac,
            mtu: config.mtu,
            queue_pairs: config.queue_pairs.into(),
            udp_segmentation,
            negotiated: 0,
            pairs_in_use: Arc::new(AtomicU16::new(1)),
        };
        let control_queues = usize::from(config.queue_pairs > 1);
        let queue_sizes = vec![QUEUE_SIZE; 2 * usize::from(config.queue_pairs) + control_queues];
        let mut net =
            Self { state, taps, limits, counters: Arc::default(), queue_sizes, workers: Vec::new() };
        net.reset();
        Ok(net)
    }

    /// What the interface counts.
    pub fn counters(&self) -> Arc<NetCounters> {
        self.counters.clone()
    }

    /// The interface's rate limits.
    pub fn limits(&self) -> NetLimits {
        self.limits.clone()
    }

    fn steering(&self) -> Steering {
        Steering { taps: self.taps.clone(), in_use: self.state.pairs_in_use.clone() }
    }

    fn set_offloads(&self) -> io::Result<()> {
        self.taps.first().map_or(Ok(()), |tap| tap.set_offloads(self.state.offloads()))
    }

    /// The pairs that the driver has set up, all in front of the first that it has not, and the control queue (section
    /// 5.1.2).
    fn sort(
        &self,
        mut queues: Vec<Option<ActiveQueue>>,
    ) -> (Vec<(ActiveQueue, ActiveQueue)>, Option<ActiveQueue>) {
        let pairs = if self.state.has(VIRTIO_NET_F_MQ) { self.state.queue_pairs } else { 1 };
        let mut rest = queues.split_off((2 * usize::from(pairs)).min(queues.len())).into_iter();
        let control = rest.next().flatten().filter(|_| self.state.has(VIRTIO_NET_F_CTRL_VQ));
        let mut queues = queues.into_iter();
        let mut ready = Vec::new();
        while let (Some(Some(rx)), Some(Some(tx))) = (queues.next(), queues.next()) {
            ready.push((rx, tx));
        }
        (ready, control)
    }

    fn spawn(&self, pair: Pair) -> Result<Worker, ActivateError> {
        let name = match pair.index {
            0 => self.state.id.clone(),
            index => format!("{}-{index}", self.state.id),
        };
        let interrupt = pair.interrupt.clone();
        Worker::spawn(&name, Role::Net, interrupt, move |stop| pair.run(&stop))
            .map_err(os("cannot start an interface's thread"))
    }
}

fn os(what: &'static str) -> impl Fn(io::Error) -> ActivateError {
    move |source| ActivateError::Os { what, source }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.state.features()
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = self.state.config_space();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = config.get(start..).unwrap_or_default().iter();
        data.fill_with(|| rest.next().copied().unwrap_or(0));
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { mem, queues, interrupt, features } = activation;
        self.state.negotiated = features;
        self.set_offloads().map_err(os("cannot set the tap's offloads"))?;
        let mode = Mode {
            event_idx: self.state.has(VIRTIO_RING_F_EVENT_IDX),
            mergeable: self.state.has(VIRTIO_NET_F_MRG_RXBUF),
        };
        let (pairs, control) = self.sort(queues);
        let usable = u16::try_from(pairs.len()).unwrap_or(u16::MAX);
        if usable == 0 {
            return Err(ActivateError::QueueCount { expected: 2, found: 0 });
        }
        let mut control = control.map(|active| ControlQueue { active, usable });
        let throttle =
            |limiter: &RateLimiter| Throttle::new(limiter.clone()).map_err(os("cannot create a timer"));
        let mut workers = Vec::with_capacity(pairs.len());
        for (index, (rx, tx)) in pairs.into_iter().enumerate() {
            workers.push(self.spawn(Pair {
                mem: mem.clone(),
                rx,
                tx,
                mode,
                interrupt: interrupt.clone(),
                rx_throttle: throttle(&self.limits.rx)?,
                tx_throttle: throttle(&self.limits.tx)?,
                counters: self.counters.clone(),
                steering: self.steering(),
                index,
                control: control.take(),
                epoll: Epoll::new().map_err(os("cannot set up the event loop"))?,
            })?);
        }
        self.workers = workers;
        Ok(())
    }

    fn reset(&mut self) {
        self.workers.clear();
        self.state.negotiated = 0;
        self.state.pairs_in_use.store(1, Ordering::Relaxed);
        // They fail only for a tap that is gone, and then nothing is lost.
        let _ = self.set_offloads();
        let _ = self.steering().use_pairs(1);
    }
}
