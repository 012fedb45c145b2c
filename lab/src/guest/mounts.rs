//! The machine's file systems.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};

use crate::wire::Request;

const SHARE: &str = "trans=virtio,version=9p2000.L,msize=512000";

/// Mounts, and names the target when that fails.
pub(super) fn attach(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(source), target, Some(kind), flags, Some(options))
        .with_context(|| format!("cannot mount {kind} at {target}"))
}

/// Makes the shared tree, under a tmpfs for what is written, the root of this process and of all to come.
pub(super) fn root() -> Result<()> {
    let (lower, upper) = ("/newroot/lower", "/newroot/upper");
    attach("tmpfs", "/newroot", "tmpfs", MsFlags::empty(), "size=90%,mode=755")?;
    for dir in [lower, upper, "/newroot/work", "/newroot/root"] {
        fs::create_dir(dir)?;
    }
    attach("root", lower, "9p", MsFlags::MS_RDONLY, &format!("{SHARE},cache=loose"))?;
    // The top of the tree is as it was outside, whatever the tmpfs would make of it.
    let mode = fs::metadata(lower)?.permissions().mode();
    fs::set_permissions(upper, Permissions::from_mode(mode & 0o7777))?;
    let layers =
        format!("lowerdir={lower},upperdir={upper},workdir=/newroot/work,redirect_dir=on,index=off,xino=off");
    attach("root", "/newroot/root", "overlay", MsFlags::empty(), &layers)?;
    ensure_directory("/newroot/root/dev")?;
    mount(Some("/dev"), "/newroot/root/dev", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("cannot move /dev")?;
    // Moved over the initramfs, not pivoted: pivot_root works for those inside only when the root is a mount.
    chdir("/newroot/root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the root")?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Everything below the new root.
pub(super) fn extras(request: &Request) -> Result<()> {
    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let system = secure | MsFlags::MS_NOEXEC;
    for (source, target, kind, flags, options) in [
        ("proc", "/proc", "proc", system, ""),
        ("sysfs", "/sys", "sysfs", system, ""),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", system, ""),
        ("debugfs", "/sys/kernel/debug", "debugfs", system, ""),
        ("tracefs", "/sys/kernel/tracing", "tracefs", system, ""),
        ("securityfs", "/sys/kernel/security", "securityfs", system, ""),
        ("bpf", "/sys/fs/bpf", "bpf", system, "mode=700"),
        (
            "devpts",
            "/dev/pts",
            "devpts",
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            "mode=620,gid=5,ptmxmode=666",
        ),
        ("tmpfs", "/dev/shm", "tmpfs", secure, "mode=1777"),
        ("mqueue", "/dev/mqueue", "mqueue", system, ""),
        ("hugetlbfs", "/dev/hugepages", "hugetlbfs", secure, ""),
        ("tmpfs", "/run", "tmpfs", secure, "mode=755"),
        ("lab", "/lab", "tmpfs", MsFlags::empty(), "mode=755"),
    ] {
        // Below /sys a directory is there only when the kernel has what belongs into it.
        if target.starts_with("/sys/") {
            if !Path::new(target).is_dir() {
                continue;
            }
        } else {
            ensure_directory(target)?;
        }
        attach(source, target, kind, flags, options)?;
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).with_context(|| format!("cannot create {link}"))?;
    }
    ensure_directory("/run/lock")?;

    let modules = modules_directory()?;
    ensure_directory(&modules)?;
    attach("modules", &modules, "9p", MsFlags::MS_RDONLY, &format!("{SHARE},cache=loose"))?;

    ensure_directory("/lab/out")?;
    if request.out {
        // Not cached: what has been written is outside at once.
        attach("out", "/lab/out", "9p", MsFlags::empty(), SHARE)?;
    }
    if request.disk {
        ensure_directory("/lab/disk")?;
        attach("/dev/vda", "/lab/disk", "ext4", MsFlags::MS_NOATIME, "")?;
    }
    Ok(())
}

/// Where modprobe looks.
pub(super) fn modules_directory() -> Result<String> {
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot tell the kernel's version")?;
    Ok(format!("/lib/modules/{}", release.trim_end()))
}

fn ensure_directory(path: &str) -> Result<()> {
    match fs::create_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {path}"))
        }
        _ => Ok(()),
    }
}
