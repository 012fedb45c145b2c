//! virtio: what every device has in common, the MMIO transport, and a folder per device.
//!
//! A device's life: [`VirtioDevice::activate`] when the driver sets DRIVER_OK, which hands it its queues and starts its
//! thread; [`VirtioDevice::reset`] when the driver resets it, which ends the thread. Queues exist only in between
//! (typestate): what the guest can write before activation, the transport's queue configuration, can't be changed
//! under a running device.

pub mod balloon;
pub mod block;
pub mod device;
pub mod fs;
pub mod mmio;
pub mod net;
pub mod rng;
mod segments;
mod serve;
mod turns;
pub mod vsock;
pub mod worker;

pub use device::{ActivateError, Activation, ActiveQueue, Interrupt, VirtioDevice};
pub use worker::Worker;
