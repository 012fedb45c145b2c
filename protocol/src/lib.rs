//! What the host and the guest agent say to each other: the agent's ttrpc API (`agent.proto`), the vsock ports, and the
//! first line of a stdio stream. Beside it, what Kubernetes says of a pod (`cri.proto`), what a runtime
//! class of containerd's says (`runtimeoptions.proto`), and how both ends read what a cgroup uses.

#[allow(
    missing_docs,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    unreachable_pub
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}

pub use generated::{agent, agent_ttrpc, cri, pod, pod_ttrpc, runtimeoptions};

pub mod attach;
pub mod cgroup;
mod stream;
pub use stream::{StdioKind, StreamHello, StreamHelloError};

/// vsock ports on the host that the agent dials.
pub mod port {
    /// The agent dials this port once when it is ready, and serves its ttrpc API on that connection. It also
    /// listens on this port of the guest, for others on the host.
    pub const AGENT: u32 = 1024;
    /// The agent dials this port once per stdio stream and sends a [`StreamHello`](crate::StreamHello) line first.
    pub const STDIO: u32 = 1025;
    /// The agent listens on this port of the guest. Whoever dials it sends a TCP port as two bytes, the higher first, and is
    /// then connected to that port of the guest's loopback address.
    pub const FORWARD: u32 = 1026;
    /// The agent dials this port once for each DNS query that the host is to answer (`Resolver.by_host` of the API). It sends
    /// 0 for an answer that may be cut off, as over UDP, or 1 for a whole one; then the query as DNS over TCP has it, with
    /// its length in two bytes. So comes the answer.
    pub const NAMES: u32 = 1027;
}

/// The directory that the host shares with a guest.
pub mod shared {
    /// The virtio-fs tag by which the guest mounts it, ...
    pub const TAG: &str = "husk";
    /// ... and where: a container's root and the sources of its bind mounts are below.
    pub const PATH: &str = "/run/husk/shared";
    /// The guest's PID namespace for containers that share one, as a path in an OCI spec.
    pub const PID_NAMESPACE: &str = "/run/husk/pids";
}
