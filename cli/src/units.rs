//! Parsers for the values of options: sizes, CPUs, names.

/// Docker's least memory limit, in bytes.
const MIN_MEMORY: u64 = 6 << 20;
const MAX_NAME: usize = 128;
const MAX_HOSTNAME: usize = 64;

/// `512m`, `2g`, `1.5g`, `1048576`: bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match number.chars().last() {
        Some('k') => (&number[..number.len() - 1], 10),
        Some('m') => (&number[..number.len() - 1], 20),
        Some('g') => (&number[..number.len() - 1], 30),
        Some('t') => (&number[..number.len() - 1], 40),
        _ => (number, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 15 && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || !(fraction.is_empty() || digits(fraction))
        || (fraction.is_empty() && number.contains('.'))
    {
        return Err("expected a size such as 512m or 2g".into());
    }
    let whole: u64 = whole.parse().map_err(|_| "too large")?;
    let mut bytes = u128::from(whole) << shift;
    if !fraction.is_empty() {
        let numerator: u128 = fraction.parse().map_err(|_| "too large")?;
        bytes += (numerator << shift) / 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(u32::MAX));
    }
    u64::try_from(bytes).map_err(|_| "too large".into())
}

/// A memory limit in bytes, at least 6 MiB; 0 for none.
pub(crate) fn parse_memory(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if (1..MIN_MEMORY).contains(&bytes) => Err("the least memory limit is 6m".into()),
        bytes => Ok(bytes),
    }
}

/// A disk size in MiB.
pub(crate) fn parse_storage(text: &str) -> Result<u64, String> {
    let range = husk_sandbox::disk::SIZE_RANGE_MIB;
    match parse_size(text)?.div_ceil(1 << 20) {
        mib if range.contains(&mib) => Ok(mib),
        _ => Err(format!("choose {}m to {}t", range.start(), range.end() >> 20)),
    }
}

/// CPUs with up to three decimals, in thousandths; 0 for no limit.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, String> {
    const EXPECTED: &str = "expected a number of CPUs from 0.01 to 32, such as 1.5";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || !digits(fraction)
        || fraction.len() > 3
        || whole.len() > 3
        || text.is_empty()
        || text == "."
    {
        return Err(EXPECTED.into());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| EXPECTED)? };
    let fraction: u64 = format!("{fraction:0<3}").parse().map_err(|_| EXPECTED)?;
    match whole * 1000 + fraction {
        milli if milli == 0 || (10..=32_000).contains(&milli) => Ok(milli),
        _ => Err(EXPECTED.into()),
    }
}

/// A container's name, by Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if letters && first && (2..=MAX_NAME).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err("expected two or more letters, digits, or _.-, with a letter or digit first".into())
    }
}

/// A signal by its name or number, as it was given.
pub(crate) fn parse_signal_name(text: &str) -> Result<String, String> {
    parse_signal(text).map(|_| text.to_owned())
}

/// A signal's number.
pub(crate) fn parse_signal(text: &str) -> Result<u32, String> {
    let number = husk_sandbox::signals::parse(text).map(i32::unsigned_abs);
    number.ok_or_else(|| format!("invalid signal: {text}"))
}

/// A host name: labels of letters, digits and hyphens, 64 bytes in all, which is the kernel's limit.
pub(crate) fn parse_hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= MAX_HOSTNAME && text.split('.').all(label) {
        Ok(text.into())
    } else {
        Err("expected letters, digits, hyphens and dots, 64 at most".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1048576", 1 << 20),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("10kb", 10 << 10),
            ("1B", 1),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "m", "-1", "1.", ".5g", "1x", "1 g", "99999999999999999999", "999999999999999t", "1.2.3m"]
        {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert!(parse_memory("5m").is_err());
        assert_eq!(parse_storage("10g"), Ok(10 * 1024));
        assert!(parse_storage("1m").is_err() && parse_storage("1000t").is_err());
    }

    #[test]
    fn cpus() {
        for (text, milli) in [("1", 1000), ("1.5", 1500), (".5", 500), ("0.01", 10), ("32", 32_000), ("0", 0)]
        {
            assert_eq!(parse_cpus(text), Ok(milli), "{text}");
        }
        for text in ["", ".", "0.001", "33", "1.2345", "-1", "1e3", "x"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert!(parse_name("web-1").is_ok());
        for bad in ["", "a", "../x", "a/b", "-ab", &"a".repeat(200)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert!(parse_hostname("a-b.example").is_ok());
        for bad in ["", "a b", "-a", "a..b", "a\n", &"a".repeat(65)] {
            assert!(parse_hostname(bad).is_err(), "{bad}");
        }
    }
}
