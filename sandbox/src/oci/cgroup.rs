//! The cgroup of the host that a spec names, for the processes of its pod's VM.

use std::{
    fs,
    path::{Path, PathBuf},
};

use oci_spec::runtime::Spec;

use crate::cgroup::{ROOT, is_unified};

/// The spec's cgroup as a relative path: plain, or systemd's `slice:prefix:name`.
pub fn of(spec: &Spec) -> Option<PathBuf> {
    let path = spec.linux().as_ref()?.cgroups_path().as_ref()?.to_str()?;
    let relative = match path.split(':').collect::<Vec<_>>().as_slice() {
        [slice, prefix, name] => systemd_path(slice, prefix, name)?,
        _ => path.trim_start_matches('/').to_owned(),
    };
    let plain = relative.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then(|| PathBuf::from(relative))
}

/// `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn systemd_path(slice: &str, prefix: &str, name: &str) -> Option<String> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let stem = slice.strip_suffix(".slice")?;
    let mut path = String::new();
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push_str(&stem[..end]);
        path.push_str(".slice/");
    }
    Some(format!("{path}{prefix}-{name}.scope"))
}

/// Makes the cgroup, where the host has cgroups of version 2. Not having it is not a failure: husk then makes one of its own.
pub fn make(relative: &Path) -> Option<PathBuf> {
    if !is_unified() {
        return None;
    }
    let path = absolute(relative);
    fs::create_dir_all(&path).ok()?;
    Some(path)
}

/// Whether what is in the cgroup above has no limit of memory together: the kubelet gives a pod one if all its containers have theirs. Where that
/// can't be seen, it has.
pub fn is_unlimited_above(relative: &Path) -> bool {
    let above = absolute(relative);
    let limit = above.parent().map(|above| fs::read_to_string(above.join("memory.max")));
    limit.is_some_and(|limit| limit.is_ok_and(|limit| limit.trim() == "max"))
}

/// Where a cgroup is.
pub fn absolute(relative: &Path) -> PathBuf {
    Path::new(ROOT).join(relative)
}

/// Removes the cgroup, if no process is in it. As with runc, those above it stay.
pub fn remove(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cgroups_of_both_drivers_are_found_and_none_leads_out() {
        let of = |path: &str| {
            let spec = json!({ "ociVersion": "1.0.2", "linux": { "cgroupsPath": path } });
            super::of(&serde_json::from_value(spec).unwrap())
        };
        assert_eq!(of("/kubepods/pod1/c1").as_deref(), Some(Path::new("kubepods/pod1/c1")));
        assert_eq!(
            of("kubepods-burstable-pod1.slice:cri-containerd:c1").as_deref(),
            Some(Path::new(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c1.scope"
            ))
        );
        assert_eq!(of("/../x"), None);
        assert_eq!(of("a.slice:../../b:c").as_deref(), None);
    }
}
