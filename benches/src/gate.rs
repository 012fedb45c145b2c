//! The gate: some starts in the lab's deterministic mode, compared with the committed figures. It proves itself each time: a
//! start whose VMM was put off by some milliseconds must be found.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    args::GateArgs,
    baseline::{self, Allowance, Baseline, Change, Figures, Line, SAME, SCALED},
    peers::Scale,
    plan::{Peers, Plan, Suite},
    result::{Mode, RunResult},
    run,
    suites::SLOWED,
    tree::Tree,
};

const ROUNDS: u32 = 5;
const WARMUPS: u32 = 2;
/// A baseline is made of so many runs: some figures are by a tick of the host's kernel higher in one run than in the next.
const BASELINE_RUNS: u32 = 3;
/// What [`SLOWED`] is a slow version of, and where.
const SLOWED_WAS: &str = "run-none";
const SLOWED_STAGE: &str = "VMM configured";
const NEW_BASELINE: &str = "make a new baseline (husk-bench baseline --reason TEXT)";

/// `husk-bench gate`: whether nothing grew.
pub(crate) fn run(args: &GateArgs) -> Result<bool> {
    let baseline = Baseline::load(&args.baseline)?;
    let mut bad = bad(judge(&baseline, &measure(args)?)?);
    if !bad.is_empty() {
        println!("{} figures grew, came or went: measuring once more, to be sure", bad.len());
        let again = self::bad(judge(&baseline, &measure(args)?)?);
        bad.retain(|line| again.iter().any(|other| (&other.id, &other.stage) == (&line.id, &line.stage)));
    }
    if bad.is_empty() {
        println!("GATE PASSED: nothing grew");
        return Ok(true);
    }
    for line in &bad {
        println!("GATE FAILED: {}", describe(line));
    }
    println!("If that is intended, {NEW_BASELINE}");
    Ok(false)
}

/// Compares a run with the baseline, once the comparison has proved that it finds a slow start.
fn judge(baseline: &Baseline, result: &RunResult) -> Result<Vec<Line>> {
    let (before, allowance) = expected(baseline, result)?;
    let (figures, slowed) = figures(result)?;
    prove(&before, &slowed, allowance)?;
    let lines = baseline::compare(&before, &figures, allowance);
    print(&lines);
    Ok(lines)
}

/// What the baseline lets expect of this run: its figures, scaled by the peers' where a program differs.
fn expected(baseline: &Baseline, result: &RunResult) -> Result<(Vec<Figures>, Allowance)> {
    let differences = baseline.differences(result);
    if differences.is_empty() {
        return Ok((baseline.figures.clone(), SAME));
    }
    for (name, then, now) in &differences {
        println!("{name} was {then:?} for the baseline, and is {now:?} here");
    }
    let scale = Scale::new(baseline, result)
        .map_err(|error| anyhow!("GATE FAILED: nothing can be compared, since {error:#}: {NEW_BASELINE}"))?;
    println!("so the baseline's figures are scaled as its peers moved: {scale}");
    Ok((scale.apply(&baseline.figures), SCALED))
}

/// What a change must not do without a word.
fn bad(lines: Vec<Line>) -> Vec<Line> {
    lines.into_iter().filter(|line| matches!(line.change, Change::More | Change::Gone)).collect()
}

/// `husk-bench baseline`
pub(crate) fn update(args: &GateArgs, from: &[PathBuf], reason: &str) -> Result<()> {
    let results: Vec<RunResult> = if from.is_empty() {
        (0..BASELINE_RUNS).map(|_| measure(args)).collect::<Result<_>>()?
    } else {
        from.iter().map(|path| RunResult::load(path)).collect::<Result<_>>()?
    };
    let mut all = Vec::new();
    for result in &results {
        let (figures, slowed) = figures(result)?;
        prove(&figures, &slowed, SCALED)?;
        all.push(figures);
    }
    let figures = baseline::merge(&all);
    if let Ok(old) = Baseline::load(&args.baseline) {
        print(&baseline::compare(&old.figures, &figures, SAME));
    }
    let last = results.last().context("there are no results to make a baseline of")?;
    let peers = baseline::merge(&results.iter().map(Figures::peers).collect::<Vec<_>>());
    let baseline = Baseline::new(last, figures, peers, reason)?;
    for result in &results {
        Scale::new(&baseline, result).context("the peers' figures are of no use to the gate")?;
    }
    baseline.save(&args.baseline)?;
    println!("wrote {}", args.baseline.display());
    Ok(())
}

