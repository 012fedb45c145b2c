//! The committed figures, and what makes a new figure too large.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::result::{Measurement, RunResult, summarize};

/// By how much a figure may grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowance {
    /// By so much of itself ...
    share: f64,
    /// ... and in any case by so many virtual ms.
    floor_ms: f64,
}

/// Between runs with the same programs. Runs of the same code differ by the floor in stages that wait for the
/// kernel.
pub(crate) const SAME: Allowance = Allowance { share: 0.03, floor_ms: 0.3 };
/// Where a program differs, and figures are scaled by those of peers: 1 % more for the spread of the peers'
/// figures, 2 % since peers are not husk; and another kernel may move the border of two stages, by 0.7 ms as seen.
pub(crate) const SCALED: Allowance = Allowance { share: 0.06, floor_ms: 1.0 };
/// The border between two stages may move by so many virtual ms: which of two processes the guest's only CPU runs first is up to its
/// scheduler, and may change with the size of a binary.
const BORDER_MS: f64 = 1.0;
/// What the figures depend on, beside the code: by what it was built, and on what it ran.
const DEPENDS_ON: [&str; 3] = ["rustc", "guest kernel", "lab"];
/// The names of the peers' versions begin so.
const PEER: &str = "peer ";
/// What the whole of a measurement is called beside its stages.
const TOTAL: &str = "total";

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// Why the figures are as they are now.
    pub(crate) reason: String,
    pub(crate) date: String,
    pub(crate) commit: String,
    /// What the figures depend on, beside the code; and the peers' versions.
    pub(crate) made_with: BTreeMap<String, String>,
    pub(crate) figures: Vec<Figures>,
    /// The peers', measured in the same runs.
    #[serde(default)]
    pub(crate) peers: Vec<Figures>,
}

/// Those of one measurement, in virtual ms: one of each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    pub(crate) id: String,
    pub(crate) total: Vec<f64>,
    pub(crate) stages: Vec<(String, Vec<f64>)>,
    /// Those of the above (the total is called so) that were as much higher in one whole run than in others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) varies: Vec<(String, f64)>,
}

impl Figures {
    /// The measurement's figures, to the microsecond, under the name `id`.
    pub(crate) fn new(measurement: &Measurement, id: &str) -> Self {
        let round = |samples: &[f64]| samples.iter().copied().map(to_us).collect();
        Self {
            id: id.into(),
            total: round(&measurement.samples),
            stages: measurement.stages.iter().map(|s| (s.name.clone(), round(&s.samples))).collect(),
            varies: Vec::new(),
        }
    }

    /// Those of a run's peers; what was counted beside their stages is a stage, too.
    pub(crate) fn peers(result: &RunResult) -> Vec<Self> {
        let peers = result.measurements.iter().filter(|measurement| !measurement.own);
        let with_counts = |measurement: &Measurement| {
            let mut all = measurement.clone();
            all.stages.append(&mut all.counts);
            Self::new(&all, &measurement.id)
        };
        peers.map(with_counts).collect()
    }

    /// The samples of a stage.
    pub(crate) fn samples(&self, stage: &str) -> Option<&Vec<f64>> {
        find(&self.stages, stage)
    }
}

impl Baseline {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A baseline of these figures, and the peers'.
    pub(crate) fn new(
        result: &RunResult,
        figures: Vec<Figures>,
        peers: Vec<Figures>,
        reason: &str,
    ) -> Result<Self> {
        ensure!(!reason.trim().is_empty(), "a baseline needs a reason");
        let matters = |key: &str| DEPENDS_ON.contains(&key) || key.starts_with(PEER);
        let mut made_with = result.versions.clone();
        made_with.retain(|key, _| matters(key));
        Ok(Self {
            reason: reason.trim().into(),
            date: result.date.clone(),
            commit: result.commit.clone(),
            made_with,
            figures,
            peers,
        })
    }

    /// Why these figures can't be compared as they are: each program that differs, its version then and now.
    pub(crate) fn differences(&self, result: &RunResult) -> Vec<(String, String, String)> {
        self.differing(result, |key| DEPENDS_ON.contains(&key))
    }

    /// The same of the peers.
    pub(crate) fn peer_differences(&self, result: &RunResult) -> Vec<(String, String, String)> {
        self.differing(result, |key| key.starts_with(PEER))
    }

