//! Files inside a container's root, which the image controls: every path is resolved within it, whatever its symbolic
//! links say.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, mkdirat},
};

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

    /// Makes the directory `path` and its parents where they are missing, owned by root, and opens it.
    pub(crate) fn make_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);
        if let Ok(fd) = self.resolve(path, DIRECTORY) {
            return Ok(fd);
        }
        let mut done = PathBuf::from("/");
        let mut parent = self.resolve(&done, DIRECTORY)?;
        for component in path.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => "..".as_ref(),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
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
    Ok(PathBuf::from(nix::fcntl::readlinkat(AT_FDCWD, link.as_str())?))
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
        assert!(real.join("a").is_dir());
        assert_eq!(path_of(&root.make_dir(Path::new("/real/b")).unwrap()).unwrap(), real.join("b"));
        assert!(root.make_dir(Path::new("/file/x")).is_err());
    }
}
