//! A root directory for the test itself: an unpacker that lets a layer out must not harm the machine it is tested on.

use std::fs::{self, File};
use std::os::unix::fs as unix;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use tempfile::TempDir;

thread_local! {
    static CAGE: Cage = Cage::new();
}

/// Shuts this thread in, for the rest of its life. Its `/` is now an otherwise empty directory with `proc` and `tmp`.
pub(super) fn enter() {
    CAGE.with(|_| {});
}

struct Cage {
    directory: TempDir,
    /// The machine's root, in this thread's mount namespace.
    outside: File,
}

impl Cage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // From here on mounts and the root directory are this thread's own.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let outside = File::open("/").unwrap();
        for name in ["proc", "tmp"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        mount_bind_recursive("/proc", directory.path().join("proc")).unwrap();
        unix::chroot(directory.path()).unwrap();
        std::env::set_current_dir("/").unwrap();
        Self { directory, outside }
    }
}

impl Drop for Cage {
    /// Lets the thread out, so that the directory can be removed.
    fn drop(&mut self) {
        nix::unistd::fchdir(&self.outside).unwrap();
        unix::chroot(".").unwrap();
        unmount(self.directory.path().join("proc"), UnmountFlags::DETACH).unwrap();
    }
}
