//! An installed husk of which some piece is another one than built.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::environment;

/// A tree as `make install` makes it, for every user; removed when dropped.
#[derive(Debug)]
pub struct Install {
    dir: TempDir,
}

impl Install {
    /// husk as built.
    ///
    /// # Panics
    /// When the tree can't be made.
    pub fn new() -> Self {
        Self::with_initramfs(&environment::guest().join("initramfs.cpio"))
    }

    /// husk as built, but with another initramfs.
    ///
    /// # Panics
    /// When the tree can't be made.
    pub fn with_initramfs(initramfs: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        let (bin, guest) = (environment::bin(), environment::guest());
        for (from, to) in [
            (bin.join("husk"), "bin/husk"),
            (bin.join("husk-vmm"), "libexec/husk/husk-vmm"),
            (bin.join("husk-supervisor"), "libexec/husk/husk-supervisor"),
            (guest.join("vmlinux"), "share/husk/vmlinux"),
            (initramfs.into(), "share/husk/initramfs.cpio"),
        ] {
            let to = dir.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            // Copies: husk looks for its pieces beside the file that it really is, and not every user may follow links.
            fs::copy(from, to).unwrap();
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// The directory of its `husk`.
    pub fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }
}

impl Default for Install {
    fn default() -> Self {
        Self::new()
    }
}
