//! The root being built: finds and makes directories in it, and never leaves it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::{fs, io};

use super::error::Reason;
use super::path;

/// Symlinks followed in one path before it counts as a loop; Linux's limit too.
const MAX_SYMLINKS: u32 = 40;
/// Attempts at a path walk that something else on the system disturbs.
const MAX_RETRIES: u32 = 128;

/// The names that the current layer has put into the tree, which its own whiteouts must spare.
///
/// Keeps 64-bit hashes, under a random key, of a name and its directory's inode number. An inode number that is used
/// again does no harm: a directory made by this layer holds nothing of the lower ones.
#[derive(Default)]
pub(super) struct Made {
    names: HashSet<u64>,
    key: RandomState,
}

impl Made {
    pub(super) fn contains(&self, directory: u64, name: &[u8]) -> bool {
        self.names.contains(&self.key.hash_one((directory, name)))
    }

    fn insert(&mut self, directory: u64, name: &[u8]) {
        self.names.insert(self.key.hash_one((directory, name)));
    }
}

/// The directory that entries are being put into.
pub(super) struct Parent {
    path: Vec<u8>,
    pub(super) fd: OwnedFd,
    pub(super) inode: u64,
    /// Its own times, which changing its contents must not change.
    times: Timestamps,
    /// Its path may lead elsewhere by now.
    stale: bool,
}

/// A root file system while one layer is applied.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// Consecutive entries tend to share their directory.
    parent: Option<Parent>,
    made: Made,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, parent: None, made: Made::default() }
    }

    pub(super) fn root(&self) -> BorrowedFd<'a> {
        self.root
    }

    /// Opens the directory at a cleaned path, making what is missing: owned by root, mode 0755, with `mtime`.
    /// Symlinks on the way are followed within the root.
    ///
    /// Returns what this layer has made so far, too.
    pub(super) fn enter(&mut self, path: &[u8], mtime: Timespec) -> Result<(&mut Parent, &Made), Reason> {
        let known = self.parent.take_if(|parent| !parent.stale && parent.path == path);
        let parent = match known {
            Some(parent) => parent,
            None => {
                self.leave()?;
                let fd = match self.open(path) {
                    Err(Errno::NOENT) => self.make_directories(path, mtime)?,
                    other => other.map_err(Reason::system("open the directory"))?,
                };
                let stat = fs::fstat(&fd).map_err(Reason::system("examine the directory"))?;
                Parent { path: path.to_vec(), fd, inode: stat.st_ino, times: times(&stat), stale: false }
            }
        };
        Ok((self.parent.insert(parent), &self.made))
    }

    /// Gives the directory entered last its own times back.
    pub(super) fn leave(&mut self) -> Result<(), Reason> {
        match self.parent.take() {
            Some(Parent { fd, times, .. }) => {
                fs::futimens(&fd, &times).map_err(Reason::system("set the directory's times"))
            }
            None => Ok(()),
        }
    }

    /// Opens an existing directory within the root.
    pub(super) fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_RETRIES {
            match fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory entered last now holds `name` from this layer.
    pub(super) fn record(&mut self, name: &[u8]) {
        if let Some(parent) = &self.parent {
            self.made.insert(parent.inode, name);
        }
    }

    /// Opens a directory of which some part is missing. A symlink that leads nowhere gets its target made.
    fn make_directories(&mut self, path: &[u8], mtime: Timespec) -> Result<OwnedFd, Reason> {
        let mut path = path.to_vec();
        let mut symlinks = 0;
        'path: loop {
            let mut directory = self
                .root
                .try_clone_to_owned()
                .map_err(|_| Reason::system("duplicate the root")(Errno::MFILE))?;
            let mut end = 0;
            while end < path.len() {
                let start = end;
                end =
                    path[start + 1..].iter().position(|b| *b == b'/').map_or(path.len(), |at| start + 1 + at);
                match self.open(&path[..end]) {
                    Ok(next) => {
                        directory = next;
                        continue;
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(Reason::system("open the directory")(errno)),
                }
                let (above, name) = path::split(&path[..end]);
                match fs::readlinkat(&directory, name, Vec::new()) {
                    Ok(target) => {
                        symlinks += 1;
                        if symlinks > MAX_SYMLINKS {
                            return Err(Reason::system("follow the symlinks")(Errno::LOOP));
                        }
                        let target = target.as_bytes();
                        let above = if target.starts_with(b"/") { b"" } else { above };
                        path = [above, target, &path[end..]].join(&b'/');
                        continue 'path;
                    }
                    Err(Errno::NOENT) => directory = self.make_directory(&directory, name, mtime)?,
                    Err(errno) => return Err(Reason::system("examine the directory")(errno)),
                }
            }
            return Ok(directory);
        }
    }

    fn make_directory(&mut self, above: &OwnedFd, name: &[u8], mtime: Timespec) -> Result<OwnedFd, Reason> {
        let make = || {
            let before = fs::fstat(above)?;
            fs::mkdirat(above, name, Mode::empty())?;
            let fd = open_directory(above, name)?;
            fs::fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))?;
            fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
            fs::futimens(&fd, &Timestamps { last_access: mtime, last_modification: mtime })?;
            fs::futimens(above, &times(&before))?;
            Ok((before.st_ino, fd))
        };
        let (inode, fd) = make().map_err(Reason::system("make the directory it is in"))?;
        self.made.insert(inode, name);
        Ok(fd)
    }
}

impl Parent {
    /// Something that paths may lead through was taken out of this directory.
    pub(super) fn forget_path(&mut self) {
        self.stale = true;
    }

    /// What the name stands for, if for anything.
    pub(super) fn file_type(&self, name: &[u8]) -> Result<Option<FileType>, Reason> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Reason::system("examine what is there")(errno)),
        }
    }
}

/// Opens the directory `name` in `above`, which must not be a symlink.
pub(super) fn open_directory(above: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(above, name, flags, Mode::empty())
}

/// The times in a stat.
pub(super) fn times(stat: &fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        // Always below a billion.
        tv_nsec: nanoseconds.cast_signed(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