    fn differing(&self, result: &RunResult, of: impl Fn(&str) -> bool) -> Vec<(String, String, String)> {
        let keys: BTreeSet<&String> = self.made_with.keys().chain(result.versions.keys()).collect();
        let version =
            |versions: &BTreeMap<String, String>, key| versions.get(key).cloned().unwrap_or_default();
        keys.into_iter()
            .filter(|key| of(key))
            .map(|key| (key.clone(), version(&self.made_with, key), version(&result.versions, key)))
            .filter(|(_, then, now)| then != now)
            .collect()
    }
}

/// One set of figures of several runs: the median of each round; and by how much a whole run was above that.
pub(crate) fn merge(runs: &[Vec<Figures>]) -> Vec<Figures> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let merge_one = |figures: &Figures| {
        let same: Vec<&Figures> = runs.iter().flatten().filter(|other| other.id == figures.id).collect();
        let mut merged = figures.clone();
        let mut all = |name: &str, samples: &mut Vec<f64>, of: &dyn Fn(&Figures) -> Option<Vec<f64>>| {
            let runs: Vec<Vec<f64>> = same.iter().filter_map(|figures| of(figures)).collect();
            *samples = medians(&runs);
            let above = runs.iter().map(|run| difference(samples, run)).fold(0.0, f64::max);
            if above > SAME.floor_ms {
                merged.varies.push((name.to_owned(), to_us(above)));
            }
        };
        let mut total = figures.total.clone();
        all(TOTAL, &mut total, &|figures| Some(figures.total.clone()));
        let mut stages = figures.stages.clone();
        for (name, samples) in &mut stages {
            all(name, samples, &|figures| find(&figures.stages, name).cloned());
        }
        Figures { total, stages, ..merged }
    };
    first.iter().map(merge_one).collect()
}

/// The median of each round, of as many rounds as all have.
fn medians(runs: &[Vec<f64>]) -> Vec<f64> {
    let rounds = runs.iter().map(Vec::len).min().unwrap_or(0);
    (0..rounds)
        .map(|round| to_us(summarize(&runs.iter().map(|run| run[round]).collect::<Vec<_>>()).median))
        .collect()
}

fn to_us(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// About the same.
    None,
    /// By as much less as would not be allowed more.
    Less,
    /// More than is allowed.
    More,
    /// More than is allowed, but a neighbouring stage is by about the same less, or the other way round: their border moved.
    Moved,
    /// It is in one of the two only.
    Gone,
}

/// One line of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) id: String,
    /// `total` is one, too.
    pub(crate) stage: String,
    /// The median of the rounds, where there are some.
    pub(crate) before: Option<f64>,
    pub(crate) after: Option<f64>,
    /// The median of the differences between rounds that began at the same place between two ticks.
    pub(crate) difference: f64,
    pub(crate) change: Change,
}

/// Compares all figures of the baseline with new ones.
pub(crate) fn compare(before: &[Figures], after: &[Figures], allowance: Allowance) -> Vec<Line> {
    let mut lines = Vec::new();
    for old in before {
        let new = after.iter().find(|new| new.id == old.id);
        compare_one(old, new, allowance, &mut lines);
    }
    for new in after.iter().filter(|new| before.iter().all(|old| old.id != new.id)) {
        lines.push(line(new, TOTAL, None, Some(&new.total), allowance));
    }
    lines
}

fn compare_one(old: &Figures, new: Option<&Figures>, allowance: Allowance, lines: &mut Vec<Line>) {
    lines.push(line(old, TOTAL, Some(&old.total), new.map(|new| &new.total), allowance));
    let Some(new) = new else {
        return;
    };
    let mut stages: Vec<Line> = old
        .stages
        .iter()
        .map(|(name, samples)| line(old, name, Some(samples), find(&new.stages, name), allowance))
        .collect();
    for (of, with) in (1..stages.len()).flat_map(|next| [(next - 1, next), (next, next - 1)]) {
        if border_moved(&stages[of], &stages[with]) {
            stages[of].change = Change::Moved;
            if stages[with].change == Change::Less {
                stages[with].change = Change::Moved;
            }
        }
    }
    lines.append(&mut stages);
    for (name, samples) in &new.stages {
        if find(&old.stages, name).is_none() {
            lines.push(line(old, name, None, Some(samples), allowance));
        }
    }
}

