//! A pod's network on the host: networks of husk's own (bridges with NAT), CNI's, and namespaces that somebody else
//! prepared. What comes out is always the same: taps for the VMM, and what the guest is to make of them ([`Nic`]).

mod attach;
pub mod cni;
pub mod definition;
mod error;
pub mod firewall;
mod forwarding;
mod host;
pub mod lease;
mod link;
pub mod names;
pub mod netns;
pub mod nic;
pub mod publish;
mod rules;
mod store;
pub mod takeover;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod unprivileged;

pub use attach::{AttachRequest, Attached, Attachment};
pub use definition::{Definition, NewNetwork};
pub use error::{Error, Result};
pub use lease::Lease;
pub use nic::Nic;
pub use store::Networks;
