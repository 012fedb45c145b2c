//! A report that a person likes to read, of one or several results: Markdown, and a page with charts that needs no other file.

mod charts;
mod html;
mod markdown;
mod svg;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::result::{Measurement, Mode, RunResult, summarize};

/// `husk-bench report`
pub(crate) fn write(results: &[PathBuf], out: &Path) -> Result<()> {
    let results: Vec<RunResult> = results.iter().map(|path| RunResult::load(path)).collect::<Result<_>>()?;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    for (name, text) in [("report.md", markdown::render(&results)), ("report.html", html::render(&results))] {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// A figure at a length at which it can be read.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Least and most of the samples.
fn spread(samples: &[f64]) -> String {
    let summary = summarize(samples);
    format!("{} to {}", number(summary.min), number(summary.max))
}

/// How much of the group's first one this takes, or gives.
fn ratio(group: &[&Measurement], measurement: &Measurement) -> String {
    let first = group.first().map_or(0.0, |first| summarize(&first.samples).median);
    if first == 0.0 {
        return String::new();
    }
    format!("{:.2}", summarize(&measurement.samples).median / first)
}

/// The budgets, in virtual ms: where a measurement of this id has to be by.
fn budget(mode: Mode, id: &str) -> Option<(f64, &'static str)> {
    match (mode, id) {
        (Mode::Deterministic, "bare-start-jailed") => Some((60.0, "user space by 60")),
        (Mode::Deterministic, "run-none") => Some((200.0, "exit by 200")),
        _ => None,
    }
}

/// A figure for the head of the page: what it is, and its value with its unit.
struct Headline {
    value: String,
    unit: String,
    text: String,
}

/// What a reader wants to know first; as far as it was measured.
fn headlines(results: &[RunResult]) -> Vec<Headline> {
    let find = |id: &str| results.iter().find_map(|result| result.find(id));
    let median = |id: &str| find(id).map(|found| summarize(&found.samples).median);
    let mut lines = Vec::new();
    let mut add = |value: Option<f64>, unit: &str, text: &str| {
        if let Some(value) = value {
            lines.push(Headline { value: number(value), unit: unit.into(), text: text.into() });
        }
    };
    let unit = results.first().map_or("ms", |result| result.mode.unit());
    let user_space = find("bare-start-jailed").map(|found| {
        let before = found.stages.iter().filter(|stage| stage.name != "ended");
        before.map(|stage| summarize(&stage.samples).median).sum::<f64>()
    });
    add(user_space, unit, "a bare VM, jailed, from start to user space");
    add(median("run-none"), unit, "husk run from start to exit, everything cleaned up");
    let times = |of: &str, to: &str| Some(median(of)? / median(to)?);
    add(times("run-runc", "run-none"), "×", "husk run's time is what runc takes for the same");
    add(
        times("bare-exit-qemu-microvm", "bare-exit-jailed"),
        "×",
        "husk-vmm's time is what QEMU's microvm takes from start to exit",
    );
    add(median("memory-vmm"), "MiB", "memory of an idle pod's VMM, its guest's apart");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    #[test]
    fn figures_have_a_readable_length() {
        assert_eq!([0.1234, 12.34, 1234.5].map(number), ["0.12", "12.3", "1234"]);
    }

    #[test]
    fn both_pages_hold_all_measurements_and_escape_what_is_foreign() {
        let mut result = result(vec![
            measurement("run-none", &[150.0, 152.0], &[("kernel", &[54.0, 55.0]), ("end", &[96.0, 97.0])]),
            measurement("run-<u>", &[300.0, 299.0], &[]),
        ]);
        result.machine.insert("cpu".into(), "<script>".into());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        result.save(&path).unwrap();
        write(&[path], dir.path()).unwrap();
        let html = fs::read_to_string(dir.path().join("report.html")).unwrap();
        let markdown = fs::read_to_string(dir.path().join("report.md")).unwrap();
        assert!(
            html.contains("run-&lt;u&gt;") && !html.contains("<script>") && !html.contains("<u>"),
            "{html}"
        );
        assert!(html.contains("<svg") && html.contains("kernel") && html.contains("151"), "{html}");
        assert!(
            !html.contains("http://") || html.contains("http://www.w3.org/2000/svg"),
            "it refers to others"
        );
        assert!(markdown.contains("| run-none |") && markdown.contains("151"), "{markdown}");
    }
}
