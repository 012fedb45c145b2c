//! The machine's initramfs: this very program as `/init`, the libraries it is running with, and the modules needed to
//! reach the root file system.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{cpio::Archive, kernel::Kernel};

/// Needed always, in the order of loading; each one's dependencies are found in modules.dep.
const MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "kvm-amd"];
/// Needed for the scratch disk.
const DISK_MODULES: &[&str] = &["virtio_blk", "crc32c_generic", "ext4"];

/// Writes the archive.
pub(crate) fn build(kernel: &Kernel, with_disk: bool) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut made = BTreeSet::new();
    for dir in ["dev", "lib64", "modules", "newroot", "proc"] {
        add_directory(&mut archive, &mut made, Path::new(dir));
    }
    archive.character_device("dev/console", (5, 1));

    let itself = fs::read("/proc/self/exe").context("cannot read the program itself")?;
    archive.file("init", &itself);
    let maps = fs::read_to_string("/proc/self/maps").context("cannot list the program's own libraries")?;
    let itself = fs::read_link("/proc/self/exe").context("cannot read the program's own name")?;
    for library in libraries(&maps, &itself) {
        add_library(&mut archive, &mut made, &library)?;
    }

    let extra = if with_disk { DISK_MODULES } else { &[] };
    for (number, module) in kernel.load_order(&[MODULES, extra].concat())?.iter().enumerate() {
        let data = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("modules/{number:03}-{name}"), &data);
    }
    Ok(archive.finish())
}

/// The shared objects in a listing like /proc/self/maps, the program itself apart.
fn libraries(maps: &str, itself: &Path) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| PathBuf::from(&line[start..])))
        .filter(|path| path != itself && path.to_string_lossy().contains(".so"))
        .collect()
}

fn add_library(archive: &mut Archive, made: &mut BTreeSet<PathBuf>, path: &Path) -> Result<()> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with("ld-linux") || name.starts_with("ld-2") {
        // The one path that is fixed: it stands in the program's header (x86-64 psABI).
        archive.file("lib64/ld-linux-x86-64.so.2", &data);
        return Ok(());
    }
    let inside = path.strip_prefix("/").unwrap_or(path);
    if let Some(parent) = inside.parent() {
        add_directory(archive, made, parent);
    }
    archive.file(&inside.to_string_lossy(), &data);
    Ok(())
}

fn add_directory(archive: &mut Archive, made: &mut BTreeSet<PathBuf>, dir: &Path) {
    let missing: Vec<&Path> =
        dir.ancestors().filter(|dir| !dir.as_os_str().is_empty() && !made.contains(*dir)).collect();
    for dir in missing.into_iter().rev() {
        archive.directory(&dir.to_string_lossy());
        made.insert(dir.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_from_other_mappings() {
        let maps = "\
            55-56 r-xp 00000000 fe:00 123  /b/husk-lab.so\n\
            57-58 rw-p 00000000 00:00 0    [heap]\n\
            60-61 r--p 00000000 fe:00 124  /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            61-62 r-xp 00000000 fe:00 124  /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            63-64 r--p 00000000 fe:00 125  /usr/lib/locale/locale-archive\n\
            65-66 rw-p 00000000 00:00 0\n\
            67-68 r-xp 00000000 fe:00 126  /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2\n";
        let found = libraries(maps, Path::new("/b/husk-lab.so"));
        let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            found,
            ["/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/usr/lib/x86_64-linux-gnu/libc.so.6"]
        );
    }
}
