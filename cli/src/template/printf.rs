//! `printf`: Go's verbs `%v %s %q %d %t %x %X %f %e %g %c`, with width, precision and the flags `-+0` and space.

use std::{fmt::Write, iter::Peekable, str::Chars};

use serde_json::Value;

use super::print::{nested, number, type_name};
use crate::go_text;

/// The largest width and precision, as Go has it.
const MAX_WIDTH: usize = 1_000_000;
/// Digits after the point where the verb says none.
const DEFAULT_PRECISION: usize = 6;

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// Formats values. A verb that does not fit its value is shown in the text, as Go does: `%!d(string=x)`.
pub(super) fn printf(format: &str, values: &[&Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter().copied();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = spec(&mut chars);
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                None => {
                    let _ = write!(out, "%!{verb}(MISSING)");
                }
                Some(Value::Null) if verb == 'v' => spec.pad(&mut out, "<nil>", false),
                Some(Value::Null) => {
                    let _ = write!(out, "%!{verb}(<nil>)");
                }
                Some(value) => nested(&mut out, value, &mut |out, scalar| spec.scalar(out, verb, scalar)),
            },
        }
    }
    let extra: Vec<String> = values.map(with_type).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

fn spec(chars: &mut Peekable<Chars<'_>>) -> Spec {
    let mut spec = Spec::default();
    loop {
        match chars.peek() {
            Some('-') => spec.left = true,
            Some('+') => spec.plus = true,
            Some(' ') => spec.space = true,
            Some('0') => spec.zero = true,
            _ => break,
        }
        chars.next();
    }
    spec.width = digits(chars);
    if chars.peek() == Some(&'.') {
        chars.next();
        spec.precision = Some(digits(chars));
    }
    spec
}

fn digits(chars: &mut Peekable<Chars<'_>>) -> usize {
    let mut number = 0;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = (number * 10 + digit as usize).min(MAX_WIDTH);
    }
    number
}

fn with_type(value: &Value) -> String {
    let mut text = String::new();
    super::print::default(&mut text, value);
    if value.is_null() { text } else { format!("{}={text}", type_name(value)) }
}

impl Spec {
    /// Formats what is neither an array nor a map.
    fn scalar(&self, out: &mut String, verb: char, value: &Value) {
        match (value, verb) {
            // Inside arrays and maps, every verb shows it.
            (Value::Null, _) => self.pad(out, "<nil>", false),
            (Value::Bool(value), 'v' | 't') => self.pad(out, if *value { "true" } else { "false" }, false),
            (Value::String(text), 'v' | 's') => self.pad(out, self.cut(text), false),
            (Value::String(text), 'q') => self.pad(out, &go_text::quote(self.cut(text)), false),
            (Value::String(text), 'x' | 'X') => {
                let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                self.pad(out, &in_case(hex, verb), false);
            }
            (Value::Number(value), 'v' | 'd' | 'x' | 'X' | 'c' | 'q') if !value.is_f64() => {
                self.integer(out, verb, value);
            }
            (Value::Number(value), 'v' | 'g' | 'f' | 'e') if value.is_f64() => {
                self.float(out, verb, value.as_f64().unwrap_or_default());
            }
            _ => {
                let _ = write!(out, "%!{verb}({})", with_type(value));
            }
        }
    }

    fn integer(&self, out: &mut String, verb: char, value: &serde_json::Number) {
        let code = value.as_u64().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32);
        let character = code.unwrap_or(char::REPLACEMENT_CHARACTER);
        match verb {
            'c' => self.pad(out, character.encode_utf8(&mut [0; 4]), false),
            'q' => self.pad(out, &format!("{character:?}"), false),
            'x' | 'X' => {
                let number = value.as_i128().unwrap_or_default();
                let hex = format!("{}{:x}", if number < 0 { "-" } else { "" }, number.unsigned_abs());
                self.number(out, &in_case(hex, verb));
            }
            _ => self.number(out, &number(value)),
        }
    }

    fn float(&self, out: &mut String, verb: char, value: f64) {
        let precision = self.precision.unwrap_or(DEFAULT_PRECISION);
        let text = match verb {
            'f' => format!("{value:.precision$}"),
            'e' => {
                let text = format!("{value:.precision$e}");
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
            }
            _ => go_text::float(value, self.precision),
        };
        self.number(out, &text);
    }

    /// A number with its sign, padded.
    fn number(&self, out: &mut String, text: &str) {
        match text.starts_with('-') {
            false if self.plus => self.pad(out, &format!("+{text}"), true),
            false if self.space => self.pad(out, &format!(" {text}"), true),
            _ => self.pad(out, text, true),
        }
    }

    fn cut<'t>(&self, text: &'t str) -> &'t str {
        match self.precision.and_then(|most| text.char_indices().nth(most)) {
            Some((end, _)) => &text[..end],
            None => text,
        }
    }

    fn pad(&self, out: &mut String, text: &str, number: bool) {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if self.zero && number {
            let sign = text.len() - text.trim_start_matches(['+', '-', ' ']).len();
            out.push_str(&text[..sign]);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(&text[sign..]);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(text);
        }
    }
}

fn in_case(hex: String, verb: char) -> String {
    if verb == 'X' { hex.to_uppercase() } else { hex }
}
