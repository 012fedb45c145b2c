//! husk-vmm: a small virtual machine monitor on KVM. It knows nothing of containers.
pub mod virtio;
