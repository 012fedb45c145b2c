//! What a suite found: the JSON that all other commands read.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The only format there is.
pub(crate) const FORMAT: u32 = 1;

/// How time was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// In the lab: an instruction takes a nanosecond, on one CPU.
    Deterministic,
    /// By the clock, on real KVM.
    Wall,
}

impl Mode {
    /// The unit of time, as a reader should see it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Deterministic => "virtual ms",
            Self::Wall => "ms",
        }
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic: an instruction is a nanosecond",
            Self::Wall => "wall clock",
        }
    }
}

/// Everything that one run of a suite found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunResult {
    pub(crate) format: u32,
    pub(crate) suite: String,
    pub(crate) mode: Mode,
    /// When it began, as `date -u +%FT%TZ` has it.
    pub(crate) date: String,
    /// The source's commit; with `-dirty` when files differ from it.
    pub(crate) commit: String,
    /// CPU, memory, kernel of the machine that measured; in the lab that is the emulated one.
    pub(crate) machine: BTreeMap<String, String>,
    /// What was measured and by what it was built.
    pub(crate) versions: BTreeMap<String, String>,
    /// Rounds and the like.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) measurements: Vec<Measurement>,
}

/// One thing that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measurement {
    /// Unique within the result, and the same in every run.
    pub(crate) id: String,
    /// Those of a group are compared with each other.
    pub(crate) group: String,
    /// Who did it.
    pub(crate) label: String,
    /// Whether it is husk's own.
    pub(crate) own: bool,
    pub(crate) unit: String,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
    /// What the samples go along, from the first to the last, as `pods`; else there is one of each round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) along: Option<String>,
    pub(crate) samples: Vec<f64>,
    /// Parts of the above, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<Stage>,
    /// What was counted beside the time, with the unit in the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) counts: Vec<Stage>,
}

/// A part of what was measured, or a count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// One of each round.
    pub(crate) samples: Vec<f64>,
}

impl RunResult {
    /// Reads a file.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let result: Self =
            serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))?;
        ensure!(
            result.format == FORMAT,
            "{} has format {}, and this program knows format {FORMAT}",
            path.display(),
            result.format
        );
        Ok(result)
    }

    /// Writes a file.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A measurement by its id.
    pub(crate) fn find(&self, id: &str) -> Option<&Measurement> {
        self.measurements.iter().find(|measurement| measurement.id == id)
    }

    /// The groups in order, each with its measurements.
    pub(crate) fn groups(&self) -> Vec<(&str, Vec<&Measurement>)> {
        let mut groups: Vec<(&str, Vec<&Measurement>)> = Vec::new();
        for measurement in &self.measurements {
            match groups.iter_mut().find(|(name, _)| *name == measurement.group) {
                Some((_, members)) => members.push(measurement),
                None => groups.push((&measurement.group, vec![measurement])),
            }
        }
        groups
    }
}

/// Middle and ends of some samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// What the samples say; all zero when there are none.
pub(crate) fn summarize(samples: &[f64]) -> Summary {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else {
        return Summary { median: 0.0, min: 0.0, max: 0.0 };
    };
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Summary { median, min, max }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn measurement(id: &str, samples: &[f64], stages: &[(&str, &[f64])]) -> Measurement {
        Measurement {
            id: id.into(),
            group: "group".into(),
            label: id.into(),
            own: true,
            unit: "ms".into(),
            more_is_better: false,
            along: None,
            samples: samples.into(),
            stages: stages
                .iter()
                .map(|(name, samples)| Stage { name: (*name).into(), samples: (*samples).into() })
                .collect(),
            counts: Vec::new(),
        }
    }

    pub(crate) fn result(measurements: Vec<Measurement>) -> RunResult {
        RunResult {
            format: FORMAT,
            suite: "boot".into(),
            mode: Mode::Deterministic,
            date: "2026-01-01T00:00:00Z".into(),
            commit: "abc".into(),
            machine: BTreeMap::new(),
            versions: BTreeMap::new(),
            settings: BTreeMap::new(),
            measurements,
        }
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two() {
        assert_eq!(summarize(&[5.0, 1.0, 3.0]), Summary { median: 3.0, min: 1.0, max: 5.0 });
        assert_eq!(summarize(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(summarize(&[]).median, 0.0);
    }

    #[test]
    fn a_result_comes_back_as_it_was_written_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/result.json");
        let mut result = result(vec![measurement("a", &[1.5, 2.25], &[("s", &[0.5, 0.25])])]);
        result.versions.insert("qemu".into(), "7.2".into());
        result.save(&path).unwrap();
        assert_eq!(RunResult::load(&path).unwrap(), result);
        let text = fs::read_to_string(&path).unwrap();
        for bad in
            ["{}".into(), text.replace("\"format\": 1", "\"format\": 2"), text.replace("\"suite\"", "\"x\"")]
        {
            fs::write(&path, &bad).unwrap();
            assert!(RunResult::load(&path).is_err(), "{bad}");
        }
    }
}
