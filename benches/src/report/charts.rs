//! The charts: bars side by side, split into stages.

use super::{
    budget, number,
    svg::{Anchor, Svg, escape, step},
};
use crate::result::{Measurement, Mode, summarize};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 215.0;
const RIGHT: f64 = 75.0;
const ROW: f64 = 40.0;
const BAR: f64 = 24.0;
const TOP: f64 = 22.0;
const AXIS: f64 = 30.0;
/// About how wide a figure of a segment is, and a character of it.
const CHARACTER: f64 = 6.6;

/// Colours of stages, in order; neighbours differ. They carry white text.
const STAGES: [&str; 11] = [
    "#0f766e", "#2563a8", "#7c5cbf", "#b4478f", "#c2553d", "#a16a12", "#55803a", "#2f7f93", "#5468b8",
    "#8f5aa8", "#64748b",
];
const OWN: &str = "#0f766e";
const OTHER: &str = "#8a94a3";

/// One bar of each measurement of a group, and a legend where they are split.
pub(super) fn bars(mode: Mode, name: &str, members: &[&Measurement]) -> String {
    let names = stage_names(members);
    let most = members
        .iter()
        .map(|member| summarize(&member.samples))
        .map(|s| s.max.max(s.median))
        .fold(0.0, f64::max);
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let bottom = TOP + ROW * f64::from(count);
    let mut svg = Svg::new(WIDTH, bottom + AXIS);
    let scale = if most > 0.0 { (WIDTH - LEFT - RIGHT) / most } else { 0.0 };
    axis(&mut svg, most, scale, bottom);
    let mut y = TOP;
    for member in members {
        bar(&mut svg, mode, member, &names, scale, y);
        y += ROW;
    }
    let unit = members.first().map_or("", |first| first.unit.as_str());
    svg.text([LEFT - 12.0, bottom + 18.0], Anchor::End, "tick", unit);
    svg.finish(name) + &legend(&names)
}

fn axis(svg: &mut Svg, most: f64, scale: f64, bottom: f64) {
    let step = step(most, 8.0);
    let mut value = 0.0;
    while value <= most * 1.0001 {
        let x = LEFT + value * scale;
        svg.line([x, TOP - 6.0, x, bottom], "grid");
        svg.text([x, bottom + 18.0], Anchor::Middle, "tick", &short(value));
        value += step;
    }
}

fn short(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn bar(svg: &mut Svg, mode: Mode, member: &Measurement, names: &[&str], scale: f64, y: f64) {
    let summary = summarize(&member.samples);
    let top = y + (ROW - BAR) / 2.0;
    let middle = y + ROW / 2.0;
    svg.text(
        [LEFT - 12.0, middle + 4.5],
        Anchor::End,
        if member.own { "label own" } else { "label" },
        &member.label,
    );
    let mut x = LEFT;
    if member.stages.is_empty() {
        let width = summary.median * scale;
        let title = format!("{}: {} {}", member.label, number(summary.median), member.unit);
        svg.rect([x, top, width, BAR], if member.own { OWN } else { OTHER }, "bar", &title);
        x += width;
    }
    for stage in &member.stages {
        let median = summarize(&stage.samples).median;
        let width = median * scale;
        let title = format!("{}, {}: {} {}", member.label, stage.name, number(median), member.unit);
        svg.rect([x, top, width, BAR], color(names, &stage.name), "bar", &title);
        let figure = number(median);
        let room = f64::from(u32::try_from(figure.len()).unwrap_or(u32::MAX)) * CHARACTER + 8.0;
        if width > room {
            svg.text([x + width / 2.0, middle + 4.0], Anchor::Middle, "inside", &figure);
        }
        x += width;
    }
    if let Some((value, text)) = budget(mode, &member.id) {
        let at = LEFT + value * scale;
        if at <= WIDTH - RIGHT {
            svg.line([at, top - 7.0, at, top + BAR + 3.0], "budget");
            svg.text([at + 4.0, top - 1.5], Anchor::Start, "budget-text", text);
        }
    }
    for sample in &member.samples {
        svg.circle([LEFT + sample * scale, top + BAR + 4.0], 1.8, "currentColor", &number(*sample));
    }
    let end = x.max(LEFT + summary.max * scale) + 8.0;
    svg.text([end, middle + 4.5], Anchor::Start, "total", &number(summary.median));
}

fn stage_names<'a>(members: &[&'a Measurement]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for stage in members.iter().flat_map(|member| &member.stages) {
        if !names.contains(&stage.name.as_str()) {
            names.push(&stage.name);
        }
    }
    names
}

