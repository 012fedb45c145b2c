//! What differs between two results.

use std::{fmt::Write, path::Path};

use anyhow::{Result, ensure};

use crate::result::{Measurement, RunResult, Stage, summarize};

/// `husk-bench compare`
pub(crate) fn print(before: &Path, after: &Path) -> Result<()> {
    let (before, after) = (RunResult::load(before)?, RunResult::load(after)?);
    ensure!(
        before.suite == after.suite,
        "these are results of different suites: {} and {}",
        before.suite,
        after.suite
    );
    print!("{}", table(&before, &after));
    Ok(())
}

/// A table of medians, with everything that makes the two results hard to compare above it.
fn table(before: &RunResult, after: &RunResult) -> String {
    let mut text = String::new();
    for (what, from, to) in
        [("mode", before.mode.words(), after.mode.words()), ("commit", &before.commit, &after.commit)]
    {
        if from != to {
            line(&mut text, &format!("{what}: {from} -> {to}"));
        }
    }
    let maps = [
        (&before.machine, &after.machine),
        (&before.versions, &after.versions),
        (&before.settings, &after.settings),
    ];
    for (from, to) in maps {
        let mut keys: Vec<&String> = from.keys().chain(to.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys.into_iter().filter(|key| from.get(*key) != to.get(*key)) {
            let show = |value: Option<&String>| value.map_or("-".to_owned(), Clone::clone);
            line(&mut text, &format!("{key}: {} -> {}", show(from.get(key)), show(to.get(key))));
        }
    }
    let header = ["", "before", "after", "change", "%"];
    line(
        &mut text,
        &format!("{:<58} {:>11} {:>11} {:>11} {:>8}", header[0], header[1], header[2], header[3], header[4]),
    );
    let mut group = "";
    for old in &before.measurements {
        if old.group != group {
            group = &old.group;
            line(&mut text, &format!("{group}:"));
        }
        let Some(new) = after.find(&old.id) else {
            line(&mut text, &format!("  {} is missing in the second", old.label));
            continue;
        };
        row(&mut text, &format!("  {}, {}", old.label, old.unit), &old.samples, &new.samples);
        for (name, from, to) in stages(old, new) {
            row(
                &mut text,
                &format!("    {name}"),
                from.map_or(&[], |s| &s.samples),
                to.map_or(&[], |s| &s.samples),
            );
        }
    }
    for new in after.measurements.iter().filter(|new| before.find(&new.id).is_none()) {
        line(&mut text, &format!("{}: {} is missing in the first", new.group, new.label));
    }
    text
}

fn line(text: &mut String, line: &str) {
    // Writing to a string can't fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

fn row(text: &mut String, name: &str, before: &[f64], after: &[f64]) {
    if before.is_empty() || after.is_empty() {
        line(text, &format!("{name:<58} in one of them only"));
        return;
    }
    let (from, to) = (summarize(before).median, summarize(after).median);
    let percent = if from == 0.0 { String::new() } else { format!("{:+.1}", (to - from) / from * 100.0) };
    line(text, &format!("{name:<58} {from:>11.2} {to:>11.2} {:>+11.2} {percent:>8}", to - from));
}

/// The stages of two measurements in pairs: those of the first in order, then those that only the second has.
fn stages<'a>(
    before: &'a Measurement,
    after: &'a Measurement,
) -> Vec<(&'a str, Option<&'a Stage>, Option<&'a Stage>)> {
    let find = |stages: &'a [Stage], name: &str| stages.iter().find(|stage| stage.name == name);
    let old = before
        .stages
        .iter()
        .map(|stage| (stage.name.as_str(), Some(stage), find(&after.stages, &stage.name)));
    let new = after.stages.iter().filter(|stage| find(&before.stages, &stage.name).is_none());
    old.chain(new.map(|stage| (stage.name.as_str(), None, Some(stage)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::tests::{measurement, result};

    #[test]
    fn differences_are_shown_and_what_has_no_partner_is_named() {
        let mut before = result(vec![
            measurement("a", &[10.0, 12.0, 11.0], &[("one", &[4.0]), ("two", &[7.0])]),
            measurement("gone", &[1.0], &[]),
        ]);
        let after = result(vec![
            measurement("a", &[22.0], &[("one", &[4.0]), ("three", &[1.0])]),
            measurement("new", &[1.0], &[]),
        ]);
        before.versions.insert("rustc".into(), "1".into());
        let text = table(&before, &after);
        assert!(text.contains("rustc: 1 -> -"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  a, ms") && line.ends_with("+100.0")), "{text}");
        assert!(text.lines().any(|line| line.trim().starts_with("one") && line.ends_with("+0.0")), "{text}");
        assert_eq!(text.matches("group:\n").count(), 1, "{text}");
        for needle in ["gone is missing in the second", "new is missing in the first"] {
            assert!(text.contains(needle), "{text}");
        }
        assert_eq!(text.matches("in one of them only").count(), 2, "{text}");
    }
}
