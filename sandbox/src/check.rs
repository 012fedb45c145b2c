//! Can this machine run husk, and if not, what is to be done?

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use husk_vmm::probe::Probe;
use serde::Serialize;

use crate::{
    Error, Result,
    paths::{Assets, Dirs},
};

/// Space for images and unpacked disks that is worth starting with, in MiB.
const WANTED_SPACE_MIB: u64 = 2048;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// One thing that husk needs.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// What.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether husk can't run without it.
    pub required: bool,
    /// What was found.
    pub found: String,
    /// What to do, when it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that husk needs, as found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether a container can be run.
    pub usable: bool,
    /// Each thing by itself.
    pub items: Vec<Item>,
}

/// Looks at everything that husk needs.
pub fn check(dirs: &Dirs) -> Report {
    let assets = Assets::find(None);
    let items = vec![kvm(), guest_files(&assets), mke2fs(), disk_space(&dirs.data), cgroup2()];
    Report { usable: items.iter().all(|item| item.ok || !item.required), items }
}

impl Item {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, required: true, found: found.into(), remedy: None }
    }

    fn bad(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: false, required: true, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn optional(self) -> Self {
        Self { required: false, ..self }
    }
}

/// Whether this machine has a KVM that can be used.
pub fn kvm() -> Item {
    const NAME: &str = "KVM";
    match probe() {
        Ok(probe) if probe.usable => Item::good(NAME, probe.reason),
        Ok(probe) => Item::bad(NAME, probe.reason, probe.remedy),
        Err(error) => Item::bad(NAME, error.to_string(), "install husk completely"),
    }
}

/// The probe runs in the VMM's process: a KVM that misbehaves takes nothing of ours with it.
fn probe() -> Result<Probe> {
    let vmm = Assets::find_vmm()?;
    let output = Command::new(&vmm).arg("probe").output().map_err(|source| Error::Spawn {
        program: vmm.display().to_string(),
        hint: "install husk completely",
        source,
    })?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::InvalidOption(format!("{} probe printed no result: {error}", vmm.display())))
}

fn guest_files(assets: &Result<Assets>) -> Item {
    const NAME: &str = "guest kernel and initramfs";
    match assets {
        Ok(assets) => {
            Item::good(NAME, format!("{}, {}", assets.kernel.display(), assets.initramfs.display()))
        }
        Err(error) => {
            Item::bad(NAME, error.to_string(), "build them with `make build`, or install husk completely")
        }
    }
}

fn mke2fs() -> Item {
    const NAME: &str = "mke2fs";
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let found = path.split(':').map(|dir| Path::new(dir).join("mke2fs")).find(|file| file.is_file());
    match found {
        Some(file) => Item::good(NAME, file.display().to_string()),
        None => Item::bad(NAME, "not found", "install Debian's package e2fsprogs"),
    }
}

fn disk_space(data: &Path) -> Item {
    const NAME: &str = "disk space";
    let existing: PathBuf = data.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).into();
    match nix::sys::statvfs::statvfs(&existing) {
        Ok(fs) => {
            let free_mib = (fs.blocks_available() * fs.fragment_size()) >> 20;
            let found = format!("{free_mib} MiB free for {}", data.display());
            if free_mib >= WANTED_SPACE_MIB {
                Item::good(NAME, found)
            } else {
                Item::bad(NAME, found, format!("images need room: have {WANTED_SPACE_MIB} MiB free"))
                    .optional()
            }
        }
        Err(error) => Item::bad(NAME, format!("{}: {error}", existing.display()), "choose another --root"),
    }
}

fn cgroup2() -> Item {
    const NAME: &str = "cgroup v2";
    match nix::sys::statfs::statfs("/sys/fs/cgroup") {
        Ok(fs) if fs.filesystem_type().0 == CGROUP2_MAGIC => Item::good(NAME, "mounted on /sys/fs/cgroup"),
        _ => Item::bad(
            NAME,
            "not mounted on /sys/fs/cgroup",
            "boot the host with systemd.unified_cgroup_hierarchy=1 to account for VMs",
        )
        .optional(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_a_remedy() {
        let root = tempfile::tempdir().unwrap();
        let report = check(&Dirs::new(Some(root.path())));
        assert_eq!(report.usable, report.items.iter().all(|item| item.ok || !item.required));
        for item in &report.items {
            assert_eq!(item.ok, item.remedy.is_none(), "{item:?}");
        }
    }
}
