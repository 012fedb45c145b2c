//! Durations, sizes and texts for people, in the words of Docker.

use std::{collections::BTreeMap, time::Duration};

use unicode_width::UnicodeWidthChar;

use crate::go_text;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];
/// A command line as Docker shows it: an argument with a space is in quotes.
pub(crate) fn command_line(words: &[String]) -> String {
    let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Columns of a command that lists show.
const SHORT_COMMAND: usize = 20;

/// A duration: `Less than a second`, `5 minutes`, `About an hour`, `3 weeks`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Half an hour and more is an hour.
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        _ => match hours {
            0..=1 => "About an hour".into(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            // Years are not rounded.
            _ => format!("{} years", seconds / 3600 / 24 / 365),
        },
    }
}

/// A duration with `ago`.
pub(crate) fn ago(since: Duration) -> String {
    duration(since) + " ago"
}

/// A size in steps of 1000 with this many digits: `1.024kB`, `142MB`. Docker's lists have 3 digits, its sums 4.
pub(crate) fn size(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, &DECIMAL, digits)
}

/// A size in steps of 1024 with 4 digits: `1.5MiB`.
pub(crate) fn bytes_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str; 9], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    go_text::float(value, Some(digits)) + units[unit]
}

/// A share of 100 with two decimals: `0.15%`.
pub(crate) fn percent(value: f64) -> String {
    format!("{value:.2}%")
}

/// The start of an id, without the name of its hash: `sha256:` is left out.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, hex)| hex);
    husk_base::id::short(id)
}

/// A text that takes at most `columns` columns of a terminal, with `…` for what is cut off.
pub(crate) fn ellipsis(text: &str, columns: usize) -> String {
    let width = |c: char| c.width().unwrap_or(0);
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let fits = |c: &char| {
        let fits = width(*c) <= left;
        left = left.saturating_sub(width(*c));
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// A command in quotes, as `ps` shows it; whole with `--no-trunc`.
pub(crate) fn command(command: &str, whole: bool) -> String {
    if whole { go_text::quote(command) } else { go_text::quote(&ellipsis(command, SHORT_COMMAND)) }
}

/// Labels on one line: `a=1,b=2`.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const WEEK: u64 = 7 * DAY;
    const MONTH: u64 = 30 * DAY;

    #[test]
    fn durations() {
        assert_eq!(duration(Duration::from_millis(450)), "Less than a second");
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (2, "2 seconds"),
            (59, "59 seconds"),
            (MINUTE, "About a minute"),
            (2 * MINUTE - 1, "About a minute"),
            (2 * MINUTE, "2 minutes"),
            (35 * MINUTE + 40, "35 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * MINUTE, "About an hour"),
            (HOUR + 31 * MINUTE, "2 hours"),
            (3 * HOUR + 29 * MINUTE, "3 hours"),
            (3 * HOUR + 59 * MINUTE, "4 hours"),
            (DAY, "24 hours"),
            (DAY + 12 * HOUR, "36 hours"),
            (2 * DAY, "2 days"),
            (7 * DAY, "7 days"),
            (13 * DAY + 5 * HOUR, "13 days"),
            (2 * WEEK, "2 weeks"),
            (4 * WEEK + 3 * DAY, "4 weeks"),
            (MONTH, "4 weeks"),
            (MONTH + 2 * WEEK, "6 weeks"),
            (2 * MONTH, "2 months"),
            (3 * MONTH + WEEK, "3 months"),
            (24 * MONTH, "24 months"),
            (24 * MONTH + 2 * WEEK, "2 years"),
            (3 * 365 * DAY + 2 * MONTH, "3 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
        assert_eq!(ago(Duration::from_secs(7 * HOUR)), "7 hours ago");
    }

    #[test]
    fn sizes() {
        for (bytes, digits, text) in [
            (0, 3, "0B"),
            (999, 3, "999B"),
            (1000, 4, "1kB"),
            (1024, 4, "1.024kB"),
            (1024, 3, "1.02kB"),
            (1_048_576, 4, "1.049MB"),
            (4_261_550, 3, "4.26MB"),
            (142_345_678, 3, "142MB"),
            (142_345_678, 4, "142.3MB"),
            (3_420_000_000, 4, "3.42GB"),
            (5_372_000_000_000, 4, "5.372TB"),
            (999_999, 3, "1e+03kB"),
            (u64::MAX, 4, "18.45EB"),
        ] {
            assert_eq!(size(bytes, digits), text, "{bytes}");
        }
        for (bytes, text) in [
            (0, "0B"),
            (1024, "1KiB"),
            (1 << 20, "1MiB"),
            (3 << 19, "1.5MiB"),
            (1023 << 20, "1023MiB"),
            (3_672_197_038, "3.42GiB"),
        ] {
            assert_eq!(bytes_size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn percentages() {
        for (value, text) in [(0.0, "0.00%"), (0.154, "0.15%"), (100.0, "100.00%"), (399.999, "400.00%")] {
            assert_eq!(percent(value), text);
        }
    }

    #[test]
    fn texts_are_cut_to_columns() {
        for (text, columns, cut) in [
            ("short", 20, "short"),
            ("exactly twenty chars", 20, "exactly twenty chars"),
            ("nginx -g 'daemon off;'", 20, "nginx -g 'daemon of…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("", 0, ""),
        ] {
            assert_eq!(ellipsis(text, columns), cut);
        }
        assert_eq!(command("sh -c 'ls -la'", false), r#""sh -c 'ls -la'""#);
        assert_eq!(command("nginx -g 'daemon off;'", false), r#""nginx -g 'daemon of…""#);
        assert_eq!(command("nginx -g \"daemon off;\"", true), r#""nginx -g \"daemon off;\"""#);
    }

    #[test]
    fn ids_and_labels() {
        assert_eq!(short_id("sha256:a5a665ff33eced1e0803148700880edab4"), "a5a665ff33ec");
        assert_eq!(short_id("a5a665ff33eced1e0803148700880edab4"), "a5a665ff33ec");
        assert_eq!(short_id("abc"), "abc");
        let map = BTreeMap::from([("storage", "ssd"), ("cpu", "6"), ("none", "")]);
        let map = map.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(labels(&map), "cpu=6,none=,storage=ssd");
    }
}
