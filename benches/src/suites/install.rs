//! Copies of all that is measured, in a directory of their own: in the lab that is in memory, and its file sharing is not
//! measured.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    layout,
    plan::{Plan, Suite},
    tree::succeed,
};

/// The image that containers are started from.
pub(crate) const IMAGE: &str = "busybox:latest";
/// Turns of the loop by which the slow VMM's start is put off. One takes dash about 11,000 instructions.
const SLOW_TURNS: u32 = 900;

/// Where the copies are.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) work: PathBuf,
    pub(crate) husk: PathBuf,
    /// As `husk`, with a VMM that starts some milliseconds late; the gate proves itself by it.
    pub(crate) slow_husk: Option<PathBuf>,
    pub(crate) vmm: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) mark: PathBuf,
    pub(crate) reboot: PathBuf,
    /// husk's state.
    pub(crate) state: PathBuf,
    /// The image's files.
    pub(crate) root: PathBuf,
}

impl Installed {
    pub(crate) fn new(plan: &Plan, work: &Path) -> Result<Self> {
        let files = &plan.files;
        let prefix = work.join("installed");
        let copy = |from: &Path, to: PathBuf| -> Result<PathBuf> {
            if let Some(dir) = to.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::copy(from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
            Ok(to)
        };
        let husk = copy(&files.husk, prefix.join("bin/husk"))?;
        let vmm = copy(&files.vmm, prefix.join("libexec/husk/husk-vmm"))?;
        copy(&files.filesystem, prefix.join("libexec/husk/husk-fs"))?;
        copy(&files.supervisor, prefix.join("libexec/husk/husk-supervisor"))?;
        let kernel = copy(&files.kernel, prefix.join("share/husk/vmlinux"))?;
        copy(&files.initramfs, prefix.join("share/husk/initramfs.cpio"))?;
        let installed = Self {
            slow_husk: (plan.suite == Suite::Gate).then(|| slow(&prefix, &work.join("slow"))).transpose()?,
            mark: copy(&files.mark, work.join("mark.cpio"))?,
            reboot: copy(&files.reboot, work.join("reboot.cpio"))?,
            state: work.join("state"),
            root: work.join("root"),
            work: work.to_path_buf(),
            husk,
            vmm,
            kernel,
        };
        // The VMM's user reaches kernel and initramfs by descriptor, QEMU's needs none; nobody else comes in.
        let image = work.join("image");
        layout::copy_image(&files.images, IMAGE, &image)?;
        layout::unpack(&image, &installed.root)?;
        succeed(installed.husk().arg("load").arg("--input").arg(&image))?;
        Ok(installed)
    }

    /// husk, with its own state.
    pub(crate) fn husk(&self) -> Command {
        self.husk_at(&self.husk)
    }

    /// Another husk, with the same state.
    pub(crate) fn husk_at(&self, husk: &Path) -> Command {
        let mut command = Command::new(husk);
        command.env("HUSK_ROOT", &self.state);
        command
    }
}

/// Another installation of the same files, whose VMM is started late.
fn slow(prefix: &Path, to: &Path) -> Result<PathBuf> {
    let vmm = "libexec/husk/husk-vmm";
    for file in [
        "bin/husk",
        "libexec/husk/husk-fs",
        "libexec/husk/husk-supervisor",
        "share/husk/vmlinux",
        "share/husk/initramfs.cpio",
    ] {
        let copy = to.join(file);
        fs::create_dir_all(copy.parent().context("a file has no directory")?)?;
        fs::hard_link(prefix.join(file), copy)?;
    }
    let script = format!(
        "#!/bin/sh\ni=0\nwhile [ $i -lt {SLOW_TURNS} ]; do i=$((i + 1)); done\nexec {} \"$@\"\n",
        prefix.join(vmm).display()
    );
    fs::write(to.join(vmm), script)?;
    fs::set_permissions(to.join(vmm), fs::Permissions::from_mode(0o755))?;
    Ok(to.join("bin/husk"))
}
