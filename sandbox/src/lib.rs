//! A pod's life: plans disks and VM, starts the VMM, speaks to the guest's agent, keeps state on disk, and cleans up
//! whatever way it ends. Every front end is thin over this crate.

pub mod cgroup;
pub mod check;
pub mod clean_up;
pub mod config;
pub mod container;
pub mod disk;
pub mod error;
pub mod events;
mod filesystem;
pub mod guest;
pub mod logs;
mod memory;
pub mod network;
pub mod oci;
pub mod paths;
pub mod pod;
pub mod pod_id;
pub mod privilege;
mod remove;
pub mod rundir;
pub mod signals;
pub mod sizing;
pub mod spec;
pub mod stalls;
pub mod stdio;
pub mod store;
pub mod timeline;
pub mod unpack;
mod untrusted;
pub mod vm;
mod watch;

pub use error::{Error, Result};
