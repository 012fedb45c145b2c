//! The QEMU that emulates the machine: that of a Debian release, whatever is installed, unpacked into the cache and
//! [repaired](super::repair).
//!
//! Nested virtualization in QEMU's software emulation was not reliable before version 10: of a machine's guests, one in some
//! hundreds ended with a triple fault, and every few minutes its own kernel crashed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    cache::{self, Cache},
    repair::repair,
};

const PROGRAM: &str = "qemu-system-x86_64";
/// The first of Debian's releases that has QEMU 10.
const SUITE: &str = "trixie";
/// Where it is in the cache.
const DIR: &str = "qemu-trixie-repaired";
const PACKAGES: &str = "qemu-system-x86,seabios";

/// A QEMU in a directory of its own, with the libraries that it needs.
#[derive(Debug)]
pub(crate) struct Emulator(PathBuf);

impl Emulator {
    fn program(&self) -> PathBuf {
        self.0.join("usr/bin").join(PROGRAM)
    }

    /// The start of a command line that runs it.
    pub(crate) fn command(&self) -> Command {
        let usr = self.0.join("usr");
        let libraries = usr.join("lib/x86_64-linux-gnu");
        let mut command = Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command.arg("--library-path").arg(&libraries).arg(self.program());
        for firmware in ["share/qemu", "share/seabios"] {
            command.arg("-L").arg(usr.join(firmware));
        }
        command
    }

    /// As it says itself: `10.0.13`.
    pub(crate) fn version(&self) -> Result<String> {
        let output = self.command().arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {PROGRAM}"))?;
        ensure!(output.status.success(), "{PROGRAM} --version failed ({})", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        version(&text).map(str::to_owned).with_context(|| format!("{PROGRAM} has no version: {text}"))
    }
}

/// The emulator; fetched first when there is none.
pub(crate) fn ensure(cache: &Cache) -> Result<Emulator> {
    cache.ensure(unpacked, fetch).context("cannot set up the lab's emulator")
}

fn unpacked(cache: &Path) -> Option<Emulator> {
    let dir = cache.join(DIR);
    dir.is_dir().then_some(Emulator(dir))
}

fn fetch(cache: &Path) -> Result<Emulator> {
    cache::need(&["mmdebstrap", "tar"], "packages mmdebstrap and tar")?;
    eprintln!("husk-lab: fetching QEMU of Debian {SUITE} (about 60 MB, once)");
    let (work, archive) = (cache.join("new-qemu"), cache.join("new-qemu.tar"));
    cache::fresh_dir(&work)?;
    cache::succeed(
        Command::new("mmdebstrap")
            .args(["--quiet", "--variant=extract", "--format=tar", "--include", PACKAGES, SUITE])
            .arg(&archive),
    )
    .context("the download failed")?;
    cache::succeed(
        Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&work).args(["--no-same-owner", "./usr"]),
    )?;
    fs::remove_file(&archive).context("cannot remove what was downloaded")?;
    let emulator = Emulator(work.clone());
    let version = emulator.version()?;
    let program = emulator.program();
    let mut bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    if repair(&mut bytes) {
        fs::write(&program, bytes).with_context(|| format!("cannot write {}", program.display()))?;
    } else {
        eprintln!("husk-lab: QEMU {version} is not one that can be repaired: guests will stop now and then");
    }
    eprintln!("husk-lab: QEMU {version} is ready");
    let dir = cache.join(DIR);
    fs::rename(&work, &dir).context("cannot move the emulator into its place")?;
    Ok(Emulator(dir))
}

/// The version in what `--version` prints: "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)".
fn version(text: &str) -> Option<&str> {
    text.lines().next()?.split_once("version ")?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let text =
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n";
        assert_eq!(version(text), Some("7.2.22"));
        assert_eq!(version("10.0.2"), None);
    }
}
