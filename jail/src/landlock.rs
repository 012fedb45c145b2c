//! Landlock: should a path ever be reached again, nothing can be done with it. Only a host that has no
//! Landlock goes without.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::JailError;

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

/// Takes every right to files and ports that Landlock knows (ABI 5) from this thread and those that it will start.
///
/// # Errors
/// When a host that has Landlock refuses.
pub fn forbid_all() -> Result<(), JailError> {
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
    JailError::check(ruleset, "create a Landlock ruleset")?;
    let Ok(ruleset) = i32::try_from(ruleset) else { return Ok(()) };
    // SAFETY: the descriptor is new and owned by nothing else.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    // SAFETY: touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    JailError::check(result, "enforce a Landlock ruleset")
}