fn color(names: &[&str], name: &str) -> &'static str {
    let index = names.iter().position(|other| *other == name).unwrap_or(0);
    STAGES[index % STAGES.len()]
}

fn legend(names: &[&str]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let items: Vec<String> = names
        .iter()
        .map(|name| format!(r#"<li><i style="background:{}"></i>{}</li>"#, color(names, name), escape(name)))
        .collect();
    format!(r#"<ul class="legend">{}</ul>"#, items.concat())
}

/// A curve of each measurement whose samples go along something, with the line that fits best.
pub(super) fn curves(name: &str, members: &[&Measurement]) -> String {
    const HEIGHT: f64 = 300.0;
    let longest = members.iter().map(|member| member.samples.len()).max().unwrap_or(0);
    let count = float(longest);
    let most = members.iter().flat_map(|member| &member.samples).copied().fold(0.0, f64::max);
    let (left, right, top, bottom) = (70.0, WIDTH - 20.0, 16.0, HEIGHT);
    let x =
        |index: f64| left + (right - left) * if count > 1.0 { (index - 1.0) / (count - 1.0) } else { 0.5 };
    let y = |value: f64| bottom - (bottom - top) * if most > 0.0 { value / (most * 1.05) } else { 0.0 };
    let mut svg = Svg::new(WIDTH, HEIGHT + AXIS);
    let rise = step(most, 5.0);
    let mut value = 0.0;
    while value <= most * 1.05 {
        svg.line([left, y(value), right, y(value)], "grid");
        svg.text([left - 10.0, y(value) + 4.0], Anchor::End, "tick", &short(value));
        value += rise;
    }
    let stride = step(count, 10.0).max(1.0);
    let mut index = 1.0;
    while index <= count {
        svg.text([x(index), bottom + 18.0], Anchor::Middle, "tick", &short(index));
        index = if index < stride { stride } else { index + stride };
    }
    let (unit, along) =
        members.first().map_or(("", ""), |m| (m.unit.as_str(), m.along.as_deref().unwrap_or("")));
    svg.text([right, bottom + 32.0], Anchor::End, "tick", along);
    svg.text([left - 10.0, top - 6.0], Anchor::End, "tick", unit);
    let mut items = String::new();
    for (number_of, member) in members.iter().enumerate() {
        let color = STAGES[number_of % STAGES.len()];
        let (base, slope) = fit(&member.samples);
        let end = float(member.samples.len());
        if member.samples.len() > 1 {
            svg.line([x(1.0), y(base + slope), x(end), y(base + slope * end)], "fit");
        }
        for (index, sample) in member.samples.iter().enumerate() {
            let title = format!("{}, number {}: {} {unit}", member.label, index + 1, number(*sample));
            svg.circle([x(float(index + 1)), y(*sample)], 4.0, color, &title);
        }
        items += &format!(
            r#"<li><i style="background:{color}"></i>{}: {} {} {} × n {}</li>"#,
            escape(&member.label),
            number(base),
            if slope < 0.0 { "−" } else { "+" },
            number(slope.abs()),
            escape(unit)
        );
    }
    svg.finish(name) + &format!(r#"<ul class="legend">{items}</ul>"#)
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The line through samples at 1, 2, 3, ... with the least squares: its value at 0, and its slope.
fn fit(samples: &[f64]) -> (f64, f64) {
    let count = float(samples.len());
    if samples.len() < 2 {
        return (samples.first().copied().unwrap_or(0.0), 0.0);
    }
    let mean_x = f64::midpoint(1.0, count);
    let mean_y = samples.iter().sum::<f64>() / count;
    let (mut above, mut below) = (0.0, 0.0);
    for (index, sample) in samples.iter().enumerate() {
        let x = float(index + 1) - mean_x;
        above += x * (sample - mean_y);
        below += x * x;
    }
    let slope = above / below;
    (mean_y - slope * mean_x, slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_fitted() {
        let (base, slope) = fit(&[3.0, 5.0, 7.0]);
        assert!((base - 1.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9);
        assert_eq!(fit(&[4.0]), (4.0, 0.0));
        assert_eq!(fit(&[]), (0.0, 0.0));
    }
}
