//! A place for an interface that comes while the VM runs. Its registers and interrupt are there from the start; what is
//! behind them comes once, and stays.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use super::{Net, QUEUE_SIZE};
use crate::virtio::{ActivateError, Activation, VirtioDevice};

/// An interface that comes later: one queue pair, and until then neither features nor an address. The guest is to be told
/// of the device when the interface is there; a driver that finds it before can't start it.
#[derive(Debug, Default)]
pub struct SpareNet {
    /// Shared with whoever attaches interfaces.
    pub(super) net: Arc<OnceLock<Mutex<Net>>>,
}

impl SpareNet {
    fn net(&self) -> Option<MutexGuard<'_, Net>> {
        // Should a vCPU have panicked in it: a reset makes it whole again.
        self.net.get().map(|net| net.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl VirtioDevice for SpareNet {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn features(&self) -> u64 {
        self.net().map_or(0, |net| net.features())
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        match self.net() {
            Some(net) => net.read_config(offset, data),
            None => data.fill(0),
        }
    }

    fn config_generation(&self) -> u32 {
        u32::from(self.net.get().is_some())
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.net().ok_or(ActivateError::Empty)?.activate(activation)
    }

    fn reset(&mut self) {
        if let Some(mut net) = self.net() {
            net.reset();
        }
    }
}
