//! The cgroup of the host that a spec names, for the processes of its pod's VM.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the host has cgroups of version 2 alone.
pub(crate) fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes it, where the host has cgroups of version 2. Not having it is no failure: husk then makes one of its own.
pub(crate) fn make(relative: &Path) -> Option<PathBuf> {
    if !unified() {
        return None;
    }
    let path = absolute(relative);
    fs::create_dir_all(&path).ok()?;
    Some(path)
}

/// Where it is.
pub(crate) fn absolute(relative: &Path) -> PathBuf {
    Path::new(ROOT).join(relative)
}

/// Removes it, if nobody is in it. As with runc, those above it stay.
pub(crate) fn remove(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = fs::remove_dir(path);
    }
}
