//! Mounts as a snapshotter names them.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use super::super::FsMount;
use crate::{Error, Result};

/// mount(2) takes no longer options than a page, with a zero at the end.
const MAX_OPTIONS: usize = 4095;
/// Options that are flags of mount(2), and whether they are set by it.
const FLAGS: [(&str, MountFlags, bool); 14] = [
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("atime", MountFlags::NOATIME, false),
    ("noatime", MountFlags::NOATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("lazytime", MountFlags::LAZYTIME, true),
    ("nolazytime", MountFlags::LAZYTIME, false),
];
/// Options that go without saying here.
const IGNORED: [&str; 6] = ["nosuid", "suid", "nodev", "dev", "noexec", "exec"];
const LOWER: &str = "lowerdir=";

/// Whether it shows a directory that there is.
pub(super) fn is_bind(mount: &FsMount) -> bool {
    mount.fs_type == "bind" || mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

/// Mounts all on `target`, in the mount namespace of this thread, whose working directory changes.
pub(super) fn mount_all(mounts: &[FsMount], target: &Path) -> Result<()> {
    mounts.iter().try_for_each(|mount| mount_one(mount, target))
}

fn mount_one(wanted: &FsMount, target: &Path) -> Result<()> {
    let FsMount { fs_type, source, .. } = wanted;
    if is_bind(wanted) {
        let text = format!("a root file system can't be made of a bind mount of {source} among other mounts");
        return Err(Error::InvalidOption(text));
    }
    let Plan { flags, data, dir } = plan(wanted)?;
    let failed = |error: std::io::Error| Error::Mount {
        source_path: format!("the {fs_type} file system {source}").into(),
        on: target.into(),
        source: error,
    };
    let data = CString::new(data).map_err(|error| failed(error.into()))?;
    rustix::process::chdir(&dir).map_err(|error| failed(error.into()))?;
    let mounted = mount(source.as_str(), target, fs_type.as_str(), flags, data.as_c_str());
    let back = rustix::process::chdir(c"/");
    mounted.and(back).map_err(|error| failed(error.into()))
}

/// How to call mount(2).
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    flags: MountFlags,
    data: String,
    /// What relative paths in `data` are relative to.
    dir: PathBuf,
}

fn plan(wanted: &FsMount) -> Result<Plan> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut data = Vec::new();
    for option in &wanted.options {
        match FLAGS.iter().find(|(name, ..)| name == option) {
            Some((_, flag, set)) => flags.set(*flag, *set),
            None if IGNORED.contains(&option.as_str()) => {}
            None => data.push(option.clone()),
        }
    }
    let mut dir = PathBuf::from("/");
    if length(&data) > MAX_OPTIONS && wanted.fs_type == "overlay" {
        dir = shorten(&mut data);
    }
    if length(&data) > MAX_OPTIONS {
        return Err(Error::InvalidOption(format!(
            "the options of a mount of type {:?} are too long: use an image with fewer layers",
            wanted.fs_type
        )));
    }
    Ok(Plan { flags, data: data.join(","), dir })
}

fn length(data: &[String]) -> usize {
    data.iter().map(|option| option.len() + 1).sum::<usize>().saturating_sub(1)
}

/// Names an overlay's lower directories relative to one that holds them all, which is returned.
fn shorten(data: &mut [String]) -> PathBuf {
    let Some(option) = data.iter_mut().find(|option| option.starts_with(LOWER)) else { return "/".into() };
    let lower: Vec<&str> = option[LOWER.len()..].split(':').collect();
    let mut common = Path::new(lower[0]).parent().unwrap_or(Path::new("/"));
    while !lower.iter().all(|path| Path::new(path).starts_with(common) && Path::new(path) != common) {
        common = common.parent().unwrap_or(Path::new("/"));
        if common == Path::new("/") {
            break;
        }
    }
    // Colons in names are escaped by backslashes, and what is split there is no path.
    let relative: Option<Vec<&str>> =
        lower.iter().map(|path| Path::new(path).strip_prefix(common).ok()?.to_str()).collect();
    let Some(relative) = relative else { return "/".into() };
    let common = common.to_path_buf();
    let joined = format!("{LOWER}{}", relative.join(":"));
    *option = joined;
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> FsMount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        FsMount { fs_type: "overlay".into(), source: "overlay".into(), options }
    }

    #[test]
    fn flags_are_told_from_options() {
        let given =
            overlay(&["index=off", "ro", "noatime", "suid", "lowerdir=/a:/b", "strictatime", "atime"]);
        let harmless = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let wanted = Plan {
            flags: harmless | MountFlags::RDONLY | MountFlags::STRICTATIME,
            data: "index=off,lowerdir=/a:/b".into(),
            dir: "/".into(),
        };
        assert_eq!(plan(&given).unwrap(), wanted);
        assert_eq!(plan(&overlay(&["ro", "rw"])).unwrap().flags, harmless);
        assert!(is_bind(&overlay(&["rbind"])) && !is_bind(&overlay(&["ro"])));
    }

    #[test]
    fn many_layers_are_named_from_where_they_are() {
        let many = |dir: &str, count: usize| {
            let layers: Vec<String> = (0..count).map(|n| format!("{dir}/{n}/fs")).collect();
            overlay(&["workdir=/w", &format!("lowerdir={}", layers.join(":")), "upperdir=/u"])
        };
        let dir = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let Plan { data, dir: at, .. } = plan(&many(dir, 200)).unwrap();
        assert_eq!(at, Path::new(dir));
        assert!(
            data.starts_with("workdir=/w,lowerdir=0/fs:1/fs:2/fs") && data.ends_with(":199/fs,upperdir=/u")
        );
        // Few stay as they are; too many are too many.
        assert_eq!(plan(&many(dir, 3)).unwrap().dir, Path::new("/"));
        assert!(plan(&many(dir, 2000)).unwrap_err().to_string().contains("fewer layers"));
        // What has nothing in common but the root, or is no path, stays as it is.
        let mut apart = many("/a", 440);
        apart.options[1].push_str(":/b");
        assert_eq!(plan(&apart).unwrap().dir, Path::new("/"));
        let mut odd = many("/a", 440);
        odd.options[1].push_str(":relative");
        assert!(plan(&odd).is_err());
    }
}
