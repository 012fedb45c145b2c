//! An installed husk of which some piece is another one than built.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::environment;

/// A tree as `make install` makes it; removed when dropped.
#[derive(Debug)]
pub struct Install {
    dir: TempDir,
}

impl Install {
    /// husk as built, but with another initramfs.
    ///
    /// # Panics
    /// When the tree can't be made.
    pub fn with_initramfs(initramfs: &Path) -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["bin", "libexec/husk", "share/husk"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        // A copy: husk looks for its pieces beside the file that it really is.
        fs::copy(environment::bin().join("husk"), dir.path().join("bin/husk")).unwrap();
        symlink(environment::bin().join("husk-vmm"), dir.path().join("libexec/husk/husk-vmm")).unwrap();
        symlink(environment::guest().join("vmlinux"), dir.path().join("share/husk/vmlinux")).unwrap();
        symlink(initramfs, dir.path().join("share/husk/initramfs.cpio")).unwrap();
        Self { dir }
    }

    /// The directory of its `husk`.
    pub fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }
}
