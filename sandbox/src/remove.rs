//! Removes directories of husk's own, and never anything that is mounted in them.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, openat2, unlinkat},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
};

/// Deeper directories are not husk's.
const MAX_DEPTH: usize = 32;

/// Unmounts what is mounted in a directory, and removes it with what it holds.
///
/// # Errors
/// When something of it can't be removed. What is mounted and could not be unmounted is such a thing: it is not looked into.
pub(crate) fn tree(path: &Path) -> io::Result<()> {
    unmount_in(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    remove_dir(parent.as_fd(), name, MAX_DEPTH)
}

fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    let depth = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    let dir = open_dir(parent, name)?;
    for entry in names(&dir)? {
        match unlinkat(&dir, entry.as_os_str(), AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_dir(dir.as_fd(), &entry, depth)?,
            // What some file systems say of a directory, and all of a file that is not to be removed.
            Err(Errno::PERM) => remove_dir(dir.as_fd(), &entry, depth).map_err(|error| {
                match Errno::from_io_error(&error) {
                    Some(Errno::NOTDIR) => Errno::PERM.into(),
                    _ => error,
                }
            })?,
            other => other?,
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Opens a directory, unless something is mounted on it.
fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    Ok(openat2(parent, name, flags, Mode::empty(), resolve)?)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Unmounts what is mounted on a directory and below it. What it was mounted from keeps its own mounts.
fn unmount_in(path: &Path) -> io::Result<()> {
    let mounts = fs::read("/proc/thread-self/mountinfo")?;
    let points = mounts.split(|byte| *byte == b'\n').filter_map(mount_point);
    let ours: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    for point in &ours {
        // Else what is unmounted below a copy would be unmounted below the original, too.
        let _ = mount_change(point, MountPropagationFlags::PRIVATE);
    }
    for point in ours.iter().rev() {
        // Without the right to unmount it, it stays, and is in the way of what follows.
        let _ = unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
    Ok(())
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)), in which unusual characters are octal numbers.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let (mut path, mut rest) = (Vec::with_capacity(field.len()), field);
    while let [first, after @ ..] = rest {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (first, after.get(..3).and_then(octal)) {
            (b'\\', Some(byte)) => {
                path.push(byte);
                rest = &after[3..];
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    Some(OsStr::from_bytes(&path).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::privilege;

    #[test]
    fn everything_goes_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        let (dir, kept) = (home.path().join("dir"), home.path().join("kept"));
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        fs::write(dir.join("a/b/file"), "x").unwrap();
        symlink(&kept, dir.join("a/link")).unwrap();
        tree(&dir).unwrap();
        assert!(!dir.exists() && kept.join("file").exists());
        assert!(tree(&dir).is_err());
    }

    #[test]
    fn what_is_mounted_is_unmounted_or_in_the_way_but_never_emptied() {
        if !privilege::is_root() {
            eprintln!("SKIPPED: needs root");
            return;
        }
        // In mounts of this thread's own.
        let work = || {
            // SAFETY: changes only what this thread sees of mounts.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let home = tempfile::tempdir().unwrap();
            let (dir, data) = (home.path().join("dir"), home.path().join("some data"));
            let point = dir.join("with space");
            for path in [&point, &data.join("sub")] {
                fs::create_dir_all(path).unwrap();
            }
            fs::write(data.join("precious"), "x").unwrap();
            // Shared, as a host's mounts are: what happens in the copy could happen in the original.
            rustix::mount::mount_bind(&data, &data).unwrap();
            mount_change(&data, MountPropagationFlags::SHARED).unwrap();
            rustix::mount::mount("t", data.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None)
                .unwrap();
            fs::write(data.join("sub/more"), "x").unwrap();
            rustix::mount::mount_bind_recursive(&data, &point).unwrap();
            rustix::mount::mount_bind(data.join("precious"), {
                fs::write(dir.join("file"), "").unwrap();
                dir.join("file")
            })
            .unwrap();

            // Without unmounting, nothing behind a mount is touched.
            let parent = rustix::fs::open(home.path(), OFlags::PATH, Mode::empty()).unwrap();
            assert!(remove_dir(parent.as_fd(), OsStr::new("dir"), MAX_DEPTH).is_err());
            assert!(
                open_dir(
                    rustix::fs::open(&dir, OFlags::PATH, Mode::empty()).unwrap().as_fd(),
                    OsStr::new("with space")
                )
                .is_err()
            );
            assert!(data.join("precious").exists() && data.join("sub/more").exists());

            tree(&dir).unwrap();
            assert!(!dir.exists());
            assert_eq!(fs::read_to_string(data.join("precious")).unwrap(), "x");
            assert_eq!(fs::read_to_string(data.join("sub/more")).unwrap(), "x");
        };
        std::thread::spawn(work).join().unwrap();
    }

    #[test]
    fn mount_points_are_decoded() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402/a\134b rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt 2/a\b")));
        assert_eq!(mount_point(b""), None);
        assert_eq!(mount_point(br"1 2 3 4 /a\04"), Some(PathBuf::from(r"/a\04")));
    }
}
