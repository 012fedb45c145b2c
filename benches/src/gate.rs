//! The gate: some starts in the lab's deterministic mode, compared with the committed figures. It proves itself each time: a
//! start whose VMM was put off by some milliseconds must be found.

use anyhow::{Context, Result, bail};

use crate::{
    args::GateArgs,
    baseline::{self, Baseline, Change, Figures, Line},
    plan::{Peers, Plan, Suite},
    result::{Mode, RunResult},
    run,
    suites::SLOWED,
    tree::Tree,
};

const ROUNDS: u32 = 5;
const WARMUPS: u32 = 2;
/// What [`SLOWED`] is a slow version of.
const SLOWED_WAS: &str = "run-none";

/// `husk-bench gate`: whether nothing grew.
pub(crate) fn run(args: &GateArgs) -> Result<bool> {
    let baseline = Baseline::load(&args.baseline)?;
    let result = measure(args)?;
    let differences = baseline.differences(&result);
    let (figures, slowed) = figures(&result)?;
    if !differences.is_empty() {
        // Figures of another compiler or kernel say nothing; the proof says at least that the gate would work here.
        prove(&figures, &slowed)?;
        for (name, then, now) in &differences {
            println!("not comparable: {name} was {then:?} for the baseline, and is {now:?} here");
        }
        println!(
            "GATE SKIPPED: {} programs differ from the baseline's; nothing was compared",
            differences.len()
        );
        return Ok(true);
    }
    prove(&baseline.figures, &slowed)?;
    let lines = baseline::compare(&baseline.figures, &figures);
    print(&lines);
    let count = |change: &Change| lines.iter().filter(|line| line.change == *change).count();
    let (more, gone) = (count(&Change::More), count(&Change::Gone));
    if more + gone > 0 {
        println!(
            "GATE FAILED: {more} figures grew, {gone} came or went. If that is meant to be: \
             husk-bench baseline --reason 'why it is'"
        );
        return Ok(false);
    }
    match count(&Change::Less) {
        0 => println!("GATE PASSED: {} figures, none of which grew", lines.len()),
        less => println!(
            "GATE PASSED: {} figures, none of which grew; {less} shrank: keep that by husk-bench baseline --reason TEXT",
            lines.len()
        ),
    }
    Ok(true)
}

/// `husk-bench baseline`
pub(crate) fn update(args: &GateArgs, reason: &str) -> Result<()> {
    let result = measure(args)?;
    let (figures, slowed) = figures(&result)?;
    prove(&figures, &slowed)?;
    if let Ok(old) = Baseline::load(&args.baseline) {
        print(&baseline::compare(&old.figures, &figures));
    }
    Baseline::new(&result, figures, reason)?.save(&args.baseline)?;
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
        peers: Peers::default(),
    };
    let result = run::measure(&tree, &plan, args.common.timeout)?;
    result.save(&tree.path("build/bench/gate.json"))?;
    Ok(result)
}

/// All figures, and apart from them those of the slowed start.
fn figures(result: &RunResult) -> Result<(Vec<Figures>, Figures)> {
    let slowed = result.find(SLOWED).context("the slowed start was not measured")?;
    let others = result.measurements.iter().filter(|measurement| measurement.id != SLOWED);
    Ok((
        others.map(|measurement| Figures::new(measurement, &measurement.id)).collect(),
        Figures::new(slowed, SLOWED_WAS),
    ))
}

/// Fails unless the comparison finds the slowed start slow.
fn prove(before: &[Figures], slowed: &Figures) -> Result<()> {
    let before: Vec<Figures> = before.iter().filter(|figures| figures.id == SLOWED_WAS).cloned().collect();
    let lines = baseline::compare(&before, std::slice::from_ref(slowed));
    let grew: Vec<&Line> = lines.iter().filter(|line| line.change == Change::More).collect();
    if !grew.iter().any(|line| line.stage == "total") {
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
            Change::Less => "  less",
            Change::More => "  MORE",
            Change::Gone => "  CAME OR WENT",
        };
        println!("{}{verdict}", describe(line));
    }
}

fn describe(line: &Line) -> String {
    let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let name = format!("{}: {}", line.id, line.stage);
    format!("{name:<50} {:>9} -> {:>9}", show(line.before), show(line.after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    #[test]
    fn the_proof_needs_a_slow_start_that_is_found() {
        let with = |ms: f64| {
            let result = result(vec![
                measurement(SLOWED_WAS, &[100.0], &[("VMM configured", &[30.0])]),
                measurement(SLOWED, &[100.0 + ms], &[("VMM configured", &[30.0 + ms])]),
            ]);
            let (figures, slowed) = figures(&result).unwrap();
            assert_eq!(figures.len(), 1);
            prove(&figures, &slowed)
        };
        with(10.0).unwrap();
        assert!(with(0.1).unwrap_err().to_string().contains("broken"));
        assert!(figures(&result(Vec::new())).is_err());
    }
}
