//! User ids, capabilities and limits.

use std::fs;

use super::{JailError, User, check, os};

/// Descriptors: connections, queues, disks, and what KVM needs.
const MAX_FDS: libc::rlim_t = 4096;
/// Threads of the VM's user id: vCPUs, devices, and the kernel's workers for disks.
const MAX_THREADS: libc::rlim_t = 512;
/// Highest number that a capability may have.
const MAX_CAPABILITY: libc::c_ulong = 63;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Makes this user known in a new user namespace, under the same number; no other is.
pub(super) fn map_user(user: User) -> Result<(), JailError> {
    let write =
        |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text).map_err(os("map its user"));
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{0} {0} 1", user.uid))?;
    write("gid_map", format!("{0} {0} 1", user.gid))
}

/// Sets the resource limits that do not depend on the VM.
pub(super) fn limit() -> Result<(), JailError> {
    for (resource, max) in
        [(libc::RLIMIT_NOFILE, MAX_FDS), (libc::RLIMIT_NPROC, MAX_THREADS), (libc::RLIMIT_CORE, 0)]
    {
        let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
        // SAFETY: the limit lives on.
        check(unsafe { libc::setrlimit(resource, &raw const limit) }, "set a limit")?;
    }
    Ok(())
}

/// Becomes `uid`, if given, and gives up all capabilities for good.
pub(super) fn drop_all(uid: Option<u32>) -> Result<(), JailError> {
    for capability in 0..=MAX_CAPABILITY {
        // SAFETY: touches no memory. It fails for numbers that this kernel does not know.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    if let Some(id) = uid {
        // SAFETY: an empty list is not read. The system calls are made directly, since there is but one thread.
        let results = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()),
                libc::syscall(libc::SYS_setresgid, id, id, id),
                libc::syscall(libc::SYS_setresuid, id, id, id),
            ]
        };
        check(if results.contains(&-1) { -1 } else { 0 }, "change its user")?;
    }
    drop_capabilities()?;
    // Changing the user has cleared it: the child dies with its parent.
    // SAFETY: touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }, "watch its parent")?;
    // SAFETY: touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, "refuse new rights")
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

fn drop_capabilities() -> Result<(), JailError> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // Effective, permitted and inheritable ones, in two halves.
    let none = [0_u32; 6];
    // SAFETY: header and data have the form that this version says, and live on.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    check(if result < 0 { -1 } else { 0 }, "drop its capabilities")
}
