//! How the gate compares when a program differs from the baseline's. Peers are measured in the baseline's
//! runs and in the gate's, and husk's figures are expected to move as the peers' did.

use anyhow::{Context, Result, bail, ensure};

use crate::{
    baseline::{Baseline, Figures, difference},
    result::{RunResult, summarize},
    suites::{CPU_END_MS, CPU_RUN_MS, CPU_START_MS},
};

/// By how much of itself a peer's figure may move. Beyond that a ratio to it says little.
const LIMIT: f64 = 0.10;

/// A peer's figure: its measurement, and the count. All are times on a CPU. Times from start to end would
/// differ by up to 8 % (runc) and 14 % (QEMU's end) between runs of the same programs, by how many ticks of the
/// host's kernel are waited for.
type Peer = (&'static str, &'static str);

/// A VMM's start, and that of a kernel in its guest: the same kernel and init as in husk's bare VM.
const BOOT: Peer = ("bare-start-qemu-microvm", CPU_START_MS);
/// A VM's end.
const END: Peer = ("bare-start-qemu-microvm", CPU_END_MS);
/// The host's work for processes, mounts, namespaces and cgroups.
const PROCESS: Peer = ("run-runc", CPU_RUN_MS);

/// By how much each peer moved, as the factor by which a figure of it is larger now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    boot: f64,
    end: f64,
    process: f64,
}

impl Scale {
    /// The peers' figures of this run beside the baseline's.
    ///
    /// # Errors
    ///
    /// Fails if a peer was not measured then or now, is a different program now, or moved by more than [`LIMIT`].
    pub(crate) fn new(baseline: &Baseline, result: &RunResult) -> Result<Self> {
        ensure!(!baseline.peers.is_empty(), "the baseline has no figures of peers");
        if let Some((name, then, now)) = baseline.peer_differences(result).first() {
            bail!("{name} was {then:?} for the baseline, and is {now:?} here");
        }
        let now: Vec<Figures> = Figures::peers(result);
        let factor = |peer| factor(peer, &baseline.peers, &now);
        Ok(Self { boot: factor(BOOT)?, end: factor(END)?, process: factor(PROCESS)? })
    }

    /// The factor of one of husk's stages.
    fn of(self, stage: &str) -> f64 {
        match stage {
            "process made" | "image and disks ready" | "husk itself" => self.process,
            "ended" | "everything cleaned up" => self.end,
            _ => self.boot,
        }
    }

    /// What the baseline's figures would be with the programs of this run. A total moves by as much as its stages together.
    pub(crate) fn apply(self, figures: &[Figures]) -> Vec<Figures> {
        figures.iter().map(|figures| self.apply_one(figures)).collect()
    }

    fn apply_one(self, figures: &Figures) -> Figures {
        let mut scaled = figures.clone();
        for (name, samples) in &mut scaled.stages {
            let factor = self.of(name);
            for (total, sample) in scaled.total.iter_mut().zip(samples) {
                *total += *sample * (factor - 1.0);
                *sample *= factor;
            }
        }
        scaled
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |factor: f64| (factor - 1.0) * 100.0;
        write!(
            f,
            "QEMU's start {:+.1} %, its end {:+.1} %, runc {:+.1} %",
            percent(self.boot),
            percent(self.end),
            percent(self.process)
        )
    }
}

