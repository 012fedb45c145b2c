//! A root file system with Debian's fio and iperf3, for the guest in which disk and network are measured.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::tree::{Tree, output, succeed, tool};

const PACKAGES: &str = "fio,iperf3,iproute2,iputils-ping,mawk";
const SIZE: &str = "800M";

/// An ext4 image with the packages, from the cache, and with what the guest is to do.
pub(crate) fn build(tree: &Tree) -> Result<PathBuf> {
    let cached = cached()?;
    let program = tree.program("reboot")?;
    let image = tree.path("build/bench/root.img");
    succeed(Command::new("cp").arg("--sparse=always").arg(&cached).arg(&image))?;
    for file in [tree.path("benches/guest/io.sh"), tree.path("benches/guest/io.fio"), program] {
        let name = file.file_name().context("a file has no name")?.to_string_lossy().into_owned();
        for request in [
            format!("write {} /bench/{name}", file.display()),
            format!("set_inode_field /bench/{name} mode 0100755"),
        ] {
            succeed(tool("debugfs").args(["-w", "-R", &request]).arg(&image))?;
        }
    }
    Ok(image)
}

/// The image without the project's own files, made once.
fn cached() -> Result<PathBuf> {
    let dir = cache_dir()?.join("bench");
    let suite =
        output(Command::new("sh").args(["-c", ". /etc/os-release && echo \"${VERSION_CODENAME:-stable}\""]))?;
    let suite = suite.trim();
    let image = dir.join(format!("{suite}-{}.img", PACKAGES.replace(',', "-")));
    if image.is_file() {
        return Ok(image);
    }
    eprintln!("making a root file system of Debian {suite} with fio and iperf3 (once, some minutes)");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let work = tempfile::tempdir_in(&dir).context("cannot make a directory to work in")?;
    let (tar, root, made) =
        (work.path().join("root.tar"), work.path().join("root"), work.path().join("root.img"));
    let include = format!("--include={PACKAGES}");
    succeed(tool("mmdebstrap").args(["--quiet", "--variant=minbase", &include, suite]).arg(&tar))?;
    fs::create_dir_all(root.join("bench"))?;
    succeed(Command::new("tar").arg("-C").arg(&root).arg("--exclude=./dev/*").arg("-xf").arg(&tar))?;
    succeed(tool("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&made).arg(SIZE))?;
    fs::rename(&made, &image).with_context(|| format!("cannot keep {}", image.display()))?;
    Ok(image)
}

/// As the scripts have it.
fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("HUSK_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("husk")))
        .or_else(|| from("HOME").map(|home| Path::new(&home).join(".cache/husk")))
        .context("neither HUSK_CACHE nor HOME is set")
}