fn measure(args: &GateArgs) -> Result<RunResult> {
    let tree = Tree::find(args.common.bin.as_deref())?;
    let plan = Plan {
        suite: Suite::Gate,
        mode: Mode::Deterministic,
        rounds: ROUNDS,
        warmups: WARMUPS,
        cpus: Vec::new(),
        files: run::files(&tree)?,
        peers: Peers {
            qemu: run::program(Path::new("qemu-system-x86_64")),
            oci_runtimes: run::program(Path::new("runc")).into_iter().collect(),
            ..Peers::default()
        },
    };
    let result = run::measure(&tree, &plan, args.common.timeout)?;
    result.save(&tree.path("build/bench/gate.json"))?;
    Ok(result)
}

/// All of husk's figures, and apart from them those of the slowed start.
fn figures(result: &RunResult) -> Result<(Vec<Figures>, Figures)> {
    let slowed = result.find(SLOWED).context("the slowed start was not measured")?;
    let own = result.measurements.iter().filter(|measurement| measurement.own);
    let others = own.filter(|measurement| measurement.id != SLOWED);
    Ok((
        others.map(|measurement| Figures::new(measurement, &measurement.id)).collect(),
        Figures::new(slowed, SLOWED_WAS),
    ))
}

/// Fails unless the comparison finds the slowed start slow.
fn prove(before: &[Figures], slowed: &Figures, allowance: Allowance) -> Result<()> {
    let before: Vec<Figures> = before.iter().filter(|figures| figures.id == SLOWED_WAS).cloned().collect();
    let lines = baseline::compare(&before, std::slice::from_ref(slowed), allowance);
    let grew: Vec<&Line> = lines.iter().filter(|line| line.change == Change::More).collect();
    if !grew.iter().any(|line| line.stage == SLOWED_STAGE) {
        bail!("the gate is broken: a start that was put off by some milliseconds passed it: {lines:?}");
    }
    for line in grew {
        println!("proof: a VMM that starts late is found: {}", describe(line));
    }
    Ok(())
}

fn print(lines: &[Line]) {
    for line in lines {
        let verdict = match line.change {
            Change::None => "",
            Change::Less => "  less: keep it by husk-bench baseline --reason TEXT",
            Change::More => "  MORE",
            Change::Moved => "  its border with a neighbour moved",
            Change::Gone => "  CAME OR WENT",
        };
        println!("{}{verdict}", describe(line));
    }
}

fn describe(line: &Line) -> String {
    let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let name = format!("{}: {}", line.id, line.stage);
    format!("{name:<50} {:>9} -> {:>9}  {:>+8.2}", show(line.before), show(line.after), line.difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    #[test]
    fn the_proof_needs_a_slow_start_that_is_found() {
        let with = |ms: f64| {
            let result = result(vec![
                measurement(SLOWED_WAS, &[100.0], &[(SLOWED_STAGE, &[30.0])]),
                measurement(SLOWED, &[100.0 + ms], &[(SLOWED_STAGE, &[30.0 + ms])]),
            ]);
            let (figures, slowed) = figures(&result).unwrap();
            assert_eq!(figures.len(), 1);
            prove(&figures, &slowed, SCALED)
        };
        with(10.0).unwrap();
        assert!(with(0.1).unwrap_err().to_string().contains("broken"));
        assert!(figures(&result(Vec::new())).is_err());
    }

    #[test]
    fn a_gate_without_peers_fails_where_a_program_differs() {
        let mut now = result(Vec::new());
        let baseline = Baseline::new(&now, Vec::new(), Vec::new(), "first").unwrap();
        assert_eq!(expected(&baseline, &now).unwrap(), (Vec::new(), SAME));
        now.versions.insert("lab".into(), "kernel 57".into());
        let error = expected(&baseline, &now).unwrap_err().to_string();
        assert!(error.contains("GATE FAILED") && error.contains("husk-bench baseline --reason"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
