//! The contract between a virtio device and its transport.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

/// Interrupt status bit: a used buffer was returned (virtio 1.2, section 4.2.2.1).
pub const INTERRUPT_USED_RING: u32 = 1;
/// Interrupt status bit: the configuration changed, or the device needs a reset.
pub const INTERRUPT_CONFIG: u32 = 2;
/// Device status bit DEVICE_NEEDS_RESET (virtio 1.2, section 2.1).
pub const STATUS_NEEDS_RESET: u32 = 64;

/// A device could not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver set up another number of queues than the device needs.
    #[error("the driver set up {found} queues of {expected}")]
    QueueCount {
        /// How many the device needs.
        expected: usize,
        /// How many were ready.
        found: usize,
    },
    /// What the device is for has not come yet.
    #[error("there is nothing behind this spare device yet: the guest was not to use it")]
    Empty,
    /// An operating system call failed.
    #[error("{what}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// A device's interrupt line and status registers, shared by transport and device thread.
#[derive(Debug, Clone)]
pub struct Interrupt {
    inner: Arc<InterruptInner>,
}

#[derive(Debug)]
struct InterruptInner {
    irqfd: EventFd,
    /// InterruptStatus register.
    status: AtomicU32,
    /// Extra bits that the device wants to show in the device status register.
    device_status: AtomicU32,
    /// Whether somebody else may fire it, who can't set bits of the status.
    lent: AtomicBool,
}

impl Interrupt {
    /// An interrupt that fires by a write to `irqfd`.
    pub fn new(irqfd: EventFd) -> Self {
        let (status, device_status, lent) = Default::default();
        Self { inner: Arc::new(InterruptInner { irqfd, status, device_status, lent }) }
    }

    /// The descriptor to register with KVM.
    pub fn irqfd(&self) -> &EventFd {
        &self.inner.irqfd
    }

    /// The descriptor for another process, which tells the driver by itself that buffers were used. It can't set bits of
    /// the status, so from now until the next reset the driver always reads that buffers may have been used, and looks.
    pub fn lend(&self) -> &EventFd {
        self.inner.lent.store(true, Ordering::SeqCst);
        &self.inner.irqfd
    }

    /// Tells the driver that buffers were used.
    pub fn signal_used(&self) {
        self.signal(INTERRUPT_USED_RING);
    }

    /// Tells the driver that the configuration space has changed (virtio 1.2, section 2.5).
    pub fn signal_config_changed(&self) {
        self.signal(INTERRUPT_CONFIG);
    }

    /// Tells the driver that the device gave up and needs a reset (virtio 1.2, section 2.1.2).
    pub fn signal_needs_reset(&self) {
        self.inner.device_status.fetch_or(STATUS_NEEDS_RESET, Ordering::SeqCst);
        self.signal(INTERRUPT_CONFIG);
    }

    fn signal(&self, bits: u32) {
        self.inner.status.fetch_or(bits, Ordering::SeqCst);
        // An eventfd write fails only when its counter would overflow, and then an interrupt is pending anyway.
        let _ = self.inner.irqfd.write(1);
    }

    /// InterruptStatus as the driver reads it.
    pub fn status(&self) -> u32 {
        let lent = self.inner.lent.load(Ordering::SeqCst);
        self.inner.status.load(Ordering::SeqCst) | if lent { INTERRUPT_USED_RING } else { 0 }
    }

    /// InterruptACK as the driver writes it.
    pub fn acknowledge(&self, bits: u32) {
        self.inner.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Bits that the device adds to the device status register.
    pub fn device_status(&self) -> u32 {
        self.inner.device_status.load(Ordering::SeqCst)
    }

    /// Back to the state after a device reset.
    pub fn reset(&self) {
        self.inner.status.store(0, Ordering::SeqCst);
        self.inner.device_status.store(0, Ordering::SeqCst);
        self.inner.lent.store(false, Ordering::SeqCst);
    }
}

/// A queue that has been validated and can't be changed by the guest any more.
#[derive(Debug)]
pub struct ActiveQueue {
    /// The rings.
    pub queue: Queue,
    /// Becomes readable when the driver notifies the queue.
    pub kick: EventFd,
}

impl ActiveQueue {
    /// The queues of a device that needs all `N` of them.
    ///
    /// # Errors
    /// When the driver has set up fewer.
    pub fn all<const N: usize>(queues: Vec<Option<Self>>) -> Result<[Self; N], ActivateError> {
        let ready: Vec<_> = queues.into_iter().flatten().collect();
        let found = ready.len();
        <[_; N]>::try_from(ready).map_err(|_| ActivateError::QueueCount { expected: N, found })
    }
}

/// What a device gets when its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// The guest's memory.
    pub mem: GuestMemoryMmap,
    /// As many as [`VirtioDevice::queue_max_sizes`] named. Those that the driver set up are valid; `None` are those that
    /// it leaves alone.
    pub queues: Vec<Option<ActiveQueue>>,
    /// The device's interrupt.
    pub interrupt: Interrupt,
    /// Feature bits that device and driver agreed on.
    pub features: u64,
}

/// A virtio device behind a transport. Called from vCPU threads, one at a time.
pub trait VirtioDevice: Send {
    /// Device id (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// Feature bits offered. The transport adds VIRTIO_F_VERSION_1.
    fn features(&self) -> u64;

    /// Maximum size of each queue.
    fn queue_max_sizes(&self) -> &[u16];

    /// Reads the device's configuration space; bytes beyond its end read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Changes whenever the configuration space does, in the same moment, so that a driver that reads it in pieces knows
    /// whether they belong together (section 2.5.1).
    fn config_generation(&self) -> u32 {
        0
    }

    /// Writes the device's configuration space, after negotiation. Most devices have nothing there to be written.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Gets what must be had in the process that runs the device, which may be locked up already, and before the guest
    /// runs. Without it, a device works as well, but slower.
    fn prepare(&mut self) {}

    /// Starts the device's thread.
    ///
    /// # Errors
    /// When the device can't run; the transport then sets NEEDS_RESET.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Ends the device's thread and returns to the state before activation. Also called when the VM ends.
    fn reset(&mut self);
}
