//! Containers of a prepared image: husk beside runtimes that have runc's command line.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::json;

use super::{
    exits::{CPU_RUN_MS, cpu_times, ended_cpu_ms, exits},
    install::{IMAGE, Installed},
    process::{Running, timed},
};
use crate::{
    measure::{Round, Subject, ms_between, now_ns},
    plan::{Plan, Suite},
};

/// What the slowed one is called in the results.
pub(crate) const SLOWED: &str = "run-none-slowed";
const RUN: &str = "A container from start to exit: busybox true";
const STOP: &str = "A container that is told to end: busybox sh";
/// A process that says when it runs, and ends when it is told to.
const SCRIPT: &str = "trap 'exit 0' TERM; sleep 1000 & echo ready; wait";

/// All that is there.
pub(crate) fn subjects<'a>(plan: &'a Plan, installed: &'a Installed) -> Result<Vec<Subject<'a>>> {
    let husk = &installed.husk;
    let mut subjects = vec![
        run(installed, husk, "run-none", "husk run", "none"),
        run(installed, husk, "run-default", "husk run, with a network", "default"),
    ];
    let mut runtimes = Vec::new();
    for program in &plan.peers.oci_runtimes {
        runtimes.push(Runtime::new(program, installed)?);
    }
    subjects.extend(runtimes.iter().cloned().map(Runtime::run));
    if plan.suite == Suite::Gate {
        return Ok(subjects);
    }
    subjects.push(stop(installed));
    subjects.extend(runtimes.into_iter().map(Runtime::stop));
    Ok(subjects)
}

/// A start whose VMM is put off, where there is one.
pub(crate) fn slowed(installed: &Installed) -> Option<Subject<'_>> {
    let slow = installed.slow_husk.as_ref()?;
    Some(run(installed, slow, SLOWED, "husk run, its VMM slowed", "none"))
}

/// A row of `husk run --timings=json`.
#[derive(Debug, Deserialize)]
struct Row {
    stage: String,
    at_ms: f64,
    step_ms: f64,
}

/// The stages of a run that took `total_ms`, from what husk said. What it can't know is a stage of its own at the end: the
/// process's making before its main began, and its end after the last line.
pub(super) fn stages(stderr: &[u8], total_ms: f64) -> Result<Vec<(String, f64)>> {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rev().find(|line| line.starts_with('[')).context("husk printed no timings")?;
    let rows: Vec<Row> = serde_json::from_str(line).context("husk's timings are not as expected")?;
    let mut stages: Vec<(String, f64)> =
        rows.iter().skip(1).map(|row| (in_words(&row.stage), row.step_ms)).collect();
    let known = rows.last().context("husk's timings are empty")?.at_ms;
    stages.push(("husk itself".into(), total_ms - known));
    Ok(stages)
}

/// A stage as `husk run --timings` has it in its table.
fn in_words(stage: &str) -> String {
    match stage {
        "planned" => "image and disks ready".into(),
        "vmm_configured" => "VMM configured".into(),
        "first_instruction" => "first guest instruction".into(),
        "init" => "kernel handed to init".into(),
        "created" => "container created".into(),
        "started" => "container started".into(),
        "exited" => "process ended".into(),
        "cleaned_up" => "everything cleaned up".into(),
        other => other.replace('_', " "),
    }
}

fn run<'a>(installed: &'a Installed, husk: &'a Path, id: &str, label: &str, network: &'a str) -> Subject<'a> {
    let mut command = installed.husk_at(husk);
    command.args(["run", "--rm", "--timings=json", "--network", network, IMAGE, "true"]).stdin(Stdio::null());
    let run = move || {
        let (total_ms, output) = timed(&mut command)?;
        Ok(Round { total_ms, stages: stages(&output.stderr, total_ms)?, ..Round::default() })
    };
    Subject { id: id.into(), group: RUN, label: label.into(), own: true, run: Box::new(run) }
}

fn stop(installed: &Installed) -> Subject<'_> {
    let mut command = installed.husk();
    command.args(["run", "--rm", "--network", "none", IMAGE, "sh", "-c", SCRIPT]);
    let count = |husk| Ok([cpu_times(husk)?, exits()].concat());
    let run = move || told_to_end(&mut command, count, |husk| husk.signal(Signal::SIGTERM));
    Subject {
        id: "stop".into(),
        group: STOP,
        label: "husk run, by SIGTERM".into(),
        own: true,
        run: Box::new(run),
    }
}

