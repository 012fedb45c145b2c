//! Numbers in pax records, and in the maps of sparse files that came with them.

use super::TarError;

/// Decimal digits, up to what a file offset can hold.
pub(super) fn decimal(digits: &[u8]) -> Result<u64, TarError> {
    const BAD: TarError = TarError::Malformed("a number in a pax record is not one");
    if digits.is_empty() {
        return Err(BAD);
    }
    let value = digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'9' => {
            value.checked_mul(10).and_then(|value| value.checked_add(i64::from(digit - b'0'))).ok_or(BAD)
        }
        _ => Err(BAD),
    });
    value.map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_up_to_a_file_offset_are_a_number() {
        assert_eq!(decimal(b"0").unwrap(), 0);
        assert_eq!(decimal(b"9223372036854775807").unwrap(), i64::MAX.unsigned_abs());
        for bad in [&b""[..], b"9223372036854775808", b"-1", b"+1", b" 1", b"1x"] {
            assert!(decimal(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
