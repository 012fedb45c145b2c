//! Containers by containerd: husk and runc as its runtimes, told by the same `ctr`.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::process::{Running, timed};
use crate::{
    measure::{Round, Subject, measure},
    plan::Plan,
    result::Measurement,
};

/// The image in the archive.
const IMAGE: &str = "docker.io/library/busybox:latest";
const RUN: &str = "ctr run --rm: busybox true, start to exit";
const EXEC: &str = "ctr task exec: true in a running container";
const STOP: &str = "ctr task delete --force: a running container killed, and gone";
/// A container that runs until it is killed.
const IDLE: [&str; 2] = ["sleep", "1000000"];
/// How long containerd may take to answer, in seconds.
const START_TIMEOUT_S: u64 = 120;

/// Names and runtimes; what husk is compared with comes first.
const RUNTIMES: [(&str, &str); 2] = [("runc", "io.containerd.runc.v2"), (HUSK, "io.containerd.husk.v2")];
const HUSK: &str = "husk";

/// Measures all of it, and tells how many rounds were lost.
pub(super) fn measure_all(plan: &Plan, work: &Path) -> Result<(Vec<Measurement>, u32)> {
    let containerd = Containerd::start(plan, work)?;
    let mut subjects = Vec::new();
    for (name, runtime) in RUNTIMES {
        subjects.push(containerd.subject(RUN, ("run", name), move |ctr, id| {
            let mut command = ctr.ctr(&["run", "--rm", "--runtime", runtime, IMAGE, id, "true"]);
            Ok(timed(&mut command)?.0)
        }));
        subjects.push(containerd.subject(STOP, ("stop", name), move |ctr, id| {
            ctr.run_idle(runtime, id)?;
            let (ms, _) = timed(&mut ctr.ctr(&["task", "delete", "--force", id]))?;
            timed(&mut ctr.ctr(&["container", "delete", id]))?;
            Ok(ms)
        }));
    }
    let (mut all, mut lost) = measure(plan, plan.rounds, subjects)?;

    let mut subjects = Vec::new();
    for (name, runtime) in RUNTIMES {
        containerd.run_idle(runtime, name)?;
        subjects.push(containerd.subject(EXEC, ("exec", name), move |ctr, id| {
            Ok(timed(&mut ctr.ctr(&["task", "exec", "--exec-id", id, name, "true"]))?.0)
        }));
    }
    let (execs, again) = measure(plan, plan.rounds, subjects)?;
    all.extend(execs);
    lost += again;
    for (name, _) in RUNTIMES {
        timed(&mut containerd.ctr(&["task", "delete", "--force", name]))?;
    }
    all.sort_by_key(|measurement| [RUN, EXEC, STOP].iter().position(|group| *group == measurement.group));
    Ok((all, lost))
}

/// A containerd of our own, with all that it has in memory.
struct Containerd {
    socket: PathBuf,
    _daemon: Running,
}

impl Containerd {
    fn start(plan: &Plan, work: &Path) -> Result<Self> {
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
        let this = Self { _daemon: Running::start(&mut command)?, socket };
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

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(args).stdin(Stdio::null());
        command
    }

    fn run_idle(&self, runtime: &str, id: &str) -> Result<()> {
        let args = ["run", "--detach", "--runtime", runtime, IMAGE, id];
        // A shim keeps the standard streams that `ctr` was started with: nobody must wait for their end.
        let mut command = self.ctr(&[&args[..], &IDLE].concat());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "ctr run --detach failed ({status})");
        Ok(())
    }

    /// Something that is done again and again, each time with another id, and tells how long it took.
    fn subject<'a>(
        &'a self,
        group: &'static str,
        (what, name): (&str, &str),
        run: impl Fn(&Self, &str) -> Result<f64> + 'a,
    ) -> Subject<'a> {
        let id = format!("ctr-{what}-{name}");
        let (mut count, prefix) = (0_u32, format!("{what}-{name}"));
        let run = move || {
            count += 1;
            Ok(Round { total_ms: run(self, &format!("{prefix}-{count}"))?, ..Round::default() })
        };
        Subject { id, group, label: name.into(), own: name == HUSK, run: Box::new(run) }
    }
}

/// Copies husk into memory; returns the directory of its programs.
fn install(plan: &Plan, prefix: &Path) -> Result<PathBuf> {
    let files = &plan.files;
    for (from, dir) in [
        (&files.shim, "bin"),
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
