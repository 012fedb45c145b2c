//! Text as Go's standard library writes and reads it: floating-point numbers, quoted strings, durations.

use std::fmt::Write;

/// A number in the form of `%g`: with `precision` significant digits, or with as many as tell it from all others.
///
/// Large and small numbers have an exponent, as in `1e+06`.
pub(crate) fn float(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return match value {
            _ if value.is_nan() => "NaN".into(),
            _ if value > 0.0 => "+Inf".into(),
            _ => "-Inf".into(),
        };
    }
    let scientific = match precision {
        Some(digits) => format!("{value:.*e}", digits.max(1) - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    // Go leaves trailing zeros of a fraction out.
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let limit =
        precision.map_or(LEAST_LARGE_EXPONENT, |digits| i32::try_from(digits.max(1)).unwrap_or(i32::MAX));
    if exponent < -4 || exponent >= limit {
        return format!("{sign}{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    if exponent < 0 {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    }
    let whole = usize::try_from(exponent).unwrap_or(0) + 1;
    if digits.len() <= whole {
        format!("{sign}{digits:0<whole$}")
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// The default form writes a million and more with an exponent.
const LEAST_LARGE_EXPONENT: i32 = 6;

/// A string in double quotes, with escape sequences for all that can't be printed.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let escape = match c {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '\u{b}' => "\\v",
            _ => "",
        };
        let number = u32::from(c);
        let printable = c == '\'' || c.escape_debug().len() == 1;
        // Writing to a string can't fail.
        let _ = match number {
            _ if !escape.is_empty() => quoted.write_str(escape),
            _ if printable => quoted.write_char(c),
            0..0x80 => write!(quoted, "\\x{number:02x}"),
            0x80..0x1_0000 => write!(quoted, "\\u{number:04x}"),
            _ => write!(quoted, "\\U{number:08x}"),
        };
    }
    quoted.push('"');
    quoted
}

/// A duration of Go's in nanoseconds: `10m`, `1h30m`, `1.5s`, `-2us`. `None`: not a duration, or too long.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_length = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(number_length);
        let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        total += nanoseconds(number, unit)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn nanoseconds(number: &str, unit: &str) -> Option<i128> {
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // 18 digits are finer than a nanosecond in any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole * unit + fraction * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats() {
        for (value, precision, text) in [
            (0.0, None, "0"),
            (1.0, None, "1"),
            (1.5, None, "1.5"),
            (-2.25, None, "-2.25"),
            (100_000.0, None, "100000"),
            (1e6, None, "1e+06"),
            (1_234_567.0, None, "1.234567e+06"),
            (0.0001, None, "0.0001"),
            (0.000_01, None, "1e-05"),
            (1e21, None, "1e+21"),
            (1.024, Some(4), "1.024"),
            (1.048_576, Some(4), "1.049"),
            (142.345, Some(3), "142"),
            (999.95, Some(3), "1e+03"),
            (10_000.0, Some(4), "1e+04"),
            (10.0, Some(4), "10"),
            (f64::NAN, None, "NaN"),
            (f64::INFINITY, None, "+Inf"),
        ] {
            assert_eq!(float(value, precision), text);
        }
    }

    #[test]
    fn quoted_strings() {
        for (text, quoted) in [
            ("", r#""""#),
            ("sh -c 'ls -la'", r#""sh -c 'ls -la'""#),
            ("a\"b\\c\n\t\u{7}", r#""a\"b\\c\n\t\a""#),
            ("\u{1b}[0m\u{7f}", r#""\x1b[0m\x7f""#),
            ("日本…", r#""日本…""#),
            ("\u{200b}\u{e0001}", r#""\u200b\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }

    #[test]
    fn durations() {
        const SECOND: i64 = 1_000_000_000;
        for (text, expected) in [
            ("0", Some(0)),
            ("10m", Some(600 * SECOND)),
            ("1h30m", Some(5400 * SECOND)),
            ("1.5h", Some(5400 * SECOND)),
            ("-1m", Some(-60 * SECOND)),
            ("+5s", Some(5 * SECOND)),
            (".5s", Some(SECOND / 2)),
            ("5.s", Some(5 * SECOND)),
            ("2us", Some(2000)),
            ("2µs3ns", Some(2003)),
            ("1ms", Some(1_000_000)),
            ("2562047h47m16.854775807s", Some(i64::MAX)),
            ("2562047h47m16.854775808s", None),
            ("", None),
            ("-", None),
            ("3", None),
            ("1d", None),
            ("h", None),
            (".s", None),
            ("1.2.3s", None),
            ("1 h", None),
            ("9999999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
