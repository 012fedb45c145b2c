//! Landlock: should a path ever be reached again, nothing can be done with it. Only a host that has no Landlock goes without.

use std::io;

use super::{JailError, check};

/// What `landlock_create_ruleset` takes (linux/landlock.h), in the form of ABI version 4.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
}

const CREATE_RULESET_VERSION: u32 = 1;
/// All rights to files that ABI versions 1, 2, 3 and 5 know.
const ACCESS_FS: [u64; 5] = [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1];
/// Bind and connect TCP ports, of ABI version 4.
const ACCESS_NET: u64 = 3;
const FS_ONLY: usize = size_of::<u64>();

/// Takes every right that Landlock knows from this thread and those that it will start.
pub(super) fn forbid_all() -> Result<(), JailError> {
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: asks only for the version, for which nothing is read.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION) };
    let Ok(version @ 1..) = usize::try_from(version) else { return Ok(()) };
    let known = version.min(ACCESS_FS.len());
    let attr = RulesetAttr {
        handled_access_fs: ACCESS_FS[known - 1],
        handled_access_net: if version >= 4 { ACCESS_NET } else { 0 },
    };
    let size = if version >= 4 { size_of::<RulesetAttr>() } else { FS_ONLY };
    // SAFETY: the attributes are as long as said, and live on.
    let ruleset = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0) };
    let Ok(ruleset) = i32::try_from(ruleset) else { return Ok(()) };
    check(ruleset, "create a Landlock ruleset")?;
    // SAFETY: the descriptor was just made.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) };
    let error = io::Error::last_os_error();
    // SAFETY: the descriptor is nobody else's.
    unsafe { libc::close(ruleset) };
    if result < 0 { Err(super::os("enforce a Landlock ruleset")(error)) } else { Ok(()) }
}
