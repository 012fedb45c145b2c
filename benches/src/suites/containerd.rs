//! A containerd that has husk among its runtimes, and nothing on disk.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::process::{Running, timed};
use crate::plan::Plan;

/// How long containerd may take to answer, in seconds.
const START_TIMEOUT_S: u64 = 120;

/// A containerd of our own, with all that it has in memory.
pub(super) struct Containerd {
    husk: PathBuf,
    socket: PathBuf,
    _daemon: Running,
}

impl Containerd {
    pub(super) fn start(plan: &Plan, work: &Path) -> Result<Self> {
        let installed = install(plan, &work.join("installed"))?;
        let program = plan.peers.containerd.as_ref().context("there is no containerd")?;
        let (config, socket, log) =
            (work.join("containerd.toml"), work.join("containerd.sock"), work.join("containerd.log"));
        let text = format!(
            "version = 2\nroot = '{}'\nstate = '{}'\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n\
             [grpc]\naddress = '{}'\n",
            work.join("root").display(),
            work.join("state").display(),
            socket.display()
        );
        fs::write(&config, text)?;
        let log_file = File::create(&log)?;
        // It looks for runtimes there, too.
        let path = format!("{}:{}", installed.display(), env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        command.arg("--config").arg(&config).env("PATH", path);
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let this = Self { husk: installed.join("husk"), _daemon: Running::start(&mut command)?, socket };
        let started = Instant::now();
        while timed(&mut this.ctr(&["version"])).is_err() {
            ensure!(
                started.elapsed().as_secs() < START_TIMEOUT_S,
                "containerd does not answer: {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
        let archive = plan.files.archive.to_str().context("the archive's path is no text")?;
        timed(&mut this.ctr(&["image", "import", archive]))?;
        Ok(this)
    }

    /// `husk` itself.
    pub(super) fn husk(&self) -> Command {
        Command::new(&self.husk)
    }

    pub(super) fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(args).stdin(Stdio::null());
        command
    }
}

/// Copies husk into memory; returns the directory of its programs.
fn install(plan: &Plan, prefix: &Path) -> Result<PathBuf> {
    let files = &plan.files;
    for (from, dir) in [
        (&files.shim, "bin"),
        (&files.husk, "bin"),
        (&files.vmm, "libexec/husk"),
        (&files.filesystem, "libexec/husk"),
        (&files.kernel, "share/husk"),
        (&files.initramfs, "share/husk"),
    ] {
        let dir = prefix.join(dir);
        fs::create_dir_all(&dir)?;
        let to = dir.join(from.file_name().context("a file has no name")?);
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(prefix.join("bin"))
}
