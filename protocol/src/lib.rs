//! The protocol between the host and the guest agent: the agent's ttrpc API (`agent.proto`), why its calls fail, the vsock
//! ports, and the first line of a stdio stream. Also Kubernetes' description of a pod (`cri.proto`), the options of a
//! runtime class of containerd (`runtimeoptions.proto`), and the reading of a cgroup's use, which both ends do.

#[expect(
    missing_debug_implementations,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    clippy::unwrap_used,
    reason = "it is generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{agent, agent_ttrpc, cri, pod, pod_ttrpc, runtimeoptions};

pub mod attach;
pub mod cgroup;
pub mod failure;
mod stream;
pub use stream::{StdioKind, StreamHello, StreamHelloError, StreamName, StreamToken, StreamTokenError};

/// vsock ports.
pub mod port {
    /// The agent dials this port of the host once, when it is ready, and serves its ttrpc API on that connection. It also
    /// listens on this port of the guest, for other processes on the host.
    pub const AGENT: u32 = 1024;
    /// The agent dials this port of the host once for each stdio stream, and sends a
    /// [`StreamHello`](crate::StreamHello) line first.
    pub const STDIO: u32 = 1025;
    /// The agent listens on this port of the guest. The host dials it and sends a TCP port as two bytes, the higher first.
    /// The connection then leads to that port of the guest's loopback address.
    pub const FORWARD: u32 = 1026;
    /// The agent dials this port of the host once for each DNS query that the host answers (`Resolver.by_host` of the API).
    /// It sends 0 for an answer that may be truncated, as over UDP, or 1 for a whole one; then the query as DNS over TCP
    /// has it, with its length in two bytes before it. The answer has the same form.
    pub const NAMES: u32 = 1027;
}

/// The directory that the host shares with a guest.
pub mod shared {
    /// The virtio-fs tag by which the guest mounts it.
    pub const TAG: &str = "husk";
    /// Its mount point in the guest. A container's root and the sources of its bind mounts are below it.
    pub const PATH: &str = "/run/husk/shared";
    /// The PID namespace that containers of a pod can share, as a path in an OCI spec.
    pub const PID_NAMESPACE: &str = "/run/husk/pids";
}