fn factor((id, stage): Peer, then: &[Figures], now: &[Figures]) -> Result<f64> {
    let samples = |figures: &[Figures]| figures.iter().find(|f| f.id == id)?.samples(stage).cloned();
    let then = samples(then).with_context(|| format!("the baseline has no {id}, {stage}"))?;
    let now = samples(now).with_context(|| format!("the peer {id}, {stage}, was not measured"))?;
    let before = summarize(&then).median;
    ensure!(before > 0.0, "the baseline's figure of {id}, {stage}, is {before}");
    let moved = difference(&then, &now) / before;
    ensure!(
        moved.abs() <= LIMIT,
        "the peer {id}, {stage}, moved by {:+.1} %, and {:.0} % is the limit",
        moved * 100.0,
        LIMIT * 100.0
    );
    Ok(1.0 + moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        baseline::{Change, Line, SCALED, compare},
        result::{
            Measurement, Stage,
            tests::{measurement, result},
        },
    };

    /// A run with this kernel in the lab: husk's guest takes `guest`, QEMU's start and end and runc's run take these.
    fn run(lab: &str, guest: f64, [boot, end, process]: [f64; 3]) -> RunResult {
        let peer = |id: &str, counts: &[(&str, f64)]| {
            let counts = counts
                .iter()
                .map(|(name, value)| Stage { name: (*name).into(), samples: vec![*value] })
                .collect();
            Measurement { own: false, counts, ..measurement(id, &[200.0], &[]) }
        };
        let stages: [(&str, &[f64]); 4] = [
            ("image and disks ready", &[10.0]),
            ("VMM configured", &[20.0]),
            ("kernel handed to init", &[guest]),
            ("everything cleaned up", &[30.0]),
        ];
        let mut run = result(vec![
            measurement("run-none", &[60.0 + guest], &stages),
            peer(BOOT.0, &[(BOOT.1, boot), (END.1, end)]),
            peer(PROCESS.0, &[(PROCESS.1, process)]),
        ]);
        for (key, version) in [("lab", lab), ("peer runc", "1.1")] {
            run.versions.insert(key.into(), version.into());
        }
        run
    }

    fn own(result: &RunResult) -> Vec<Figures> {
        let own = result.measurements.iter().filter(|measurement| measurement.own);
        own.map(|measurement| Figures::new(measurement, &measurement.id)).collect()
    }

    fn baseline(of: &RunResult) -> Baseline {
        Baseline::new(of, own(of), Figures::peers(of), "first").unwrap()
    }

    const THEN: [f64; 3] = [140.0, 26.0, 46.0];

    fn judge(now: &RunResult) -> Result<Vec<Line>> {
        let before = baseline(&run("kernel 56", 50.0, THEN));
        Ok(compare(&Scale::new(&before, now)?.apply(&before.figures), &own(now), SCALED))
    }

    fn grew(lines: &[Line]) -> Vec<&str> {
        lines.iter().filter(|line| line.change == Change::More).map(|line| line.stage.as_str()).collect()
    }

    #[test]
    fn with_another_kernel_figures_are_compared_all_the_same() {
        let before = baseline(&run("kernel 56", 50.0, THEN));
        let now = run("kernel 57", 50.0, THEN);
        assert_eq!(before.differences(&now).len(), 1);
        let lines = judge(&now).unwrap();
        assert_eq!(lines.len(), 5);
        assert!(lines.iter().all(|line| line.change == Change::None), "{lines:?}");
        // Nothing moved but the one figure.
        assert_eq!(grew(&judge(&run("kernel 57", 58.0, THEN)).unwrap()), ["total", "kernel handed to init"]);
    }

    #[test]
    fn each_stage_is_expected_to_move_as_its_peer_did_and_the_total_as_all_of_them() {
        let before = baseline(&run("kernel 56", 50.0, THEN));
        let now = run("kernel 57", 50.0, [140.0 * 1.03, 26.0 * 0.95, 46.0 * 1.08]);
        let scaled = Scale::new(&before, &now).unwrap().apply(&before.figures).remove(0);
        let expected = [10.0 * 1.08, 20.0 * 1.03, 50.0 * 1.03, 30.0 * 0.95];
        for ((name, samples), expected) in scaled.stages.iter().zip(expected) {
            assert!((samples[0] - expected).abs() < 0.01, "{name}: {samples:?}, not {expected}");
        }
        assert!((scaled.total[0] - expected.iter().sum::<f64>()).abs() < 0.01, "{:?}", scaled.total);
    }

    #[test]
    fn what_peers_moved_by_is_allowed_on_top() {
        let moved = THEN.map(|ms| ms * 1.03);
        // More than the allowance in itself, and less beside peers that grew, too.
        assert_eq!(grew(&judge(&run("kernel 57", 54.0, THEN)).unwrap()), ["kernel handed to init"]);
        assert_eq!(grew(&judge(&run("kernel 57", 54.0, moved)).unwrap()), [""; 0]);
        // The other way round: peers became faster, and husk did not.
        let faster = THEN.map(|ms| ms * 0.95);
        let slower_than_peers = judge(&run("kernel 57", 52.0, faster)).unwrap();
        assert_eq!(grew(&slower_than_peers), ["total", "kernel handed to init"]);
    }

    #[test]
    fn peers_that_moved_too_far_stand_for_nothing() {
        for (number, name) in [BOOT, END, PROCESS].map(|peer| peer.1).into_iter().enumerate() {
            for factor in [0.8, 1.2] {
                let mut now = THEN;
                now[number] *= factor;
                let error = judge(&run("kernel 57", 50.0, now)).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("limit"), "{error}");
            }
        }
    }

    #[test]
    fn a_peer_that_is_missing_or_another_program_stands_for_nothing() {
        let mut now = run("kernel 57", 50.0, THEN);
        now.measurements.retain(|measurement| measurement.id != PROCESS.0);
        assert!(judge(&now).unwrap_err().to_string().contains("not measured"));
        let mut before = baseline(&run("kernel 56", 50.0, THEN));
        before.peers.clear();
        let error = Scale::new(&before, &run("kernel 57", 50.0, THEN)).unwrap_err();
        assert!(error.to_string().contains("the baseline has no figures"), "{error}");
        let mut now = run("kernel 57", 50.0, THEN);
        now.versions.insert("peer runc".into(), "1.2".into());
        assert!(judge(&now).unwrap_err().to_string().contains("peer runc"));
    }
}
