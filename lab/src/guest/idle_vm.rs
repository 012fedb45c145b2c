//! An idle VM, held for as long as the machine lives.
//!
//! KVM keeps a count of local APICs that are not enabled in a static key (`apic_sw_disabled`), and patches its own code when
//! the count leaves or reaches zero: at nearly every start of a VM. QEMU's multi-threaded emulation now and then leaves a
//! CPU in the breakpoint of such a patch for ever. A vCPU that never runs keeps the count above zero.

use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};

// linux/kvm.h
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_CREATE_IRQCHIP: libc::c_ulong = 0xae60;

/// Makes the VM. Its descriptors are meant never to be closed.
pub(super) fn hold() -> Result<[OwnedFd; 3]> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm").context("cannot open /dev/kvm")?;
    let vm = ioctl(&kvm, KVM_CREATE_VM)?;
    // SAFETY: KVM_CREATE_VM returned this new descriptor, which nobody else has.
    let vm = unsafe { OwnedFd::from_raw_fd(vm) };
    ioctl(&vm, KVM_CREATE_IRQCHIP)?;
    let vcpu = ioctl(&vm, KVM_CREATE_VCPU)?;
    // SAFETY: KVM_CREATE_VCPU returned this new descriptor, which nobody else has.
    let vcpu = unsafe { OwnedFd::from_raw_fd(vcpu) };
    Ok([kvm.into(), vm, vcpu])
}

fn ioctl(fd: &impl AsRawFd, request: libc::c_ulong) -> Result<i32> {
    // SAFETY: these requests take an integer argument and touch no memory of ours.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, 0) };
    if result < 0 {
        bail!("KVM request {request:#x} failed: {}", std::io::Error::last_os_error());
    }
    Ok(result)
}
