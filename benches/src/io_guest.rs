//! The guest of the I/O suite: a small Debian with fio and iperf3, built once into the cache.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};

use crate::tree::{Tree, output, succeed, tool};

const PACKAGES: &str = "fio,iperf3,iproute2,iputils-ping,mawk";
const SIZE: &str = "800M";

/// A fresh copy of its disk, with this tree's scripts in it.
pub(crate) fn build(tree: &Tree) -> Result<PathBuf> {
    let cached = debian()?;
    tree.guest("reboot")?;
    let disk = tree.path("build/bench/root.img");
    succeed(tool("cp").arg("--sparse=always").arg(&cached).arg(&disk))?;
    for (file, name) in [
        ("benches/guest/io.sh", "io.sh"),
        ("benches/guest/io.fio", "io.fio"),
        ("build/bench/reboot", "reboot"),
    ] {
        put(&disk, &tree.path(file), &format!("/bench/{name}"))?;
    }
    Ok(disk)
}

fn debian() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("HUSK_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("husk")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/husk")))
        .context("neither HUSK_CACHE nor HOME is set, so there is no place for the cache")?
        .join("bench");
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    let image = cache.join(format!("{suite}-{}.img", PACKAGES.replace(',', "-")));
    if image.is_file() {
        return Ok(image);
    }
    eprintln!("building the guest that disk and network are measured in (once, some minutes)");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let work = tempfile::tempdir_in(&cache)?;
    let (archive, root, disk) =
        (work.path().join("root.tar"), work.path().join("root"), work.path().join("disk"));
    let include = format!("--include={PACKAGES}");
    succeed(tool("mmdebstrap").args(["--variant=minbase", &include, suite]).arg(&archive))?;
    fs::create_dir_all(root.join("bench"))?;
    succeed(tool("tar").arg("-C").arg(&root).arg("--exclude=./dev/*").arg("-xf").arg(&archive))?;
    succeed(tool("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&disk).arg(SIZE))?;
    fs::rename(&disk, &image)?;
    Ok(image)
}

/// Writes a file into an ext4, without mounting it.
fn put(disk: &Path, file: &Path, name: &str) -> Result<()> {
    let mut debugfs = tool("debugfs")
        .args(["-w", "-f", "-"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run debugfs")?;
    let mut input = debugfs.stdin.take().context("debugfs takes no commands")?;
    write!(input, "write {} {name}\nset_inode_field {name} mode 0100755\n", file.display())?;
    drop(input);
    ensure!(debugfs.wait()?.success(), "debugfs failed on {}", disk.display());
    let listed = output(tool("debugfs").args(["-R", &format!("stat {name}")]).arg(disk))?;
    ensure!(listed.contains("regular"), "{name} could not be written into {}", disk.display());
    Ok(())
}