/// Whether a stage has grown, by a little, at the cost of a neighbour, and the two together have not.
fn border_moved(stage: &Line, neighbour: &Line) -> bool {
    stage.change == Change::More
        && neighbour.change != Change::Gone
        && stage.difference <= BORDER_MS
        && stage.difference + neighbour.difference <= SAME.floor_ms
}

fn find<'a>(stages: &'a [(String, Vec<f64>)], name: &str) -> Option<&'a Vec<f64>> {
    stages.iter().find(|(other, _)| other == name).map(|(_, samples)| samples)
}

fn line(
    figures: &Figures,
    stage: &str,
    before: Option<&Vec<f64>>,
    after: Option<&Vec<f64>>,
    allowance: Allowance,
) -> Line {
    let median = |samples: Option<&Vec<f64>>| samples.map(|samples| summarize(samples).median);
    let mut line = Line {
        id: figures.id.clone(),
        stage: stage.into(),
        before: median(before),
        after: median(after),
        difference: 0.0,
        change: Change::Gone,
    };
    if let (Some(before), Some(after)) = (before, after) {
        line.difference = difference(before, after);
        let varies = figures.varies.iter().find(|(name, _)| name == stage).map_or(0.0, |(_, ms)| *ms);
        line.change = allowance.judge(summarize(before).median, varies, line.difference);
    }
    line
}

/// Rounds with the same number are alike: a start that waits for ticks takes longer or shorter by where between two ticks it
/// begins. So their differences say more than medians do, and the median of those passes over the odd one out.
pub(crate) fn difference(before: &[f64], after: &[f64]) -> f64 {
    let differences: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    summarize(&differences).median
}

