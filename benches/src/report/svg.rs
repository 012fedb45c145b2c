//! Just enough SVG.

use std::fmt::Write;

/// A drawing.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

/// At which end of a text its place is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// A rectangle with a text that is shown when pointed at.
    pub(super) fn rect(&mut self, [x, y, width, height]: [f64; 4], fill: &str, class: &str, title: &str) {
        // Writing to a string can't fail; so for all others.
        let _ = write!(
            self.body,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}" class="{class}"><title>{}</title></rect>"#,
            escape(title)
        );
    }

    pub(super) fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], class: &str) {
        let _ = write!(
            self.body,
            r#"<line x1="{x1:.2}" y1="{y1:.2}" x2="{x2:.2}" y2="{y2:.2}" class="{class}"/>"#
        );
    }

    pub(super) fn circle(&mut self, [x, y]: [f64; 2], radius: f64, fill: &str, title: &str) {
        let _ = write!(
            self.body,
            r#"<circle cx="{x:.2}" cy="{y:.2}" r="{radius}" fill="{fill}"><title>{}</title></circle>"#,
            escape(title)
        );
    }

    pub(super) fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = write!(
            self.body,
            r#"<text x="{x:.2}" y="{y:.2}" text-anchor="{anchor}" class="{class}">{}</text>"#,
            escape(text)
        );
    }

    pub(super) fn finish(self, label: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            r#"<svg viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{body}</svg>"#,
            escape(label)
        )
    }
}

/// Text as HTML and SVG take it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A step for the marks of an axis that goes to `most`: 1, 2 or 5 of some power of ten, so that there are about `count`.
pub(super) fn step(most: f64, count: f64) -> f64 {
    let wanted = most / count;
    if wanted <= 0.0 || !wanted.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(wanted.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= wanted * 0.999).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        for (most, expected) in [(100.0, 20.0), (171.0, 50.0), (7.0, 2.0), (0.3, 0.1), (5.0, 1.0), (0.0, 1.0)]
        {
            let step = step(most, 5.0);
            assert!((step - expected).abs() < 1e-9, "{most}: {step}");
        }
    }
}
