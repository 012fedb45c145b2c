//! The disk that an image is unpacked on to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::{fs, io};

use super::error::UnpackError;

/// Where the disk is mounted meanwhile; nothing else in the guest knows of it.
const MOUNT_POINT: &str = "/run/husk/unpack";

/// A mounted target disk. Dropping it unmounts it, without a word on whether its contents are safe.
pub(super) struct Target {
    device: PathBuf,
    mounted: bool,
    /// Closed before unmounting.
    root: Option<OwnedFd>,
}

impl Target {
    /// Mounts the ext4 file system on `device`.
    pub(super) fn mount(device: &Path) -> Result<Self, UnpackError> {
        let mount_it = || -> io::Result<Self> {
            std::fs::create_dir_all(MOUNT_POINT)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
            // What was never used of the inode tables need not be zeroed: that would only fill up the disk image.
            mount(device, MOUNT_POINT, "ext4", flags, c"noinit_itable")?;
            let mut target = Self { device: device.to_path_buf(), mounted: true, root: None };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let root = target.root.insert(fs::open(MOUNT_POINT, flags, Mode::empty())?);
            // No part of any image, and never needed on a disk that will not be written again.
            match fs::unlinkat(root, "lost+found", AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(target),
                Err(errno) => Err(errno),
            }
        };
        mount_it().map_err(|errno| failed("mount", device, errno))
    }

    /// The root directory.
    pub(super) fn root(&self) -> Result<BorrowedFd<'_>, UnpackError> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| failed("use", &self.device, Errno::BADF))
    }

    /// Writes everything to the disk and unmounts it.
    pub(super) fn finish(mut self) -> Result<(), UnpackError> {
        let root = self.root()?;
        fs::syncfs(root).map_err(|errno| failed("write", &self.device, errno))?;
        self.root = None;
        unmount(MOUNT_POINT, UnmountFlags::NOFOLLOW)
            .map_err(|errno| failed("unmount", &self.device, errno))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.root = None;
        if self.mounted {
            // After a failure the disk is thrown away: what matters is that the next one can be mounted.
            let _ = unmount(MOUNT_POINT, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

fn failed(action: &'static str, device: &Path, errno: Errno) -> UnpackError {
    UnpackError::Target { action, device: device.to_path_buf(), errno }
}
