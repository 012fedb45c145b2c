//! A container's root file system: an overlay of a shared read-only disk and a writable layer of its own.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use husk_protocol::agent::{Disk, ImageRoot, RootFs, root_fs::Root};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::disk;
use crate::{failure::Failure, paths, shared};

/// Where in its bundle a container's root is mounted.
const ROOT: &str = "rootfs";
/// Where in its bundle the writable layer is mounted when it is a tmpfs.
const SCRATCH: &str = "scratch";

/// The root's mount point.
pub(crate) fn root_of(bundle: &Path) -> PathBuf {
    bundle.join(ROOT)
}

/// Mounts the root of the container and returns where.
pub(crate) fn mount_root(rootfs: &RootFs, container_id: &str) -> Result<PathBuf, Failure> {
    let bundle = paths::bundle(container_id);
    match &rootfs.root {
        Some(Root::Image(image)) => mount_image(image, &bundle, container_id),
        Some(Root::SharedDir(dir)) => bind_shared(dir, &bundle),
        Some(Root::Disk(disk)) => mount_as_it_is(disk, &bundle),
        _ => Err(Failure::invalid("the request has no root file system")),
    }
}

/// Makes an overlay of an image's disk and a writable layer the root.
fn mount_image(image: &ImageRoot, bundle: &Path, container_id: &str) -> Result<PathBuf, Failure> {
    let base = mount_disk(&image.base_disk, MsFlags::MS_RDONLY)?;
    let layer = if image.scratch_disk.is_empty() {
        let scratch = make_dir(bundle.join(SCRATCH))?;
        mount(Some("tmpfs"), &scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| Failure::io("cannot mount a tmpfs to write to", &e.into()))?;
        scratch
    } else {
        make_dir(mount_disk(&image.scratch_disk, MsFlags::empty())?.join(container_id))?
    };
    let upper = make_dir(layer.join("upper"))?;
    let work = make_dir(layer.join("work"))?;
    like(&base, &upper).map_err(|e| Failure::io("cannot prepare the writable layer", &e))?;

    let root = make_dir(root_of(bundle))?;
    // None of these paths can hold a comma or a colon: serials and container ids are checked.
    let options =
        format!("lowerdir={},upperdir={},workdir={}", base.display(), upper.display(), work.display());
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(|e| Failure::io("cannot mount the container's root file system", &e.into()))?;
    Ok(root)
}

/// Makes a directory that the host shares the root.
fn bind_shared(dir: &str, bundle: &Path) -> Result<PathBuf, Failure> {
    let root = make_dir(root_of(bundle))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&shared::path_of(dir)?), &root, None::<&str>, flags, None::<&str>)
        .map_err(|e| Failure::io("cannot mount the container's shared root file system", &e.into()))?;
    Ok(root)
}

/// Makes a disk's file system the root.
fn mount_as_it_is(disk: &Disk, bundle: &Path) -> Result<PathBuf, Failure> {
    let Disk { serial, fs_type, options, .. } = disk;
    if fs_type.is_empty() || !fs_type.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(Failure::invalid(format!("not a file system's type: {fs_type:?}")));
    }
    let device = disk::find(serial)?;
    let root = make_dir(root_of(bundle))?;
    let (flags, data) = parse_options(options);
    mount(Some(&device), &root, Some(fs_type.as_str()), flags, Some(data.as_str())).map_err(|e| {
        Failure::io(format_args!("cannot mount the {fs_type} file system on disk {serial:?}"), &e.into())
    })?;
    Ok(root)
}

/// mount(2)'s flags and data for mount(8)'s options.
fn parse_options(options: &[String]) -> (MsFlags, String) {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" => flags -= MsFlags::MS_RDONLY,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            other => data.push(other),
        }
    }
    (flags, data.join(","))
}

/// The disks that an image's root is made of, from now on in use by one more container.
pub(crate) fn hold_disks(rootfs: &RootFs) -> Vec<String> {
    let Some(Root::Image(image)) = &rootfs.root else { return Vec::new() };
    let disks = [&image.base_disk, &image.scratch_disk];
    let disks: Vec<String> =
        disks.into_iter().filter(|serial| disk::check(serial).is_ok()).cloned().collect();
    disk::hold(&disks);
    disks
}

/// Unmounts the root of a container, whether or not it was mounted completely, and those of its disks that no other
/// container uses, and forgets its bundle.
pub(crate) fn remove(container_id: &str, disks: &[String]) -> io::Result<()> {
    let bundle = paths::bundle(container_id);
    let unused = disk::release(disks);
    for mounted in [ROOT, SCRATCH] {
        unmount(&bundle.join(mounted))?;
    }
    for serial in unused {
        unmount(&paths::disk(&serial))?;
    }
    shared::forget(container_id)?;
    for dir in [bundle, PathBuf::from(format!("{}/{container_id}", paths::STATE))] {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Unmounts what is mounted there, if anything is.
fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts a disk's ext4 file system, once, and returns where.
fn mount_disk(serial: &str, flags: MsFlags) -> Result<PathBuf, Failure> {
    disk::check(serial)?;
    let target = make_dir(paths::disk(serial))?;
    let device_of = |path: &Path| fs::metadata(path).map(|m| m.dev());
    let mounted = (|| Ok(device_of(&target)? != device_of(Path::new(paths::RUN))?))()
        .map_err(|e: io::Error| Failure::io(target.display(), &e))?;
    if !mounted {
        let device = disk::find(serial)?;
        mount(Some(&device), &target, Some("ext4"), flags, None::<&str>).map_err(|e| {
            Failure::io(format_args!("cannot mount the file system on disk {serial:?}"), &e.into())
        })?;
    }
    Ok(target)
}

/// Makes `path` look like the directory `model`: an overlay's root shows its upper layer's attributes.
fn like(model: &Path, path: &Path) -> io::Result<()> {
    let model = fs::metadata(model)?;
    chown(path, Some(model.uid()), Some(model.gid()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(model.mode() & 0o7777))
}

fn make_dir(path: PathBuf) -> Result<PathBuf, Failure> {
    match fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(Failure::io(format_args!("cannot make {}", path.display()), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart() {
        let parse = |text: &str| parse_options(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
        assert_eq!(parse("ro,noatime,commit=5,data=ordered"), (flags, "commit=5,data=ordered".into()));
        assert_eq!(parse("ro,rw"), (MsFlags::empty(), String::new()));
    }
}
