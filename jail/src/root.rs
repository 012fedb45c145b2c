//! The root directory of a jail.

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, mkdir},
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
        mount_change, mount_remount, move_mount, open_tree, unmount,
    },
    process::{chdir, fchdir, pivot_root},
};

use crate::JailError;

/// A directory that every system has, to be covered by the new root in this mount namespace alone.
const MOUNT_POINT: &str = "/dev";
const HARMLESS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Makes an empty, read-only root and enters it. Of the host's directories only the `visible` one appears in
/// it, read-only, under the name beside it.
///
/// # Errors
/// Says which step failed.
pub fn empty(visible: Option<(&Path, &str)>) -> Result<(), JailError> {
    // No mount made from here on is seen elsewhere.
    separate(MountPropagationFlags::PRIVATE)?;
    mount(c"husk", MOUNT_POINT, c"tmpfs", HARMLESS, c"mode=755,size=4k,nr_inodes=4")
        .map_err(JailError::os("mount a root"))?;
    if let Some((dir, name)) = visible {
        let place = Path::new(MOUNT_POINT).join(name);
        mkdir(&place, Mode::from_raw_mode(0o755))
            .map_err(JailError::os("make a place for the visible directory"))?;
        mount_bind(dir, &place).map_err(JailError::os("show the visible directory"))?;
        mount_remount(&place, MountFlags::BIND | MountFlags::RDONLY | HARMLESS, c"")
            .map_err(JailError::os("protect the visible directory"))?;
    }
    chdir(MOUNT_POINT).map_err(JailError::os("enter its root"))?;
    change()?;
    mount_remount(c"/", MountFlags::RDONLY | HARMLESS, c"").map_err(JailError::os("protect its root"))
}

/// Makes the working directory, with the mounts in it, the root and enters it. Nothing in it can be opened as
/// a device or run as a program; with `read_only`, nothing changed. What the host mounts in it later appears
/// as the host mounted it.
///
/// Returns the directory `beside`, open: a tree of its own, above which there is nothing.
///
/// # Errors
/// Says which step failed.
pub fn working_directory(read_only: bool, beside: &CStr) -> Result<OwnedFd, JailError> {
    // No mount made from here on is seen elsewhere, but those of the host are seen here.
    separate(MountPropagationFlags::DOWNSTREAM)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let beside =
        open_tree(CWD, beside, clone).map_err(JailError::os("open the directory beside the root"))?;
    let everything = clone | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    let root =
        open_tree(CWD, c"", everything).map_err(JailError::os("take the directory with its mounts"))?;
    make_harmless(&root, read_only)?;
    move_mount(root.as_fd(), c"", CWD, MOUNT_POINT, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(JailError::os("mount the directory"))?;
    fchdir(&root).map_err(JailError::os("enter the directory"))?;
    change()?;
    Ok(beside)
}

fn separate(changes: MountPropagationFlags) -> Result<(), JailError> {
    mount_change(c"/", changes | MountPropagationFlags::REC).map_err(JailError::os("separate mounts"))
}

fn make_harmless(tree: &OwnedFd, read_only: bool) -> Result<(), JailError> {
    let mut attr_set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if read_only {
        attr_set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: path and attributes live on, and the latter have the length that is said.
    let result = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    JailError::check(result, "protect the directory's mounts (it needs Linux 5.12)")
}

/// Makes the working directory, on which a file system is mounted, the root, and leaves the old one.
fn change() -> Result<(), JailError> {
    // The old root goes on top of the new one, and then away (pivot_root(2), notes).
    pivot_root(c".", c".").map_err(JailError::os("change its root"))?;
    unmount(c".", UnmountFlags::DETACH).map_err(JailError::os("leave the old root"))?;
    chdir(c"/").map_err(JailError::os("enter its root"))
}
