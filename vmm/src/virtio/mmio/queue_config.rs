//! A queue while the driver sets it up. What comes of it, a [`Queue`], the driver can't change.

use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// The driver's settings for a queue, as written (virtio 1.2, section 4.2.2).
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueConfig {
    max_size: u16,
    size: u32,
    ready: bool,
    descriptors: u64,
    driver_area: u64,
    device_area: u64,
}

/// The part of a queue that an address register is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Area {
    Descriptors,
    Driver,
    Device,
}

/// Half of an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Low,
    High,
}

/// A queue's settings are unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueConfigError {
    #[error("its size {0} is not a power of two within the limit")]
    Size(u32),
    #[error("one of its rings is misaligned")]
    Alignment,
    #[error("one of its rings lies outside the guest's memory")]
    Outside,
}

impl QueueConfig {
    pub(super) fn new(max_size: u16) -> Self {
        Self { max_size, size: 0, ready: false, descriptors: 0, driver_area: 0, device_area: 0 }
    }

    pub(super) fn max_size(&self) -> u16 {
        self.max_size
    }

    pub(super) fn ready(&self) -> bool {
        self.ready
    }

    pub(super) fn set_ready(&mut self, ready: bool) {
        self.ready = ready;
    }

    /// Sets the size, unless the queue is ready.
    pub(super) fn set_size(&mut self, size: u32) {
        if !self.ready {
            self.size = size;
        }
    }

    /// Sets half of an address, unless the queue is ready.
    pub(super) fn set_address(&mut self, area: Area, half: Half, value: u32) {
        if self.ready {
            return;
        }
        let address = match area {
            Area::Descriptors => &mut self.descriptors,
            Area::Driver => &mut self.driver_area,
            Area::Device => &mut self.device_area,
        };
        *address = match half {
            Half::Low => *address & !0xffff_ffff | u64::from(value),
            Half::High => *address & 0xffff_ffff | u64::from(value) << 32,
        };
    }

    /// The queue that these settings describe, for one that the driver says is ready.
    ///
    /// # Errors
    /// When they are wrong.
    pub(super) fn build(&self, mem: &GuestMemoryMmap) -> Result<Queue, QueueConfigError> {
        let bad_size = |_| QueueConfigError::Size(self.size);
        let mut queue = Queue::new(self.max_size).map_err(bad_size)?;
        let size = u16::try_from(self.size).map_err(|_| QueueConfigError::Size(self.size))?;
        queue.try_set_size(size).map_err(bad_size)?;
        let misaligned = |_| QueueConfigError::Alignment;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).map_err(misaligned)?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver_area)).map_err(misaligned)?;
        queue.try_set_used_ring_address(GuestAddress(self.device_area)).map_err(misaligned)?;
        queue.set_ready(true);
        if queue.is_valid(mem) { Ok(queue) } else { Err(QueueConfigError::Outside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
    }

    fn config(size: u32, addresses: [u64; 3]) -> QueueConfig {
        let mut config = QueueConfig::new(256);
        config.set_size(size);
        for (area, address) in [Area::Descriptors, Area::Driver, Area::Device].into_iter().zip(addresses) {
            let bytes = address.to_le_bytes();
            let (low, high) = bytes.split_at(4);
            config.set_address(area, Half::High, u32::from_le_bytes(high.try_into().unwrap()));
            config.set_address(area, Half::Low, u32::from_le_bytes(low.try_into().unwrap()));
        }
        config.set_ready(true);
        config
    }

    #[test]
    fn good_settings_make_a_queue() {
        let queue = config(128, [0x1000, 0x3000, 0x4000]).build(&memory()).unwrap();
        assert_eq!((queue.size(), queue.ready()), (128, true));
        assert_eq!([queue.desc_table(), queue.avail_ring(), queue.used_ring()], [0x1000, 0x3000, 0x4000]);
    }

    #[test]
    fn bad_settings_make_none() {
        let error = |config: QueueConfig| config.build(&memory()).unwrap_err();
        let good = [0x1000, 0x3000, 0x4000];
        for size in [0, 3, 512, 0x1_0000, 0x1_0080, u32::MAX] {
            assert!(
                matches!(error(config(size, good)), QueueConfigError::Size(found) if found == size),
                "{size}"
            );
        }
        for bad in [[0x1008, 0x3000, 0x4000], [0x1000, 0x3001, 0x4000], [0x1000, 0x3000, 0x4002]] {
            assert!(matches!(error(config(128, bad)), QueueConfigError::Alignment), "{bad:x?}");
        }
        for bad in [[0xfff0, 0x3000, 0x4000], [0x1000, 0x1_0000, 0x4000], [0x1000, 0x3000, 1 << 40]] {
            assert!(matches!(error(config(128, bad)), QueueConfigError::Outside), "{bad:x?}");
        }
    }

    #[test]
    fn a_ready_queue_does_not_change() {
        let mut config = config(128, [0x1000, 0x3000, 0x4000]);
        config.set_size(64);
        config.set_address(Area::Descriptors, Half::Low, 0x2000);
        let queue = config.build(&memory()).unwrap();
        assert_eq!((queue.size(), queue.desc_table()), (128, 0x1000));
    }
}
