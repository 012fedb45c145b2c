//! The half that measures: runs where VMs can run, in a network of its own, as root.

mod bare;
mod containers;
mod first;
mod install;
mod memory;
mod process;
mod scale;
mod watch;

pub(crate) use containers::SLOWED;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};

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
    // Bridges, taps and rules of what is measured end with this process, and touch nothing of the machine's.
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    succeed(tool("ip").args(["link", "set", "lo", "up"]))?;
    pin(&plan.cpus)?;

    let work = tempfile::tempdir().context("cannot make a directory to work in")?;
    let installed = Installed::new(&plan, work.path())?;
    let (measurements, lost) = match plan.suite {
        Suite::Boot => boot(&plan, &installed)?,
        Suite::Gate => starts(&plan, &installed)?,
        Suite::Scale(scale) => (scale::measure(&plan, scale, &installed)?, 0),
    };
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
    let (first, again) = measure(&once, plan.rounds.min(LONG_ROUNDS), first::subjects(installed, &registry))?;
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
