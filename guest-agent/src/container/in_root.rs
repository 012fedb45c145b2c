//! Files inside a container's root, which the image controls: every path is resolved within it, whatever its symbolic
//! links say.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat},
    sys::stat::{Mode, mkdirat},
};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);
/// Links in one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// A root directory.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Opens the directory `path` as a root.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// The start of a regular file, at most `limit` bytes. None: there is no such regular file.
    pub(crate) fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        // O_NONBLOCK: opening a FIFO must not wait for its writer.
        let file = match self.resolve(Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Makes the directory `path` and its parents where they are missing, owned by root, and opens it. What a link leads to that is not
    /// there is made, too.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        if let Ok(fd) = self.resolve(path, DIRECTORY) {
            return Ok(fd);
        }
        let mut done = PathBuf::from("/");
        let mut parent = self.resolve(&done, DIRECTORY)?;
        for name in self.without_links(path)?.iter().skip(1) {
            done.push(name);
            parent = match self.resolve(&done, DIRECTORY) {
                Err(Errno::ENOENT) => {
                    mkdirat(parent.as_fd(), name, Mode::from_bits_truncate(0o755))?;
                    self.resolve(&done, DIRECTORY)?
                }
                result => result?,
            };
        }
        Ok(parent)
    }

    /// Whether there is something at `path`.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH).is_ok()
    }

    /// The absolute path that `path` leads to, without links, also where parts of it are missing.
    pub(crate) fn without_links(&self, path: &Path) -> io::Result<PathBuf> {
        let names = |path: &Path| -> Vec<OsString> {
            path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
        };
        let (mut done, mut left, mut links) = (PathBuf::from("/"), names(path), 0);
        while let Some(name) = left.pop() {
            match name.as_bytes() {
                b"/" => done = PathBuf::from("/"),
                b"." => {}
                b".." => drop(done.pop()),
                _ => {
                    let next = done.join(&name);
                    match self.link(&next)? {
                        None => done = next,
                        Some(_) if links == MAX_LINKS => return Err(Errno::ELOOP.into()),
                        Some(target) => {
                            links += 1;
                            left.extend(names(&target));
                        }
                    }
                }
            }
        }
        Ok(done)
    }

    /// Where the symbolic link at `path` leads; none of its directories is one.
    fn link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Ok(fd) => match readlinkat(&fd, c"") {
                Ok(target) => Ok(Some(target.into())),
                // It is no link (readlink(2): with an empty path, also ENOENT).
                Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(self.0.as_fd(), path, how)
    }
}

/// The path by which an open directory is known in this mount namespace.
pub(crate) fn path_of(fd: &impl AsFd) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    Ok(PathBuf::from(readlinkat(AT_FDCWD, link.as_str())?))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/real"), "inside").unwrap();
        symlink("/etc/real", dir.path().join("etc/absolute")).unwrap();
        symlink("../../../../etc/real", dir.path().join("etc/climbing")).unwrap();
        symlink("/proc/self/root/etc/passwd", dir.path().join("etc/magic")).unwrap();
        symlink("loop", dir.path().join("etc/loop")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["etc/real", "/etc/absolute", "etc/climbing", "/../etc/real"] {
            assert_eq!(root.read(path, 100).unwrap().as_deref(), Some(&b"inside"[..]), "{path}");
        }
        for path in ["etc/magic", "etc/loop", "etc", "none", "etc/real/none"] {
            assert_eq!(root.read(path, 100).unwrap(), None, "{path}");
        }
        assert_eq!(root.read("etc/real", 2).unwrap().as_deref(), Some(&b"in"[..]));
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(Root::open(dir.path()).unwrap().read("fifo", 1).unwrap(), None);
    }

    #[test]
    fn makes_directories_inside() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink("/real", dir.path().join("link")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let made = root.make_dir(Path::new("/link/a/../b/c")).unwrap();
        assert_eq!(path_of(&made).unwrap(), real.canonicalize().unwrap().join("b/c"));
        assert!(!real.join("a").exists());
        assert_eq!(path_of(&root.make_dir(Path::new("/real/b")).unwrap()).unwrap(), real.join("b"));
        assert!(root.make_dir(Path::new("/file/x")).is_err());
    }

    #[test]
    fn links_that_lead_nowhere_are_made_to_lead_somewhere_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/run/resolver/conf", dir.path().join("etc/resolv.conf")).unwrap();
        symlink("../../../run/work", dir.path().join("etc/work")).unwrap();
        symlink("loop", dir.path().join("etc/loop")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let to = |path: &str| root.without_links(Path::new(path));
        assert_eq!(to("/etc/resolv.conf").unwrap(), Path::new("/run/resolver/conf"));
        assert_eq!(to("etc/./work/../x").unwrap(), Path::new("/run/x"));
        assert_eq!(to("/etc/loop").unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        let made = root.make_dir(Path::new("/etc/work/deep")).unwrap();
        assert_eq!(path_of(&made).unwrap(), dir.path().canonicalize().unwrap().join("run/work/deep"));
        assert!(!root.has(Path::new("/etc/resolv.conf")) && root.has(Path::new("/etc/work")));
    }
}
