//! The half that measures: runs where VMs can run, in a network of its own, as root.

mod bare;
mod containerd;
mod containers;
mod ctr;
mod ctr_events;
mod ctr_unpack;
mod exits;
mod figures;
mod first;
mod install;
mod io;
mod memory;
mod process;
mod scale;
mod share;
mod streams;
mod unpack;
mod watch;

pub(crate) use containers::SLOWED;
pub(crate) use ctr_unpack::reference as packed_reference;
pub(crate) use exits::{CPU_END_MS, CPU_RUN_MS, CPU_START_MS};
pub(crate) use first::IMAGES;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
};

use crate::{
    machine,
    measure::measure,
    plan::{Plan, Suite},
    result::{FORMAT, Measurement, RunResult},
    suites::install::Installed,
    tree::{succeed, tool},
};

/// Rounds of the start by which the gate proves itself.
const PROOF_ROUNDS: u32 = 3;
/// Most rounds of what takes long.
const LONG_ROUNDS: u32 = 2;

/// Runs the suite that the plan (JSON) names, and writes its result to `out`.
pub(crate) fn run(plan: &str, out: &Path) -> Result<()> {
    let plan: Plan = serde_json::from_str(plan).context("the plan is not valid")?;
    ensure!(nix::unistd::geteuid().is_root(), "measuring takes root: use sudo");
    pin(&plan.cpus)?;
    let (measurements, lost) = match plan.suite {
        Suite::Ctr => ctr::measure_all(&plan, in_memory()?.path())?,
        Suite::Fs => share::measure(&plan, in_memory()?.path())?,
        _ => with_installed(&plan)?,
    };
    save(&plan, measurements, lost, out)
}

fn with_installed(plan: &Plan) -> Result<(Vec<Measurement>, u32)> {
    // Bridges, taps and rules of what is measured end with this process, and touch nothing of the machine's.
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    succeed(tool("ip").args(["link", "set", "lo", "up"]))?;
    exits::prepare();
    let work = tempfile::tempdir().context("cannot make a directory to work in")?;
    let installed = Installed::new(plan, work.path())?;
    match plan.suite {
        Suite::Gate => starts(plan, &installed),
        Suite::Io => io::measure(plan, &installed),
        Suite::Scale(scale) => Ok((scale::measure(plan, scale, &installed)?, 0)),
        _ => boot(plan, &installed),
    }
}

/// A directory to work in, in memory, which is mounted for this process and its children alone.
fn in_memory() -> Result<tempfile::TempDir> {
    let work = tempfile::tempdir().context("cannot make a directory to work in")?;
    own_mounts()?;
    mount(Some("work"), work.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount a tmpfs")?;
    Ok(work)
}

/// What is mounted from now on ends with this process and its children.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).context("cannot separate mounts")
}

fn save(plan: &Plan, measurements: Vec<Measurement>, lost: u32, out: &Path) -> Result<()> {
    let settings = [
        ("rounds", plan.rounds.to_string()),
        ("warm-ups", plan.warmups.to_string()),
        ("rounds lost and done again", lost.to_string()),
        ("CPUs", if plan.cpus.is_empty() { "all".to_owned() } else { format!("{:?}", plan.cpus) }),
        ("guest", format!("1 vCPU, {} MiB", bare::MEM_SIZE_MIB)),
    ];
    RunResult {
        format: FORMAT,
        suite: plan.suite.name().into(),
        mode: plan.mode,
        date: String::new(),
        commit: String::new(),
        machine: machine::describe(),
        versions: machine::peer_versions(&plan.peers),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        measurements,
    }
    .save(out)
}

fn starts(plan: &Plan, installed: &Installed) -> Result<(Vec<Measurement>, u32)> {
    let mut subjects = bare::subjects(plan, installed)?;
    subjects.extend(containers::subjects(plan, installed)?);
    if plan.suite == Suite::Gate {
        // husk's own first: what peers leave to the kernel is done before the next round of husk's.
        subjects.sort_by_key(|subject| !subject.own);
    }
    let (mut all, mut lost) = measure(plan, plan.rounds, subjects)?;
    if let Some(slowed) = containers::slowed(installed) {
        let (proof, again) = measure(&Plan { warmups: 1, ..plan.clone() }, PROOF_ROUNDS, vec![slowed])?;
        all.extend(proof);
        lost += again;
    }
    Ok((all, lost))
}

fn boot(plan: &Plan, installed: &Installed) -> Result<(Vec<Measurement>, u32)> {
    let (mut all, lost) = starts(plan, installed)?;
    let registry = first::Registry::start(plan, &installed.work)?;
    let once = Plan { warmups: 1, ..plan.clone() };
    let mut subjects = first::subjects(installed, &registry);
    subjects.extend(unpack::subjects(plan, installed)?);
    let (first, again) = measure(&once, plan.rounds.min(LONG_ROUNDS), subjects)?;
    all.extend(first);
    Ok((all, lost + again))
}

/// Stays on these CPUs, with all that is started.
fn pin(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).with_context(|| format!("there is no CPU {cpu}"))?;
    }
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
        .with_context(|| format!("cannot stay on CPUs {cpus:?}"))
}
