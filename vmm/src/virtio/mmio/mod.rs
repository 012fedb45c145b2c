//! The MMIO transport: a device's registers as the driver sees them (virtio 1.2, section 4.2). Modern drivers only.

use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
        VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
    },
    virtio_mmio::{
        VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
        VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
        VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS,
        VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_NOTIFY,
        VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY, VIRTIO_MMIO_QUEUE_SEL,
        VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH,
        VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS,
        VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
    },
};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Activation, ActiveQueue, Interrupt, VirtioDevice, device::STATUS_NEEDS_RESET};
use crate::log::guest_fault;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod queue_config;
#[cfg(test)]
mod tests;

use queue_config::{Area, Half, QueueConfig};

/// Offset of the register that a driver writes a queue's number to in order to notify the device.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;
/// "virt".
const MAGIC: u32 = 0x7472_6976;
/// Not a legacy device.
const VERSION: u32 = 2;
/// "HUSK".
const VENDOR: u32 = 0x4b53_5548;
/// What the registers of a shared memory region read that does not exist (section 4.2.2.2).
const NO_REGION: u32 = u32::MAX;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// A device behind its registers.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    mem: GuestMemoryMmap,
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    queues: Vec<QueueConfig>,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
}

impl std::fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MmioTransport")
            .field("device_type", &self.device.device_type())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl MmioTransport {
    /// Puts a device behind registers, in the state after a reset.
    ///
    /// # Errors
    /// When the descriptors for notifications can't be made.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        mem: GuestMemoryMmap,
        interrupt: Interrupt,
    ) -> std::io::Result<Self> {
        let queues: Vec<_> = device.queue_max_sizes().iter().map(|size| QueueConfig::new(*size)).collect();
        let kicks = queues.iter().map(|_| EventFd::new(EFD_NONBLOCK)).collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            mem,
            interrupt,
            kicks,
            queues,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
        })
    }

    /// The descriptors that notify the queues, in order.
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    /// Ends the device.
    pub fn shut_down(&mut self) {
        self.device.reset();
    }

    /// The driver reads a register. All but the configuration space is read 32 bits at a time.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            return self.device.read_config(offset, data);
        }
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(data) => *data = self.read_register(u32::try_from(offset).unwrap_or(u32::MAX)).to_le_bytes(),
            Err(_) => data.fill(0),
        }
    }

    fn read_register(&self, offset: u32) -> u32 {
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.device_type(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => word(self.offered_features(), self.device_features_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected_queue().map_or(0, |queue| queue.max_size().into()),
            VIRTIO_MMIO_QUEUE_READY => self.selected_queue().map_or(0, |queue| queue.ready().into()),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status(),
            VIRTIO_MMIO_STATUS => self.status | self.interrupt.device_status(),
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
            VIRTIO_MMIO_CONFIG_GENERATION => self.device.config_generation(),
            _ => 0,
        }
    }

    /// The driver writes a register. What is not allowed now, or ever, is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            if self.status & (FEATURES_OK | FAILED) == FEATURES_OK {
                self.device.write_config(offset, data);
            }
            return;
        }
        let (Ok(offset), Ok(data)) = (u32::try_from(offset), <[u8; 4]>::try_from(data)) else { return };
        let value = u32::from_le_bytes(data);
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => self.notify(value),
            VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.write_queue(offset, value),
        }
    }

    fn write_queue(&mut self, offset: u32, value: u32) {
        // After negotiation and before the device runs.
        let may_change = self.status & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK;
        let Some(queue) = self.queues.get_mut(self.queue_select as usize).filter(|_| may_change) else {
            return;
        };
        match offset {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(value),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_address(Area::Descriptors, Half::Low, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_address(Area::Descriptors, Half::High, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_address(Area::Driver, Half::Low, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_address(Area::Driver, Half::High, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_address(Area::Device, Half::Low, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_address(Area::Device, Half::High, value),
            _ => {}
        }
    }

    fn selected_queue(&self) -> Option<&QueueConfig> {
        self.queues.get(self.queue_select as usize)
    }

    fn offered_features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    fn write_features(&mut self, value: u32) {
        if self.status != ACKNOWLEDGE | DRIVER {
            return;
        }
        let (features, value) = (self.driver_features, u64::from(value));
        match self.driver_features_select {
            0 => self.driver_features = features & !0xffff_ffff | value,
            1 => self.driver_features = features & 0xffff_ffff | value << 32,
            // There are none up there; a driver that wants one gets no FEATURES_OK.
            _ if value != 0 => self.driver_features = u64::MAX,
            _ => {}
        }
    }

    /// The driver's steps through initialisation, one after the other (section 3.1.1). A status that leaves a step out
    /// or takes one back is ignored.
    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        // Only the device sets it.
        let value = value & !STATUS_NEEDS_RESET;
        if self.status & !value != 0 {
            return;
        }
        match (self.status, value & !self.status) {
            (_, FAILED) => self.status |= FAILED,
            (0, ACKNOWLEDGE) | (ACKNOWLEDGE, DRIVER) => self.status = value,
            (status, FEATURES_OK) if status == ACKNOWLEDGE | DRIVER => {
                let refused = self.driver_features & !self.offered_features();
                let modern = self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0;
                if refused == 0 && modern {
                    self.status = value;
                }
            }
            (status, DRIVER_OK) if status == ACKNOWLEDGE | DRIVER | FEATURES_OK => {
                self.status = value;
                self.activate();
            }
            _ => {}
        }
    }

    fn activate(&mut self) {
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, (config, kick)) in self.queues.iter().zip(&self.kicks).enumerate() {
            if !config.ready() {
                queues.push(None);
                continue;
            }
            let problem = match (config.build(&self.mem), kick.try_clone()) {
                (Ok(queue), Ok(kick)) => {
                    queues.push(Some(ActiveQueue { queue, kick }));
                    continue;
                }
                (Err(error), _) => error.to_string(),
                (_, Err(error)) => error.to_string(),
            };
            let device = self.device.device_type();
            guest_fault(format_args!("queue {index} of virtio device {device} is unusable: {problem}"));
            return self.interrupt.signal_needs_reset();
        }
        let activation = Activation {
            mem: self.mem.clone(),
            queues,
            interrupt: self.interrupt.clone(),
            features: self.driver_features,
        };
        if let Err(error) = self.device.activate(activation) {
            let device = self.device.device_type();
            guest_fault(format_args!("virtio device {device} cannot start: {error}"));
            self.interrupt.signal_needs_reset();
        }
    }

    /// Notifies a queue whose notifications do not come by ioeventfd.
    fn notify(&mut self, queue: u32) {
        if let Some(kick) = self.kicks.get(queue as usize).filter(|_| self.status & DRIVER_OK != 0) {
            // Fails only when its counter would overflow, and then it is readable anyway.
            let _ = kick.write(1);
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.interrupt.reset();
        for queue in &mut self.queues {
            *queue = QueueConfig::new(queue.max_size());
        }
        for kick in &self.kicks {
            // Fails when there is nothing to drain.
            let _ = kick.read();
        }
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
    }
}

/// A 32-bit word of a feature set.
fn word(features: u64, select: u32) -> u32 {
    let shifted = features.checked_shr(select.saturating_mul(32)).unwrap_or(0);
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0)
}
