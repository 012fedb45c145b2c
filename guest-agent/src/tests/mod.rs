//! Containers for real, without a virtual machine: the service runs in mount, PID, UTS and IPC namespaces of its own
//! and serves over a unix socket. Needs root and a static busybox.

mod containers;
mod guest;
mod stdio;
