//! The directory that the host shares: mounted when the first container needs it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};

use husk_protocol::{
    agent::{RootFs, root_fs::Root},
    shared,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use oci_spec::runtime::Spec;

use crate::{failure::Failure, paths};

/// Mounts the directory if this container needs it, unless it is mounted. What the host has mounted there for containers is entered
/// here first: otherwise each container's own namespace would have it as a file system of its own.
pub(crate) fn provide(rootfs: &RootFs, spec: &Spec) -> Result<(), Failure> {
    let sources = spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_deref());
    let shared: Vec<&Path> = sources.filter(|source| source.starts_with(shared::PATH)).collect();
    if matches!(rootfs.root, Some(Root::SharedDir(_))) || !shared.is_empty() {
        mount_once()?;
    }
    for source in shared {
        // Whatever is wrong with it, mounting it says.
        let _ = fs::metadata(source.join("."));
    }
    Ok(())
}

fn mount_once() -> Result<(), Failure> {
    let failed = |e: &io::Error| Failure::io("cannot mount the directory that the host shares", e);
    fs::create_dir_all(shared::PATH).map_err(|e| failed(&e))?;
    let device_of = |path: &str| fs::metadata(path).map(|metadata| metadata.dev());
    let mounted = device_of(shared::PATH).and_then(|there| Ok(there != device_of(paths::RUN)?));
    if mounted.map_err(|e| failed(&e))? {
        return Ok(());
    }
    mount(Some(shared::TAG), shared::PATH, Some("virtiofs"), MsFlags::empty(), None::<&str>)
        .map_err(|e| failed(&e.into()))
}

/// The path of a directory below it.
pub(crate) fn path_of(relative: &str) -> Result<PathBuf, Failure> {
    let plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    if relative.is_empty() || !Path::new(relative).components().all(plain) {
        return Err(Failure::invalid(format!("not a path below {}: {relative:?}", shared::PATH)));
    }
    Ok(Path::new(shared::PATH).join(relative))
}

/// Forgets what is shared for a container alone: what the host has mounted there became mounts of this kernel when somebody
/// looked at it, which would keep the host's files open.
pub(crate) fn forget(container_id: &str) -> io::Result<()> {
    let own = format!("{}/{container_id}/", shared::PATH);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    // What several containers have mounted stays while the host shares it: the kernel finds that out when somebody looks.
    let others = format!("{}/.", shared::PATH);
    for path in mounts.lines().filter_map(mount_point).filter(|path| path.starts_with(&others)) {
        let _ = fs::symlink_metadata(path);
    }
    for path in mounts.lines().filter_map(mount_point).filter(|path| path.starts_with(&own)) {
        // One that was below another has gone with it; one with unusual characters is below another.
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The mount point in a line of mountinfo (proc_pid_mountinfo(5)).
fn mount_point(line: &str) -> Option<&str> {
    line.split(' ').nth(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        assert_eq!(path_of("c1/rootfs").unwrap(), Path::new("/run/husk/shared/c1/rootfs"));
        for bad in ["", "/", "/etc", "..", "c1/../../x", "./x"] {
            assert!(path_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_points_are_found() {
        let line = "61 29 0:44 / /run/husk/shared/c1/rootfs rw,relatime shared:3 - virtiofs husk rw";
        assert_eq!(mount_point(line), Some("/run/husk/shared/c1/rootfs"));
        assert_eq!(mount_point(""), None);
    }
}
