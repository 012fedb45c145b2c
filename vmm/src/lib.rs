//! husk-vmm: a small virtual machine monitor on KVM. It knows nothing of containers.
//!
//! The program `husk-vmm` runs one VM per process; see [`config`] for its input and [`control`] for the socket by which
//! it is asked and told things. Other crates use [`config`], [`client`] and [`probe`].

pub mod boot;
pub mod bus;
pub mod client;
pub mod config;
pub mod console;
pub mod control;
pub mod counters;
pub mod cpu;
pub mod devices;
pub mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod jail;
pub mod layout;
mod log;
pub mod memory;
pub mod metrics;
pub mod probe;
pub mod rate_limit;
pub mod runner;
pub mod socket_files;
pub mod time;
pub mod vcpu;
pub mod virtio;
pub mod vm;
