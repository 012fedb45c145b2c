//! End-to-end tests of Kubernetes' side: pods made by the CRI, as a kubelet makes them, with containerd's real CRI plugin and real
//! CNI plugins. Each test walks one or two pods through many features: a VM takes its time in an emulated machine.
#![expect(clippy::unwrap_used, reason = "it is a test")]

mod fixture;
mod life;
mod refused;
mod resources;
mod security;
mod streams;
mod volumes;
