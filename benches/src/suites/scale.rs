//! Many pods on one machine: what each further one costs in time and memory, what a storm of starts does, and what is left
//! behind after many.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    install::{IMAGE, Installed},
    memory::{self, Memory},
    process::{Running, timed},
};
use crate::{
    measure::{ms_between, now_ns},
    plan::{Plan, Scale},
    result::Measurement,
};

/// A process that says when it runs, and then does nothing.
const IDLE: &str = "trap 'exit 0' TERM; sleep 1000000 & echo ready; wait";

/// Measures all of it.
pub(crate) fn measure(plan: &Plan, scale: Scale, installed: &Installed) -> Result<Vec<Measurement>> {
    for _ in 0..plan.warmups {
        Pod::start(installed)?.ready(now_ns())?.stop()?;
    }
    let before = left(installed)?;
    let unit = plan.mode.unit();
    let mut all = one_by_one(scale.pods, unit, installed)?;
    all.extend(storm(scale.storm, unit, installed)?);
    all.extend(cycles(scale.cycles, installed)?);
    let after = left(installed)?;
    for (what, count) in &before {
        let now = after.get(what).copied().unwrap_or(0.0);
        let label = format!("{what}, after {} starts", scale.pods + scale.storm + scale.cycles);
        let id = format!("left-{}", what.replace(' ', "-"));
        all.push(measurement(&id, "Left behind: more than before", &label, "more", vec![now - count]));
    }
    Ok(all)
}

/// Starts pods and lets them idle; the n-th sample of each measurement is the n-th pod's.
fn one_by_one(count: u32, unit: &str, installed: &Installed) -> Result<Vec<Measurement>> {
    eprintln!("{count} idle pods, one by one");
    let (mut pods, mut times) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let start = now_ns();
        let pod = Pod::start(installed)?.ready(start)?;
        times.push(pod.ready_ms);
        pods.push(pod);
    }
    let memory: Vec<Memory> = pods.iter().map(|pod| memory::of_tree(pod.husk.id())).collect::<Result<_>>()?;
    for pod in pods {
        pod.stop()?;
    }
    let mib = |of: fn(&Memory) -> u64| memory.iter().map(|m| memory::mib(of(m))).collect::<Vec<_>>();
    let group = "Memory of an idle pod, proportional shares (PSS)";
    let curve = |measurement: Measurement| Measurement { along: Some("pods".into()), ..measurement };
    Ok(vec![
        curve(measurement(
            "idle-start",
            "Start of a further pod to its first output",
            "husk run",
            unit,
            times,
        )),
        measurement("memory-vmm", group, "husk-vmm, guest apart", "MiB", mib(|memory| memory.vmm)),
        measurement("memory-husk", group, "husk", "MiB", mib(|memory| memory.husk)),
        measurement("memory-guest", group, "the guest's memory", "MiB", mib(|memory| memory.guest)),
    ])
}

/// Starts pods all at once; sorted by when they were ready.
fn storm(count: u32, unit: &str, installed: &Installed) -> Result<Vec<Measurement>> {
    eprintln!("{count} pods at once");
    let start = now_ns();
    let started: Vec<Pod> = (0..count).map(|_| Pod::start(installed)).collect::<Result<_>>()?;
    let ready: Vec<Result<Pod>> = std::thread::scope(|scope| {
        let waiting: Vec<_> = started.into_iter().map(|pod| scope.spawn(move || pod.ready(start))).collect();
        waiting
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread failed")))
            .collect()
    });
    let pods: Vec<Pod> = ready.into_iter().collect::<Result<_>>()?;
    let mut times: Vec<f64> = pods.iter().map(|pod| pod.ready_ms).collect();
    times.sort_by(f64::total_cmp);
    for pod in pods {
        pod.stop()?;
    }
    let storm = measurement(
        "storm",
        "A storm of starts: when the n-th pod of all was ready",
        "husk run",
        unit,
        times,
    );
    Ok(vec![Measurement { along: Some("pods".into()), ..storm }])
}

/// Starts and ends containers one after the other.
fn cycles(count: u32, installed: &Installed) -> Result<Vec<Measurement>> {
    eprintln!("{count} starts and ends");
    let start = now_ns();
    for _ in 0..count {
        timed(
            installed.husk().args(["run", "--rm", "--network", "none", IMAGE, "true"]).stdin(Stdio::null()),
        )?;
    }
    let seconds = ms_between(start, now_ns()) / 1000.0;
    let rate = measurement(
        "rate",
        "Starts and ends, one after the other",
        "husk run",
        "1/s",
        vec![f64::from(count) / seconds],
    );
    Ok(vec![Measurement { more_is_better: true, ..rate }])
}

fn measurement(id: &str, group: &str, label: &str, unit: &str, samples: Vec<f64>) -> Measurement {
    Measurement {
        id: id.into(),
        group: group.into(),
        label: label.into(),
        own: true,
        unit: unit.into(),
        more_is_better: false,
        along: None,
        samples,
        stages: Vec::new(),
        counts: Vec::new(),
    }
}

/// A running container.
struct Pod {
    husk: Running,
    ready_ms: f64,
}

impl Pod {
    fn start(installed: &Installed) -> Result<Self> {
        let mut command = installed.husk();
        command.args(["run", "--rm", "--network", "none", IMAGE, "sh", "-c", IDLE]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self { husk: Running::start(&mut command)?, ready_ms: 0.0 })
    }

    /// Waits until it says that it runs; notes how long that is after `start`.
    fn ready(mut self, start: u64) -> Result<Self> {
        let mut line = String::new();
        BufReader::new(self.husk.child().stdout.take().context("no standard output")?)
            .read_line(&mut line)?;
        ensure!(line == "ready\n", "a container said {line:?}");
        self.ready_ms = ms_between(start, now_ns());
        Ok(self)
    }

    fn stop(self) -> Result<()> {
        self.husk.signal(Signal::SIGTERM)?;
        let status = self.husk.wait()?;
        ensure!(status.success(), "a container ended with {status}");
        Ok(())
    }
}

/// Counts what a start makes and an end has to take away.
fn left(installed: &Installed) -> Result<BTreeMap<&'static str, f64>> {
    let lines = |path: &str| -> Result<usize> { Ok(fs::read_to_string(path)?.lines().count()) };
    let processes = fs::read_dir("/proc")?
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("husk") && name.trim() != "husk-bench")
        .count();
    let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    Ok(BTreeMap::from([
        ("processes", count(processes)),
        ("files of husk's state", count(files(&installed.state)?)),
        ("mounts", count(lines("/proc/self/mounts")?)),
        ("network interfaces", count(lines("/proc/net/dev")?)),
        ("cgroups", count(files(Path::new("/sys/fs/cgroup/husk"))?)),
    ]))
}

/// All entries below a directory, which may be missing.
fn files(dir: &Path) -> Result<usize> {
    if !dir.is_dir() {
        return Ok(0);
    }
    let listed = Command::new("find").arg(dir).output().context("cannot run find")?;
    Ok(listed.stdout.iter().filter(|byte| **byte == b'\n').count())
}
