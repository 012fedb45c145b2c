//! Docker's sizes: `10m`, `1.5GB`, `512 KiB`.

/// The value of `k` where Docker counts in thousands, as for `max-size`.
pub(super) const DECIMAL: u32 = 1000;
/// The value of `k` where Docker counts in powers of two, as for `max-buffer-size`.
pub(super) const BINARY: u32 = 1024;

/// `text` in bytes; `None` if Docker would not take it either.
pub(super) fn parse(text: &str, kilo: u32) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, suffix) = (text[..=end].trim_end_matches(' '), &text[end + 1..]);
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let suffix = suffix.to_ascii_lowercase();
    let (power, rest) = match suffix.chars().next() {
        None | Some('b') => (0, suffix.as_str()),
        Some(unit) => (i32::try_from("kmgtp".find(unit)?).ok()? + 1, &suffix[1..]),
    };
    let known = matches!(rest, "" | "b") || (power > 0 && rest == "ib");
    let bytes = number.parse::<f64>().ok()? * f64::from(kilo).powi(power);
    if !known || bytes >= f64::from(u32::MAX) * f64::from(1 << 30) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: below 2^62, no sign"
    )]
    Some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, decimal, binary) in [
            ("0", 0, 0),
            ("10", 10, 10),
            ("10b", 10, 10),
            ("10m", 10_000_000, 10 << 20),
            ("1.5GB", 1_500_000_000, 3 << 29),
            ("512 KiB", 512_000, 512 << 10),
            ("2t", 2_000_000_000_000, 2 << 40),
            ("1P", 1_000_000_000_000_000, 1 << 50),
        ] {
            assert_eq!(parse(text, DECIMAL), Some(decimal), "{text}");
            assert_eq!(parse(text, BINARY), Some(binary), "{text}");
        }
        for text in
            ["", "m", "-1m", "10x", "10bb", "10mib2", "1.2.3m", "10kk", "1e3", "99999999p", "ten", "m10"]
        {
            assert_eq!(parse(text, DECIMAL), None, "{text}");
        }
    }
}
