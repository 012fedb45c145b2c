//! Where things are in husk's source tree.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The source tree that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    root: PathBuf,
    bin: PathBuf,
}

impl Tree {
    /// The tree around the working directory; its binaries are in `bin`, else in `target/release`.
    pub(crate) fn find(bin: Option<&Path>) -> Result<Self> {
        let here = env::current_dir().context("cannot tell the working directory")?;
        let root = here
            .ancestors()
            .find(|dir| dir.join("benches/guest").is_dir() && dir.join("guest-image").is_dir())
            .context("this is not husk's source tree; change into it first")?
            .to_path_buf();
        let bin = match bin {
            Some(bin) => bin.canonicalize().with_context(|| format!("cannot find {}", bin.display()))?,
            None => root.join("target/release"),
        };
        let tree = Self { root, bin };
        for file in ["husk", "husk-vmm", "husk-fs", "husk-supervisor", "husk-lab"]
            .map(|name| tree.bin(name))
            .into_iter()
            .chain([tree.path("build/guest/vmlinux"), tree.path("build/guest/initramfs.cpio")])
        {
            ensure!(file.is_file(), "{} is missing: run `make build` first", file.display());
        }
        ensure!(
            tree.path("build/images/layout").is_dir(),
            "build/images is missing: run `make images` first"
        );
        Ok(tree)
    }

    /// One of husk's binaries.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A file or directory of the tree.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Builds a program of `benches/guest`. One in assembly has no library.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path("build/bench");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let program = dir.join(name);
        let mut compiler = Command::new("gcc");
        compiler.args(["-O2", "-static", "-o"]).arg(&program);
        let assembly = self.path(&format!("benches/guest/{name}.S"));
        if assembly.exists() {
            compiler.arg("-nostdlib").arg(assembly);
        } else {
            compiler.arg(self.path(&format!("benches/guest/{name}.c")));
        }
        succeed(&mut compiler)?;
        Ok(program)
    }

    /// Builds a program of `benches/guest` and makes it the init of an initramfs, whose path is returned.
    pub(crate) fn guest(&self, name: &str) -> Result<PathBuf> {
        let program = self.program(name)?;
        let initramfs = program.with_extension("cpio");
        succeed(Command::new(self.path("guest-image/build-initramfs.sh")).arg(&program).arg(&initramfs))?;
        Ok(initramfs)
    }
}

/// A tool, which may be one of those that only root's PATH has.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()));
    command
}

/// Runs a tool to its end, and shows what it said only when it failed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a tool and returns its output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot run {name}"))?;
    ensure!(
        done.status.success(),
        "{name} failed ({}): {}",
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
