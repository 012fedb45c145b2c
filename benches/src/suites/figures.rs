//! What a guest measures by itself: lines `figure NAME UNIT VALUE` on its console.

use anyhow::{Context, Result, bail, ensure};

/// One of them.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) value: f64,
}

/// All that are among the lines of a console.
///
/// # Errors
/// When one is no figure, or there is none.
pub(super) fn read(said: &str) -> Result<Vec<Figure>> {
    let lines = said.lines().filter_map(|line| line.trim().strip_prefix("figure "));
    let figures: Vec<Figure> = lines.map(figure).collect::<Result<_>>()?;
    ensure!(!figures.is_empty(), "the guest had no figures: {said:?}");
    Ok(figures)
}

fn figure(line: &str) -> Result<Figure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, unit, value] = words[..] else { bail!("the guest has no such figure: {line:?}") };
    let value: f64 = value.parse().with_context(|| format!("the guest said {line:?}"))?;
    ensure!(value.is_finite() && value > 0.0, "the guest measured nothing: {line:?}");
    Ok(Figure { name: name.into(), unit: unit.into(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_among_other_lines() {
        let said =
            "[    0.1] something\r\nfigure small-stat files/s 123.5\r\nfigure read MB/s 7\r\nfinished\r\n";
        let figures = read(said).unwrap();
        let found: Vec<_> =
            figures.iter().map(|figure| (figure.name.as_str(), figure.unit.as_str(), figure.value)).collect();
        assert_eq!(found, [("small-stat", "files/s", 123.5), ("read", "MB/s", 7.0)]);
    }

    #[test]
    fn what_is_no_figure_is_an_error() {
        let bad = ["ping us", "ping us x", "ping us 0", "ping us inf", "ping us 1 2"];
        for line in bad.map(|figure| format!("figure {figure}\nfigure good us 1\n")) {
            assert!(read(&line).is_err(), "{line}");
        }
        assert!(read("nothing\n").is_err());
    }
}
