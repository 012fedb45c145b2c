//! The Markdown page: tables, with bars made of characters.

use std::fmt::Write;

use super::{number, ratio, spread};
use crate::result::{Measurement, RunResult, Stage, summarize};

const BAR: f64 = 24.0;

pub(super) fn render(results: &[RunResult]) -> String {
    let mut page = String::from("# husk: benchmarks\n");
    for result in results {
        // Writing to a string can't fail.
        let _ = writeln!(page, "\n## {}\n\n{}", title(&result.suite), facts(result));
        for (name, members) in result.groups() {
            let _ = writeln!(page, "### {name}\n\n{}", group(&members));
        }
    }
    page
}

/// The name of a suite, for people.
pub(super) fn title(suite: &str) -> String {
    match suite {
        "boot" => "Starts and ends".into(),
        "gate" => "The gate's starts".into(),
        "scale" => "Many at once".into(),
        "io" => "Disk, network, streams".into(),
        "ctr" => "containerd's runtimes".into(),
        "fs" => "A shared directory".into(),
        other => other.into(),
    }
}

fn facts(result: &RunResult) -> String {
    let mut text = format!("- {} ({}), commit {}\n", result.date, result.mode.words(), result.commit);
    for map in [&result.machine, &result.versions, &result.settings] {
        let items: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        if !items.is_empty() {
            let _ = writeln!(text, "- {}", cell(&items.join("; ")));
        }
    }
    text
}

fn group(members: &[&Measurement]) -> String {
    let unit = members.first().map_or("", |first| first.unit.as_str());
    let most = members.iter().map(|m| summarize(&m.samples).median).fold(0.0, f64::max);
    let mut text = format!("| | {unit} | least to most | to the first | |\n|---|---|---|---|---|\n");
    for member in members {
        let median = summarize(&member.samples).median;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            cell(&member.label),
            number(median),
            spread(&member.samples),
            ratio(members, member),
            bar(median, most)
        );
    }
    text + &stages(members, "stage", |member| &member.stages)
        + &stages(members, "count", |member| &member.counts)
}

/// A column for each measurement that has some of these parts, and a row for each part.
fn stages(members: &[&Measurement], what: &str, parts: fn(&Measurement) -> &Vec<Stage>) -> String {
    let members: Vec<&&Measurement> = members.iter().filter(|member| parts(member).len() > 1).collect();
    let mut names: Vec<&str> = Vec::new();
    for stage in members.iter().flat_map(|member| parts(member)) {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let labels: Vec<String> = members.iter().map(|member| cell(&member.label)).collect();
    let mut text = format!("\n| {what} | {} |\n|---|{}\n", labels.join(" | "), "---|".repeat(labels.len()));
    for name in names {
        let values: Vec<String> = members
            .iter()
            .map(|member| {
                let stage = parts(member).iter().find(|stage| stage.name == name);
                stage.map_or(String::new(), |stage| number(summarize(&stage.samples).median))
            })
            .collect();
        let _ = writeln!(text, "| {} | {} |", cell(name), values.join(" | "));
    }
    text
}

fn bar(value: f64, most: f64) -> String {
    let eighths = if most > 0.0 { (value / most * BAR * 8.0).round() } else { 0.0 };
    let mut text = String::new();
    let mut left = eighths;
    while left >= 8.0 {
        text.push('█');
        left -= 8.0;
    }
    for (least, part) in [(7.0, '▉'), (6.0, '▊'), (5.0, '▋'), (4.0, '▌'), (3.0, '▍'), (2.0, '▎'), (1.0, '▏')]
    {
        if left >= least {
            text.push(part);
            break;
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!(bar(10.0, 10.0), "█".repeat(24));
        assert_eq!(bar(5.0, 10.0), "█".repeat(12));
        assert_eq!(bar(0.0, 10.0), "");
        assert_eq!(bar(1.0, 96.0), "▎");
        assert_eq!(bar(1.0, 0.0), "");
    }
}
