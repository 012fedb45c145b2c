//! Owner, mode, extended attributes and times of what was unpacked.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::{fs, io};

use super::error::Reason;
use super::tar::Entry;

/// The overlay file system's own attributes. An image's author never saw them, and on a disk that will be a layer of
/// an overlay they would hide or redirect files.
const OVERLAY: &[u8] = b"trusted.overlay.";

/// Gives an open file or directory the attributes of its entry.
///
/// In this order: changing the owner clears set-id bits and file capabilities, changing the mode changes an ACL, and
/// all of it changes times.
pub(super) fn apply(fd: impl AsFd, entry: &Entry) -> Result<(), Reason> {
    fs::fchown(&fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
        .map_err(Reason::system("set the owner"))?;
    fs::fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(Reason::system("set the mode"))?;
    for (name, value) in xattrs(entry) {
        xattr_done(fs::fsetxattr(&fd, name, value, XattrFlags::empty()), &fd, name, true)?;
    }
    fs::futimens(&fd, &times(entry)).map_err(Reason::system("set the times"))
}

/// Removes the extended attributes that an entry does not have, from a directory that was there before.
pub(super) fn clear_xattrs(fd: impl AsFd, entry: &Entry) -> Result<(), Reason> {
    let mut list = Vec::new();
    loop {
        let size = match fs::flistxattr_query(&fd) {
            Err(Errno::NOTSUP) | Ok(0) => return Ok(()),
            other => other.map_err(Reason::system("list the extended attributes"))?,
        };
        list.resize(size, 0);
        match fs::flistxattr(&fd, &mut list[..]) {
            Err(Errno::RANGE) => {}
            other => {
                list.truncate(other.map_err(Reason::system("list the extended attributes"))?);
                break;
            }
        }
    }
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        // The security module owns this one.
        if name == b"security.selinux" || xattrs(entry).any(|(kept, _)| kept == name) {
            continue;
        }
        match fs::fremovexattr(&fd, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(Reason::system("remove an extended attribute")(errno)),
        }
    }
    Ok(())
}

/// Gives a new symlink, device or FIFO the attributes of its entry.
pub(super) fn apply_at(
    directory: impl AsFd,
    name: &[u8],
    entry: &Entry,
    symlink: bool,
) -> Result<(), Reason> {
    chown_at(&directory, name, entry)?;
    if !symlink {
        chmod_at(&directory, name, entry)?;
    }
    xattrs_and_times_at(directory, name, entry, false)
}

/// Gives a file that already had another name the attributes of its hard link's entry.
///
/// What is the same already is left alone: setting the same owner again would cost the file its capabilities, which
/// not every archiver repeats in a link's entry.
pub(super) fn apply_to_link(directory: impl AsFd, name: &[u8], entry: &Entry) -> Result<(), Reason> {
    let stat = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Reason::system("examine the linked file"))?;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let new_owner = (stat.st_uid, stat.st_gid) != (entry.uid, entry.gid);
    if new_owner {
        chown_at(&directory, name, entry)?;
    }
    if file_type != FileType::Symlink && (new_owner || stat.st_mode & 0o7777 != entry.mode) {
        chmod_at(&directory, name, entry)?;
    }
    xattrs_and_times_at(directory, name, entry, file_type == FileType::RegularFile)
}

fn chown_at(directory: impl AsFd, name: &[u8], entry: &Entry) -> Result<(), Reason> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Reason::system("set the owner"))
}

/// Only for what is no symlink, since it would be followed.
fn chmod_at(directory: impl AsFd, name: &[u8], entry: &Entry) -> Result<(), Reason> {
    fs::chmodat(directory, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
        .map_err(Reason::system("set the mode"))
}

fn xattrs_and_times_at(
    directory: impl AsFd,
    name: &[u8],
    entry: &Entry,
    takes_user: bool,
) -> Result<(), Reason> {
    if xattrs(entry).next().is_some() {
        // There is no fsetxattr for what can't be opened, and no setxattrat before Linux 6.13.
        let directory = directory.as_fd();
        let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
        for (name, value) in xattrs(entry) {
            let result = fs::lsetxattr(&path[..], name, value, XattrFlags::empty());
            xattr_done(result, directory, name, takes_user)?;
        }
    }
    fs::utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Reason::system("set the times"))
}

fn xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let all = entry.xattrs.iter().map(|(name, value)| (&name[..], &value[..]));
    all.filter(|(name, _)| !name.starts_with(OVERLAY))
}

/// Judges the result of setting an extended attribute. As in containerd, what this file system has no place for is
/// left out: other systems' attributes, and `user.*` on what is neither file nor directory.
fn xattr_done(result: io::Result<()>, fd: impl AsFd, name: &[u8], takes_user: bool) -> Result<(), Reason> {
    match result {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") && !takes_user => Ok(()),
        Err(Errno::NOSPC) if fs::fstatvfs(fd).is_ok_and(|disk| disk.f_bavail > 0) => {
            Err(Reason::Rule("an extended attribute is too long for the file system"))
        }
        Err(errno) => Err(Reason::system("set an extended attribute")(errno)),
    }
}

fn times(entry: &Entry) -> Timestamps {
    let last_modification = entry.mtime;
    Timestamps { last_access: entry.atime.unwrap_or(last_modification), last_modification }
}
