//! virtio-rng (virtio 1.2, section 5.4): random numbers of the host's kernel.
//!
//! | threat | answer |
//! |---|---|
//! | huge requests, to drain the host | 256 bytes are given at a time, by a generator that does not run dry |
//! | requests without end | one thread of the VM's own serves them, in batches |
//! | descriptors outside of the guest's memory, loops, long chains | the device stops until it is reset |

use std::sync::Arc;

use virtio_bindings::{
    virtio_ids::VIRTIO_ID_RNG,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use super::{
    ActivateError, Activation, VirtioDevice, Worker,
    segments::Segments,
    serve::{ServeError, Server},
};
use crate::jail::seccomp::Role;

mod metrics;

pub use metrics::RngCounters;

const QUEUE_SIZES: [u16; 1] = [64];
/// Most bytes given per request; `getrandom` never gives fewer than asked up to here.
const MAX_BYTES: usize = 256;

/// A source of random numbers.
#[derive(Debug, Default)]
pub struct Rng {
    counters: Arc<RngCounters>,
    worker: Option<Worker>,
}

impl Rng {
    /// A source that has not been activated.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<RngCounters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let server = Server::new(activation)?;
        let interrupt = server.interrupt();
        let counters = self.counters.clone();
        let answer = move |segments: Segments<'_>| {
            let written = fill(segments)?;
            counters.requests.add(1);
            counters.bytes.add(written.into());
            Ok(written)
        };
        let worker = Worker::spawn("rng", Role::Rng, interrupt, move |stop| server.run(&stop, answer))
            .map_err(|source| ActivateError::Os { what: "cannot start the rng thread", source })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}

/// Fills the start of a request's buffer.
fn fill(segments: Segments<'_>) -> Result<u32, ServeError> {
    if segments.writable.is_empty() {
        return Err(ServeError::NoRoom);
    }
    let mut bytes = [0; MAX_BYTES];
    let wanted = segments.writable.len().min(MAX_BYTES);
    // SAFETY: the pointer and length are those of an array that lives on.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), wanted, 0) };
    let got = usize::try_from(got).map_err(|_| std::io::Error::last_os_error())?;
    let written = segments.writable.copy_from(&bytes[..got]);
    Ok(u32::try_from(written).unwrap_or(u32::MAX))
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

#[cfg(test)]
mod tests {
    use virtio_queue::{
        desc::{RawDescriptor, split::Descriptor},
        mock::MockSplitQueue,
    };
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;

    fn request(mem: &GuestMemoryMmap, len: u32, flags: u16) -> Result<u32, ServeError> {
        let queue = MockSplitQueue::new(mem, 4);
        let chain = queue.build_desc_chain(&[RawDescriptor::from(Descriptor::new(0x8000, len, flags, 0))]);
        fill(Segments::collect(mem, chain.unwrap()).unwrap())
    }

    #[test]
    fn a_request_is_filled_up_to_the_limit() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2_0000)]).unwrap();
        assert_eq!(request(&mem, 64, 2).unwrap(), 64);
        let mut bytes = [0; 65];
        mem.read_slice(&mut bytes, GuestAddress(0x8000)).unwrap();
        assert_ne!(bytes[..64], [0; 64]);
        assert_eq!(bytes[64], 0);
        assert_eq!(request(&mem, 0x1_0000, 2).unwrap(), 256);
        mem.read_slice(&mut bytes, GuestAddress(0x8100)).unwrap();
        assert_eq!(bytes, [0; 65]);
    }

    #[test]
    fn a_request_without_room_is_an_error() {
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        assert!(matches!(request(&mem, 64, 0), Err(ServeError::NoRoom)));
    }
}
