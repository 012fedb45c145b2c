//! Why a VM can't be made.

use std::{io, path::PathBuf};

use crate::{
    boot::BootError,
    cpu::template::TemplateError,
    jail::JailError,
    memory::MemoryError,
    virtio::{block::DiskError, fs::FsError, net::NetError, vsock::VsockError},
};

/// A VM can't be made.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// `/dev/kvm` can't be used.
    #[error("cannot open /dev/kvm: run `husk check`")]
    OpenKvm(#[source] kvm_ioctls::Error),
    /// KVM refused something.
    #[error("KVM cannot {what}")]
    Kvm {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The host's kernel refused something.
    #[error("cannot {what}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest's memory can't be mapped.
    #[error("cannot map {mem_size_mib} MiB for the guest")]
    Memory {
        /// Its size.
        mem_size_mib: u32,
        /// Why.
        #[source]
        source: MemoryError,
    },
    /// The host's CPU can't be what the guest is to see.
    #[error(transparent)]
    CpuTemplate(#[from] TemplateError),
    /// Kernel, initramfs or command line are no good.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The thread that loads the kernel can't be bound to its system calls.
    #[error("cannot bind the kernel's loader to its system calls")]
    Filter(#[from] JailError),
    /// A disk can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network interface can't be made.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A file system's server can't be reached.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The vsock device can't be made.
    #[error("cannot set up vsock")]
    Vsock(#[from] VsockError),
    /// The console's file can't be made.
    #[error("cannot create the console {path}")]
    Console {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
