//! A root directory with nothing in it.

use std::{ffi::CStr, path::Path, ptr};

use super::{JailError, c_path, check};

/// A directory that every system has, to be covered by the new root in this mount namespace alone.
const MOUNT_POINT: &CStr = c"/dev";
/// Where the visible directory is in the new root.
pub const VISIBLE_DIR: &str = "/vsock";
/// The same before the change.
const VISIBLE_BEFORE: &CStr = c"/dev/vsock";
const HARMLESS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// Makes an empty, read-only root in which only `visible` appears, and enters it.
pub(super) fn change(visible: Option<&Path>) -> Result<(), JailError> {
    // No mount made from here on is seen elsewhere.
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, None, "make mounts private")?;
    mount(c"husk", MOUNT_POINT, c"tmpfs", HARMLESS, Some(c"mode=755,size=4k,nr_inodes=4"), "mount a root")?;
    if let Some(visible) = visible {
        // SAFETY: the path is a string that ends with zero.
        check(unsafe { libc::mkdir(VISIBLE_BEFORE.as_ptr(), 0o755) }, "create a directory")?;
        let visible = c_path(visible)?;
        mount(&visible, VISIBLE_BEFORE, c"", libc::MS_BIND, None, "show the vsock directory")?;
        let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | HARMLESS;
        mount(c"none", VISIBLE_BEFORE, c"", flags, None, "protect the vsock directory")?;
    }
    // SAFETY: the path is a string that ends with zero; so for all others here.
    check(unsafe { libc::chdir(MOUNT_POINT.as_ptr()) }, "enter its root")?;
    let here = c".".as_ptr();
    // The old root goes on top of the new one, and then away (pivot_root(2), notes).
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, here, here) };
    check(if result < 0 { -1 } else { 0 }, "change its root")?;
    // SAFETY: as above.
    check(unsafe { libc::umount2(here, libc::MNT_DETACH) }, "leave the old root")?;
    // SAFETY: as above.
    check(unsafe { libc::chdir(c"/".as_ptr()) }, "enter its root")?;
    mount(c"none", c"/", c"", libc::MS_REMOUNT | libc::MS_RDONLY | HARMLESS, None, "protect its root")
}

fn mount(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    options: Option<&CStr>,
    what: &'static str,
) -> Result<(), JailError> {
    let options = options.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: all are strings that end with zero, or null.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.cast()) };
    check(result, what)
}
