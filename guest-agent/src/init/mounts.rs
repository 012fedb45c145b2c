//! The guest's own mounts.

use std::fs;

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::{chdir, chroot, mkdir},
};

use super::InitError;
use crate::paths;

struct Entry {
    target: &'static str,
    fstype: &'static str,
    flags: MsFlags,
    data: Option<&'static str>,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);
const DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

const ENTRIES: [Entry; 8] = [
    Entry { target: "/proc", fstype: "proc", flags: SAFE, data: None },
    Entry { target: "/sys", fstype: "sysfs", flags: SAFE, data: None },
    Entry { target: "/dev", fstype: "devtmpfs", flags: MsFlags::MS_NOSUID, data: Some("mode=0755") },
    Entry {
        target: "/dev/pts",
        fstype: "devpts",
        flags: DEVICES,
        data: Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    },
    Entry { target: "/dev/shm", fstype: "tmpfs", flags: SAFE, data: Some("mode=1777") },
    Entry { target: "/dev/mqueue", fstype: "mqueue", flags: SAFE, data: None },
    Entry { target: "/run", fstype: "tmpfs", flags: DEVICES, data: Some("mode=0755") },
    // favordynmods: moving a process into a cgroup does not wait for an RCU grace period.
    Entry {
        target: paths::CGROUP,
        fstype: "cgroup2",
        flags: SAFE,
        data: Some("nsdelegate,memory_recursiveprot,favordynmods"),
    },
];

/// pivot_root(2) refuses to work while the root mount has no parent, which is so for an initramfs. A bind mount of the
/// root, moved on top of it, has one.
pub(super) fn pivotable_root() -> Result<(), InitError> {
    const TARGET: &str = "/.root";
    let failed = |step| move |source| InitError::Root { step, source };
    make_dir(TARGET).map_err(failed("mkdir"))?;
    mount(Some("/"), TARGET, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed("bind"))?;
    chdir(TARGET).map_err(failed("chdir"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(failed("move"))?;
    chroot(".").map_err(failed("chroot"))
}

/// Mounts everything in [`ENTRIES`].
pub(super) fn mount_all() -> Result<(), InitError> {
    for Entry { target, fstype, flags, data } in ENTRIES {
        let failed = |source| InitError::Mount { fstype, target, source };
        make_dir(target).map_err(failed)?;
        match mount(Some(fstype), target, Some(fstype), flags, data) {
            Err(Errno::EINVAL) if fstype == "cgroup2" => {
                mount(Some(fstype), target, Some(fstype), flags, Some("nsdelegate"))
            }
            result => result,
        }
        .map_err(failed)?;
    }
    Ok(())
}

/// Lets every controller that the kernel has be used below the root cgroup and below the one that holds the
/// containers.
pub(super) fn enable_controllers() -> Result<(), InitError> {
    let failed = |path| move |source| InitError::File { path, source };
    let path = "/sys/fs/cgroup/cgroup.controllers";
    let controllers = fs::read_to_string(path).map_err(failed(path))?;
    let enable: Vec<String> = controllers.split_whitespace().map(|c| format!("+{c}")).collect();
    let enable = enable.join(" ");
    let path = "/sys/fs/cgroup/cgroup.subtree_control";
    fs::write(path, &enable).map_err(failed(path))?;
    let path = paths::CONTAINERS_CGROUP;
    make_dir(path).map_err(|e| failed(path)(e.into()))?;
    let path = "/sys/fs/cgroup/husk/cgroup.subtree_control";
    fs::write(path, &enable).map_err(failed(path))
}

fn make_dir(path: &str) -> nix::Result<()> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}
