//! The QEMU that emulates the machine: the installed one if it is new enough, else one of a newer Debian, unpacked into the
//! cache and never installed.
//!
//! Nested virtualization in QEMU's software emulation was not reliable before version 10: of a machine's guests, one in some
//! hundreds ended with a triple fault, and every few minutes its own kernel crashed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::cache::{self, Cache};

const PROGRAM: &str = "qemu-system-x86_64";
const OLDEST: u32 = 10;
/// The first of Debian's releases that has it.
const SUITE: &str = "trixie";
const PACKAGES: &str = "qemu-system-x86,seabios";

/// A QEMU that can be run.
#[derive(Debug)]
pub(crate) enum Emulator {
    /// The one in PATH.
    Installed,
    /// One in a directory of its own, with the libraries that it needs.
    Unpacked(PathBuf),
}

impl Emulator {
    /// The start of a command line that runs it.
    pub(crate) fn command(&self) -> Command {
        let Self::Unpacked(dir) = self else { return Command::new(PROGRAM) };
        let usr = dir.join("usr");
        let libraries = usr.join("lib/x86_64-linux-gnu");
        let mut command = Command::new(usr.join("lib64/ld-linux-x86-64.so.2"));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        command.arg("--library-path").arg(&libraries).arg(usr.join("bin").join(PROGRAM));
        for firmware in ["share/qemu", "share/seabios"] {
            command.arg("-L").arg(usr.join(firmware));
        }
        command
    }

    /// As it says itself: `10.0.13`.
    pub(crate) fn version(&self) -> Result<Option<String>> {
        let output = match self.command().arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot run {PROGRAM}")),
        };
        if !output.status.success() {
            bail!("{PROGRAM} --version failed ({})", output.status);
        }
        Ok(version(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned))
    }
}

/// The emulator; fetched first when there is none.
pub(crate) fn ensure(cache: &Cache) -> Result<Emulator> {
    let installed = Emulator::Installed.version()?;
    if installed.as_deref().and_then(major).is_some_and(|major| major >= OLDEST) {
        return Ok(Emulator::Installed);
    }
    cache.ensure(unpacked, fetch).with_context(|| {
        let have = installed.map_or("none is installed".into(), |have| format!("{have} is installed"));
        format!("cannot set up the lab's emulator (QEMU {OLDEST} or newer; {have})")
    })
}

fn unpacked(cache: &Path) -> Option<Emulator> {
    let dir = cache.join(format!("qemu-{SUITE}"));
    dir.is_dir().then_some(Emulator::Unpacked(dir))
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
    let emulator = Emulator::Unpacked(work.clone());
    let version = emulator.version()?;
    let version = version.with_context(|| format!("Debian {SUITE}'s packages have no {PROGRAM}"))?;
    eprintln!("husk-lab: QEMU {version} is ready");
    let dir = cache.join(format!("qemu-{SUITE}"));
    fs::rename(&work, &dir).context("cannot move the emulator into its place")?;
    Ok(Emulator::Unpacked(dir))
}

/// The version in what `--version` prints: "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)".
fn version(text: &str) -> Option<&str> {
    text.lines().next()?.split_once("version ")?.1.split_whitespace().next()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let text =
            "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022\n";
        assert_eq!(version(text), Some("7.2.22"));
        assert_eq!(version(text).and_then(major), Some(7));
        assert_eq!(version("10.0.2"), None);
        assert_eq!(major("next"), None);
    }
}
