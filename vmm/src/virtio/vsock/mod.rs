//! virtio-vsock. To come.
