//! What an OCI bundle and its spec ask of the host: which VM, whose network, which cgroup, and which programs to run.

pub mod bundle;
pub mod cgroup;
mod error;
pub mod hooks;
pub mod host_namespaces;
pub mod netns;
pub mod plan;

pub use error::{Error, HookFailure};
