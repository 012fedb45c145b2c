//! The page: head figures, then a card for each group with its chart, its tables below, folded.

use std::fmt::Write;

use super::{charts, headlines, markdown::title, number, ratio, spread, svg::escape};
use crate::result::{Measurement, Mode, RunResult, summarize};

const STYLE: &str = include_str!("page.css");

pub(super) fn render(results: &[RunResult]) -> String {
    let mut main = String::from("<h1>husk: benchmarks</h1>");
    if let Some(first) = results.first() {
        // Writing to a string can't fail; so for all others.
        let _ = write!(
            main,
            r#"<p class="sub">{} · commit {} · {}</p>"#,
            escape(first.date.split('T').next().unwrap_or("")),
            escape(&first.commit),
            escape(first.mode.words())
        );
    }
    main.push_str(r#"<div class="tiles">"#);
    for tile in headlines(results) {
        let (value, unit, text) = (escape(&tile.value), escape(&tile.unit), escape(&tile.text));
        let _ =
            write!(main, r#"<div class="tile"><b>{value}<small>{unit}</small></b><span>{text}</span></div>"#);
    }
    main.push_str("</div>");
    for result in results {
        let _ = write!(main, "<h2>{}</h2>", escape(&title(&result.suite)));
        for (name, members) in result.groups() {
            main.push_str(&card(result.mode, name, &members));
        }
        main.push_str(&facts(result));
    }
    main.push_str(footer(results.first().map(|first| first.mode)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>husk: benchmarks</title><style>\n{STYLE}</style></head>\n<body><main>{main}</main></body></html>\n"
    )
}

fn card(mode: Mode, name: &str, members: &[&Measurement]) -> String {
    let curves = members.iter().any(|member| member.along.is_some());
    let chart = if curves { charts::curves(name, members) } else { charts::bars(mode, name, members) };
    let table = table(members);
    let name = escape(name);
    let better = members.iter().any(|member| member.more_is_better);
    let better = if better { "more is better" } else { "less is better" };
    format!(
        r#"<section class="card"><h3>{name} <small>{better}</small></h3>{chart}<details><summary>figures</summary><div class="scroll">{table}</div></details></section>
"#
    )
}

fn table(members: &[&Measurement]) -> String {
    let mut rows =
        String::from("<table><tr><th></th><th>median</th><th>least to most</th><th>to the first</th></tr>");
    for member in members {
        let median = number(summarize(&member.samples).median);
        let (spread, ratio) = (spread(&member.samples), ratio(members, member));
        let label = escape(&member.label);
        let unit = escape(&member.unit);
        let _ = write!(
            rows,
            "<tr><td><b>{label}</b></td><td>{median} {unit}</td><td>{spread}</td><td>{ratio}</td></tr>"
        );
        for stage in member.stages.iter().chain(&member.counts) {
            let median = number(summarize(&stage.samples).median);
            let spread = super::spread(&stage.samples);
            let name = escape(&stage.name);
            let _ = write!(rows, "<tr><td>&emsp;{name}</td><td>{median}</td><td>{spread}</td><td></td></tr>");
        }
    }
    rows + "</table>"
}

fn facts(result: &RunResult) -> String {
    let mut list = String::new();
    let mut add = |key: &str, value: &str| {
        let _ = write!(list, "<dt>{}</dt><dd>{}</dd>", escape(key), escape(value));
    };
    add("measured", &result.date);
    add("commit", &result.commit);
    add("mode", result.mode.words());
    for (key, value) in result.machine.iter().chain(&result.versions).chain(&result.settings) {
        add(key, value);
    }
    format!(r#"<section class="card"><h3>How these were measured</h3><dl>{list}</dl></section>"#)
}

fn footer(mode: Option<Mode>) -> &'static str {
    match mode {
        Some(Mode::Deterministic) => {
            "<footer>A virtual millisecond is a million instructions of an emulated machine with one CPU. Every \
             instruction costs the same there, so ratios between programs in the same run are worth more than single \
             figures. Bars are medians; each dot below a bar is a round.</footer>"
        }
        _ => "<footer>Bars are medians; each dot below a bar is a round.</footer>",
    }
}
