//! The committed figures, and what makes a new figure too large.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::result::{Measurement, RunResult, summarize};

/// A stage may grow by so much of itself ...
const SHARE: f64 = 0.03;
/// ... and in any case by so many virtual ms: runs of the same code differ by this in stages that wait for the kernel.
const FLOOR_MS: f64 = 0.3;
/// What the figures depend on, beside the code: by what it was built, and on what it ran.
const DEPENDS_ON: [&str; 3] = ["rustc", "guest kernel", "lab"];

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    /// Why the figures are as they are now.
    pub(crate) reason: String,
    pub(crate) date: String,
    pub(crate) commit: String,
    /// What the figures depend on, beside the code.
    pub(crate) made_with: BTreeMap<String, String>,
    pub(crate) figures: Vec<Figures>,
}

/// Those of one measurement, in virtual ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    pub(crate) id: String,
    pub(crate) total: f64,
    pub(crate) stages: Vec<(String, f64)>,
}

impl Figures {
    /// The measurement's figures, under the name `id`.
    pub(crate) fn new(measurement: &Measurement, id: &str) -> Self {
        Self {
            id: id.into(),
            total: figure(&measurement.samples),
            stages: measurement.stages.iter().map(|s| (s.name.clone(), figure(&s.samples))).collect(),
        }
    }
}

/// The median, to the microsecond.
fn figure(samples: &[f64]) -> f64 {
    (summarize(samples).median * 1000.0).round() / 1000.0
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

    /// A baseline of these figures.
    pub(crate) fn new(result: &RunResult, figures: Vec<Figures>, reason: &str) -> Result<Self> {
        ensure!(!reason.trim().is_empty(), "a baseline needs a reason");
        let made_with =
            DEPENDS_ON.map(|key| (key.to_owned(), result.versions.get(key).cloned().unwrap_or_default()));
        Ok(Self {
            reason: reason.trim().into(),
            date: result.date.clone(),
            commit: result.commit.clone(),
            made_with: made_with.into(),
            figures,
        })
    }

    /// Why these figures can't be compared with the baseline's: the program that differs, its version then and now.
    pub(crate) fn differences(&self, result: &RunResult) -> Vec<(String, String, String)> {
        let empty = String::new();
        DEPENDS_ON
            .iter()
            .filter_map(|key| {
                let then = self.made_with.get(*key).unwrap_or(&empty);
                let now = result.versions.get(*key).unwrap_or(&empty);
                (then != now).then(|| ((*key).to_owned(), then.clone(), now.clone()))
            })
            .collect()
    }
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
    /// It is in one of the two only.
    Gone,
}

/// One line of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) id: String,
    /// `total` is one, too.
    pub(crate) stage: String,
    pub(crate) before: Option<f64>,
    pub(crate) after: Option<f64>,
    pub(crate) change: Change,
}

/// Compares all figures of the baseline with new ones.
pub(crate) fn compare(before: &[Figures], after: &[Figures]) -> Vec<Line> {
    let mut lines = Vec::new();
    for old in before {
        let new = after.iter().find(|new| new.id == old.id);
        compare_one(old, new, &mut lines);
    }
    for new in after.iter().filter(|new| before.iter().all(|old| old.id != new.id)) {
        lines.push(line(&new.id, "total", None, Some(new.total)));
    }
    lines
}

fn compare_one(old: &Figures, new: Option<&Figures>, lines: &mut Vec<Line>) {
    lines.push(line(&old.id, "total", Some(old.total), new.map(|new| new.total)));
    let Some(new) = new else {
        return;
    };
    let find = |stages: &[(String, f64)], name: &str| {
        stages.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    };
    for (name, value) in &old.stages {
        lines.push(line(&old.id, name, Some(*value), find(&new.stages, name)));
    }
    for (name, value) in &new.stages {
        if find(&old.stages, name).is_none() {
            lines.push(line(&old.id, name, None, Some(*value)));
        }
    }
}

fn line(id: &str, stage: &str, before: Option<f64>, after: Option<f64>) -> Line {
    let change = match (before, after) {
        (Some(before), Some(after)) => change(before, after),
        _ => Change::Gone,
    };
    Line { id: id.into(), stage: stage.into(), before, after, change }
}

fn change(before: f64, after: f64) -> Change {
    let allowed = (before * SHARE).max(FLOOR_MS);
    if after - before > allowed {
        Change::More
    } else if before - after > allowed {
        Change::Less
    } else {
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    fn figures(id: &str, stages: &[(&str, f64)]) -> Figures {
        Figures {
            id: id.into(),
            total: stages.iter().map(|(_, value)| value).sum(),
            stages: stages.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    fn changes(before: &[(&str, f64)], after: &[(&str, f64)]) -> Vec<Change> {
        let lines = compare(&[figures("a", before)], &[figures("a", after)]);
        lines.into_iter().map(|line| line.change).collect()
    }

    #[test]
    fn large_stages_may_grow_by_a_share_and_small_ones_by_the_floor() {
        assert_eq!(change(100.0, 103.0), Change::None);
        assert_eq!(change(100.0, 103.1), Change::More);
        assert_eq!(change(100.0, 96.9), Change::Less);
        assert_eq!(change(1.0, 1.0 + FLOOR_MS - 0.01), Change::None);
        assert_eq!(change(1.0, 1.0 + FLOOR_MS + 0.01), Change::More);
        assert_eq!(change(0.0, 1.0), Change::More);
    }

    #[test]
    fn a_stage_that_grew_is_found_though_the_total_hides_it() {
        assert_eq!(
            changes(&[("x", 50.0), ("y", 50.0)], &[("x", 52.0), ("y", 48.0)]),
            [Change::None, Change::More, Change::Less]
        );
    }

    #[test]
    fn stages_and_measurements_that_come_or_go_are_found() {
        assert_eq!(changes(&[("x", 1.0)], &[("y", 1.0)]), [Change::None, Change::Gone, Change::Gone]);
        let (one, two) = ([figures("a", &[])], [figures("b", &[])]);
        let lines = compare(&one, &two);
        assert_eq!(lines.iter().map(|line| &line.change).collect::<Vec<_>>(), [&Change::Gone, &Change::Gone]);
    }

    #[test]
    fn the_median_is_what_counts() {
        let figures = Figures::new(&measurement("a", &[1.0, 6.0, 2.0], &[("s", &[0.5, 1.0])]), "b");
        assert_eq!(figures, Figures { id: "b".into(), total: 2.0, stages: vec![("s".into(), 0.75)] });
    }

    #[test]
    fn other_programs_are_told_and_a_reason_is_asked_for() {
        let mut result = result(Vec::new());
        result.versions.insert("rustc".into(), "1.95".into());
        assert!(Baseline::new(&result, Vec::new(), " ").is_err());
        let baseline = Baseline::new(&result, Vec::new(), "first").unwrap();
        assert_eq!(baseline.differences(&result), []);
        result.versions.insert("rustc".into(), "1.96".into());
        result.versions.insert("of no matter".into(), "1".into());
        assert_eq!(baseline.differences(&result), [("rustc".into(), "1.95".into(), "1.96".into())]);
    }
}
