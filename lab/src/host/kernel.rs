//! The machine's kernel: Debian's generic one, unpacked into the cache and never installed.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{
    bzimage,
    cache::{self, Cache, succeed},
};

/// The package that depends on the current kernel's package. (The cloud kernel has no 9p.)
const META_PACKAGE: &str = "linux-image-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` will say.
    pub(crate) version: String,
    /// Holds `vmlinux` and `lib/modules/`.
    pub(crate) dir: PathBuf,
}

impl Kernel {
    /// The uncompressed kernel.
    pub(crate) fn image(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// What belongs at `/lib/modules/VERSION`.
    pub(crate) fn modules(&self) -> PathBuf {
        self.dir.join("lib/modules").join(&self.version)
    }

    /// The files to load for these modules, each after what it depends on; those built into the kernel left out.
    pub(crate) fn load_order(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let dir = self.modules();
        let read = |name| fs::read_to_string(dir.join(name)).with_context(|| format!("cannot read {name}"));
        let order = load_order(&read("modules.dep")?, &read("modules.builtin")?, names)?;
        Ok(order.into_iter().map(|path| dir.join(path)).collect())
    }
}

/// Resolves module names against the text of modules.dep ("path: dependency dependency ...", the deepest last).
fn load_order(modules_dep: &str, modules_builtin: &str, names: &[&str]) -> Result<Vec<String>> {
    let depends: BTreeMap<String, (&str, &str)> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, rest)| (module_name(path), (path, rest)))
        .collect();
    let built_in: HashSet<String> = modules_builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let name = module_name(name);
        if built_in.contains(&name) {
            continue;
        }
        let Some((path, rest)) = depends.get(&name) else {
            bail!("the kernel has no module {name}");
        };
        for path in rest.split_whitespace().rev().chain([*path]) {
            if !order.iter().any(|known| known == path) {
                order.push(path.to_owned());
            }
        }
    }
    Ok(order)
}

/// `kernel/fs/9p/9p.ko` is `9p`; dash and underscore are the same.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The cached kernel; fetched first when there is none.
pub(crate) fn ensure(cache: &Cache) -> Result<Kernel> {
    cache.ensure(cached, |cache| fetch(cache).context("cannot set up the lab's kernel"))
}

/// The link `current` names the version to use; it is made last.
fn cached(cache: &Path) -> Option<Kernel> {
    let version = fs::read_link(cache.join("current")).ok()?.to_str()?.to_owned();
    let kernel = Kernel { dir: cache.join(&version), version };
    kernel.image().is_file().then_some(kernel)
}

fn fetch(cache: &Path) -> Result<Kernel> {
    cache::need(&["apt-get", "apt-cache", "dpkg", "depmod", "xz"], "packages apt, dpkg, kmod and xz-utils")?;
    let package = newest_package()?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    let work = cache.join("new");
    cache::fresh_dir(&work)?;
    eprintln!("husk-lab: [1/3] downloading {package} from Debian (about 70 MB, once)");
    // As root, apt would otherwise download as a user who may not write here.
    succeed(
        Command::new("apt-get")
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download", &package])
            .current_dir(&work),
    )
    .context("the download failed; if apt's lists are old, run `apt-get update`")?;
    eprintln!("husk-lab: [2/3] unpacking it");
    unpack(&work, &version)?;
    eprintln!("husk-lab: [3/3] indexing its modules");
    succeed(Command::new("depmod").arg("-b").arg(&work).arg(&version))?;

    let dir = cache.join(&version);
    if dir.exists() {
        fs::remove_dir_all(&dir).context("cannot remove an unfinished kernel")?;
    }
    fs::rename(&work, &dir).context("cannot move the kernel into its place")?;
    let current = cache.join("current");
    if current.is_symlink() {
        fs::remove_file(&current).context("cannot replace the link to the current kernel")?;
    }
    symlink(&version, &current).context("cannot mark the kernel as current")?;
    Ok(Kernel { version, dir })
}

/// Makes of the package in this folder what a [`Kernel`] needs.
fn unpack(work: &Path, version: &str) -> Result<()> {
    let package = fs::read_dir(work)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded nothing")?;
    succeed(Command::new("dpkg").arg("-x").arg(&package).arg(work))?;
    fs::remove_file(&package)?;
    let compressed =
        fs::read(work.join(format!("boot/vmlinuz-{version}"))).context("the package has no kernel")?;
    bzimage::extract(&compressed, &work.join("vmlinux")).context("cannot unpack the kernel")?;
    fs::remove_dir_all(work.join("boot"))?;
    if !work.join("lib").exists() {
        symlink("usr/lib", work.join("lib"))?;
    }
    // Compressed modules (Debian 13) are unpacked once here, not at every start.
    let modules = work.join("lib/modules").join(version);
    succeed(Command::new("find").arg(modules).args(["-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"]))
}

fn newest_package() -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", "--important", META_PACKAGE]).output()?;
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-") && *word != META_PACKAGE)
        .map(str::to_owned)
        .with_context(|| format!("apt knows no package {META_PACKAGE}; run `apt-get update` first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/a/virtio_pci.ko: kernel/a/virtio_ring.ko kernel/a/virtio.ko\n\
        kernel/a/virtio_ring.ko:\n\
        kernel/a/virtio.ko: kernel/a/virtio_ring.ko\n\
        kernel/b/kvm-amd.ko.xz: kernel/b/kvm.ko kernel/c/ccp.ko\n\
        kernel/b/kvm.ko:\n\
        kernel/c/ccp.ko:\n";

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(DEP, "", &["virtio", "virtio_pci", "kvm_amd"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/a/virtio_ring.ko",
                "kernel/a/virtio.ko",
                "kernel/a/virtio_pci.ko",
                "kernel/c/ccp.ko",
                "kernel/b/kvm.ko",
                "kernel/b/kvm-amd.ko.xz"
            ]
        );
    }

    #[test]
    fn built_in_needs_no_file_and_unknown_is_named() {
        let built_in = "kernel/fs/ext4/ext4.ko\n";
        assert_eq!(load_order(DEP, built_in, &["ext4", "kvm"]).unwrap(), ["kernel/b/kvm.ko"]);
        let error = load_order(DEP, built_in, &["no-such"]).unwrap_err();
        assert!(error.to_string().contains("no_such"), "{error}");
    }
}
