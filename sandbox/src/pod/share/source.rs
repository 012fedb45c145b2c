//! What a guest sees of the host: trees of mounts, copied from where the host has them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, fstat, open, statx},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::super::spec::{Bind, ReadOnly};
use crate::{Error, Result};

/// The host follows nothing of a guest's making into these.
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of a directory or file, with all that is mounted below it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) tree: OwnedFd,
    pub(super) kind: Kind,
    pub(super) read_only: ReadOnly,
}

/// Which directory of the host it is: by the mount that it is reached by, too, which may allow less than others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

impl Identity {
    fn of(file: &OwnedFd) -> io::Result<Self> {
        let found = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)?;
        let device = (found.stx_dev_major, found.stx_dev_minor);
        Ok(Self { device, inode: found.stx_ino, mount: found.stx_mnt_id })
    }

    #[cfg(test)]
    pub(super) fn of_numbers(inode: u64) -> Self {
        Self { device: (0, 1), inode, mount: 1 }
    }
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory, and which one.
    Directory(Identity),
    /// A regular file.
    File,
}

impl Source {
    /// A container's root.
    pub(super) fn of_root(path: &Path) -> Result<Self> {
        let (file, kind) = look(path).map_err(Error::io("use as a root file system", path))?;
        if kind != FileType::Directory {
            return Err(Error::io("use as a root file system", path)(io::ErrorKind::NotADirectory.into()));
        }
        let failed = Error::io("share", path);
        let shared = Identity::of(&file).and_then(|identity| Ok((copy(&file, ReadOnly::No)?, identity)));
        let (tree, identity) = shared.map_err(failed)?;
        Ok(Self { tree, kind: Kind::Directory(identity), read_only: ReadOnly::No })
    }

    /// The source of a bind mount.
    pub(super) fn of_bind(bind: &Bind) -> Result<Self> {
        let Bind { source, destination, read_only } = bind;
        let failed =
            |error| Error::Mount { source_path: source.clone(), on: destination.clone(), source: error };
        let (file, kind) = look(source).map_err(failed)?;
        let kind = match kind {
            FileType::Directory => Kind::Directory(Identity::of(&file).map_err(failed)?),
            FileType::RegularFile => Kind::File,
            other => {
                return Err(Error::NotShareable {
                    source_path: source.clone(),
                    on: destination.clone(),
                    kind: name_of(other),
                });
            }
        };
        let tree = copy(&file, *read_only).map_err(failed)?;
        Ok(Self { tree, kind, read_only: *read_only })
    }
}

/// Opens what a path leads to, and says what it is.
fn look(path: &Path) -> io::Result<(OwnedFd, FileType)> {
    let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(fstat(&file)?.st_mode);
    Ok((file, kind))
}

fn copy(file: &OwnedFd, read_only: ReadOnly) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(file, c"", flags)?;
    let all = if read_only == ReadOnly::All { HARMLESS | libc::MOUNT_ATTR_RDONLY } else { HARMLESS };
    set_attributes(tree.as_fd(), all, libc::MS_SLAVE, true)?;
    if read_only == ReadOnly::Top {
        set_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false)?;
    }
    Ok(tree)
}

/// mount_setattr(2) on the root of a tree, or on all of its mounts. A propagation of 0 changes none.
pub(super) fn set_attributes(
    tree: BorrowedFd<'_>,
    attr_set: u64,
    propagation: u64,
    recursive: bool,
) -> rustix::io::Result<()> {
    let attr = libc::mount_attr { attr_set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: path and attributes live on, and the latter have the length that is said.
    let result = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size)
    };
    if result < 0 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(())
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "a socket",
        FileType::Fifo => "a named pipe",
        FileType::BlockDevice => "a block device",
        FileType::CharacterDevice => "a device",
        _ => "a file of an unknown kind",
    }
}
