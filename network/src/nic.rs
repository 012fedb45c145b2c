//! An interface of a VM.

use std::os::fd::OwnedFd;

use husk_protocol::agent::Interface;

/// One interface of a VM: the host's end, and what the guest is to make of its own.
#[derive(Debug)]
pub struct Nic {
    /// A tap of the host, set up with `IFF_TAP`, `IFF_NO_PI` and `IFF_VNET_HDR`, for the VMM. It is not persistent: it goes
    /// when its last descriptor is closed.
    pub tap: OwnedFd,
    /// The guest's end.
    pub interface: Interface,
}
