//! Containers for real, without a virtual machine: the service runs in mount, PID, UTS, IPC and network namespaces of
//! its own and serves over a unix socket. Needs root, a static busybox and iproute2.

mod containers;
mod forward;
mod guest;
mod network;
mod pod;
mod resolver;
mod stdio;
