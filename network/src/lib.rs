//! A pod's network on the host: networks of husk's own (bridges with NAT), CNI's, and namespaces that somebody else
//! prepared. What comes out is always the same: taps for the VMM, and what the guest is to make of them ([`Nic`]).

pub mod names;
pub mod nic;
pub mod publish;

pub use nic::Nic;