/// Starts a container with [`SCRIPT`], counts when it runs, tells it to end, and waits for that.
fn told_to_end(
    command: &mut Command,
    count: impl FnOnce(u32) -> Result<Vec<(String, f64)>>,
    tell: impl FnOnce(&Running) -> Result<()>,
) -> Result<Round> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = now_ns();
    let mut container = Running::start(command)?;
    let mut line = String::new();
    BufReader::new(container.child().stdout.take().context("no standard output")?).read_line(&mut line)?;
    let ready = now_ns();
    ensure!(line == "ready\n", "the container said {line:?}");
    let counts = count(container.id())?;
    let told = now_ns();
    tell(&container)?;
    container.wait()?;
    let stages = vec![
        ("first output".to_owned(), ms_between(start, ready)),
        ("told to end, and gone".to_owned(), ms_between(told, now_ns())),
    ];
    Ok(Round { total_ms: stages.iter().map(|(_, ms)| ms).sum(), stages, counts })
}

/// A program with runc's command line.
#[derive(Debug, Clone)]
struct Runtime {
    name: String,
    program: PathBuf,
    bundle: PathBuf,
}

impl Runtime {
    fn new(program: &Path, installed: &Installed) -> Result<Self> {
        let name = program.file_name().context("a runtime has no name")?.to_string_lossy().into_owned();
        let this = Self { name, program: program.into(), bundle: installed.work.clone() };
        this.write_bundle("run", &["true"], &installed.root)?;
        this.write_bundle("stop", &["sh", "-c", SCRIPT], &installed.root)?;
        Ok(this)
    }

    fn dir(&self, what: &str) -> PathBuf {
        self.bundle.join(format!("bundle-{what}"))
    }

    /// What `runc spec` gives, without a terminal, and with namespaces, mounts and masks as husk's containers have them.
    fn write_bundle(&self, what: &str, args: &[&str], root: &Path) -> Result<()> {
        let caps = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_NET_BIND_SERVICE",
            "CAP_SETUID",
            "CAP_SETGID",
        ];
        let mount = |to: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": source, "options": options});
        let namespaces =
            ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "noNewPrivileges": true,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            },
            "root": {"path": root, "readonly": false},
            "hostname": "bench",
            "mounts": [
                mount("/proc", "proc", "proc", &[]),
                mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
            ],
            "linux": {
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
                "namespaces": namespaces,
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        });
        fs::create_dir_all(self.dir(what))?;
        fs::write(self.dir(what).join("config.json"), config.to_string())?;
        Ok(())
    }

    fn command(&self, what: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--bundle").arg(self.dir(what)).arg(self.container()).stdin(Stdio::null());
        command
    }

    fn container(&self) -> String {
        format!("husk-bench-{}", self.name)
    }

    fn run<'a>(self) -> Subject<'a> {
        let id = format!("run-{}", self.name);
        let label = format!("{} run", self.name);
        let mut command = self.command("run");
        let run = move || {
            let before_ms = ended_cpu_ms()?;
            let total_ms = timed(&mut command)?.0;
            let counts = vec![(CPU_RUN_MS.to_owned(), ended_cpu_ms()? - before_ms)];
            Ok(Round { total_ms, counts, ..Round::default() })
        };
        Subject { id, group: RUN, label, own: false, run: Box::new(run) }
    }

    fn stop<'a>(self) -> Subject<'a> {
        let id = format!("stop-{}", self.name);
        let label = format!("{} kill", self.name);
        let run = move || {
            told_to_end(
                &mut self.command("stop"),
                |_| Ok(Vec::new()),
                |_| timed(Command::new(&self.program).args(["kill", &self.container(), "TERM"])).map(drop),
            )
        };
        Subject { id, group: STOP, label, own: false, run: Box::new(run) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_husk_does_not_know_is_a_stage_of_its_own() {
        let said = b"husk: note: something\n[{\"stage\":\"start\",\"at_ms\":0.0,\"step_ms\":0.0},\
            {\"stage\":\"vmm_configured\",\"at_ms\":2.0,\"step_ms\":2.0}]\n";
        let stages = stages(said, 5.0).unwrap();
        assert_eq!(stages, [("VMM configured".to_owned(), 2.0), ("husk itself".to_owned(), 3.0)]);
    }

    #[test]
    fn missing_timings_are_an_error() {
        assert!(stages(b"", 1.0).is_err() && stages(b"[]", 1.0).is_err() && stages(b"[{}]", 1.0).is_err());
    }
}