impl Allowance {
    fn judge(self, before: f64, varies: f64, difference: f64) -> Change {
        let allowed = (before * self.share).max(self.floor_ms).max(varies * (1.0 + self.share));
        if difference > allowed {
            Change::More
        } else if difference < -allowed {
            Change::Less
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    fn figures(id: &str, stages: &[(&str, f64)]) -> Figures {
        Figures {
            id: id.into(),
            total: vec![stages.iter().map(|(_, value)| value).sum()],
            stages: stages.iter().map(|(name, value)| ((*name).to_owned(), vec![*value])).collect(),
            varies: Vec::new(),
        }
    }

    fn changes(before: &[(&str, f64)], after: &[(&str, f64)]) -> Vec<Change> {
        let lines = compare(&[figures("a", before)], &[figures("a", after)], SAME);
        lines.into_iter().map(|line| line.change).collect()
    }

    fn change(before: f64, varies: f64, difference: f64) -> Change {
        SAME.judge(before, varies, difference)
    }

    #[test]
    fn large_stages_may_grow_by_a_share_and_small_ones_by_the_floor() {
        assert_eq!(change(100.0, 0.0, 3.0), Change::None);
        assert_eq!(change(100.0, 0.0, 3.1), Change::More);
        assert_eq!(change(100.0, 0.0, -3.1), Change::Less);
        assert_eq!(change(1.0, 0.0, SAME.floor_ms - 0.01), Change::None);
        assert_eq!(change(1.0, 0.0, SAME.floor_ms + 0.01), Change::More);
        assert_eq!(change(0.0, 0.0, 1.0), Change::More);
        assert_eq!(change(40.0, 4.0, 4.1), Change::None);
        assert_eq!(change(40.0, 4.0, 4.2), Change::More);
    }

    #[test]
    fn a_stage_that_grew_is_found_though_the_total_hides_it() {
        assert_eq!(
            changes(&[("x", 50.0), ("y", 50.0)], &[("x", 52.0), ("y", 48.0)]),
            [Change::None, Change::More, Change::Less]
        );
    }

    #[test]
    fn a_border_that_moved_a_little_is_no_growth() {
        let changes = |x: f64, y: f64, z: f64| {
            let mut changes =
                changes(&[("x", 1.1), ("y", 4.0), ("z", 30.0)], &[("x", x), ("y", y), ("z", z)]);
            changes.remove(0);
            changes
        };
        assert_eq!(changes(0.4, 4.7, 30.0), [Change::Moved, Change::Moved, Change::None]);
        assert_eq!(changes(1.8, 3.3, 30.0), [Change::Moved, Change::Moved, Change::None]);
        // Not when the two together grew, when it is no neighbour that shrank, or when it is more than a little.
        assert_eq!(changes(0.9, 4.7, 30.0), [Change::None, Change::More, Change::None]);
        assert_eq!(changes(1.8, 4.0, 29.3), [Change::More, Change::None, Change::None]);
        assert_eq!(changes(2.2, 2.9, 30.0), [Change::More, Change::Less, Change::None]);
    }

    #[test]
    fn stages_and_measurements_that_come_or_go_are_found() {
        assert_eq!(changes(&[("x", 1.0)], &[("y", 1.0)]), [Change::None, Change::Gone, Change::Gone]);
        let (one, two) = ([figures("a", &[])], [figures("b", &[])]);
        let lines = compare(&one, &two, SAME);
        assert_eq!(lines.iter().map(|line| &line.change).collect::<Vec<_>>(), [&Change::Gone, &Change::Gone]);
    }

    #[test]
    fn rounds_are_compared_with_their_like_and_the_odd_one_out_does_not_count() {
        let by_tick = [10.0, 12.0, 14.0, 16.0, 18.0];
        let with = |more: f64, odd: f64| {
            let mut after = by_tick.map(|ms| ms + more);
            after[0] += odd;
            difference(&by_tick, &after)
        };
        assert!((with(0.0, 24.0)).abs() < 1e-9 && (with(0.0, -9.0)).abs() < 1e-9);
        assert!((with(1.0, 24.0) - 1.0).abs() < 1e-9);
        assert!((difference(&by_tick, &[11.0]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn of_several_runs_odd_rounds_do_not_count_and_odd_runs_widen_what_is_allowed() {
        let run = |total: [f64; 3]| {
            let stages = vec![("s".to_owned(), vec![1.0; 3])];
            vec![Figures { id: "a".into(), total: total.into(), stages, varies: Vec::new() }]
        };
        let odd_round = merge(&[run([5.0, 6.0, 7.0]), run([5.0, 6.0, 7.1]), run([30.0, 6.0, 7.0])]);
        assert_eq!(odd_round, run([5.0, 6.0, 7.0]));
        let odd_run = merge(&[run([5.0, 6.0, 7.0]), run([9.0, 10.0, 7.0]), run([5.0, 6.0, 7.0])]);
        assert_eq!(odd_run[0].total, [5.0, 6.0, 7.0]);
        assert_eq!(odd_run[0].varies, [("total".to_owned(), 4.0)]);
        let lines = compare(&odd_run, &run([9.0, 10.0, 11.0]), SAME);
        assert_eq!(lines[0].change, Change::None);
        assert_eq!(merge(&[]), []);
    }

    #[test]
    fn figures_are_kept_to_the_microsecond() {
        let figures = Figures::new(&measurement("a", &[1.000_4, 6.000_6], &[("s", &[0.5])]), "b");
        let stages = vec![("s".into(), vec![0.5])];
        let expected = Figures { id: "b".into(), total: vec![1.0, 6.001], stages, varies: Vec::new() };
        assert_eq!(figures, expected);
    }

    #[test]
    fn other_programs_are_told_and_a_reason_is_asked_for() {
        let mut result = result(Vec::new());
        result.versions.insert("rustc".into(), "1.95".into());
        result.versions.insert("peer runc".into(), "1.1".into());
        assert!(Baseline::new(&result, Vec::new(), Vec::new(), " ").is_err());
        let baseline = Baseline::new(&result, Vec::new(), Vec::new(), "first").unwrap();
        assert_eq!(baseline.differences(&result), []);
        result.versions.insert("rustc".into(), "1.96".into());
        result.versions.insert("of no matter".into(), "1".into());
        assert_eq!(baseline.differences(&result), [("rustc".into(), "1.95".into(), "1.96".into())]);
        assert_eq!(baseline.peer_differences(&result), []);
        result.versions.insert("peer runc".into(), "1.2".into());
        assert_eq!(baseline.peer_differences(&result), [("peer runc".into(), "1.1".into(), "1.2".into())]);
    }
}
