//! Random ids.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Digits of an id.
const LEN: usize = 64;
/// Digits of an id's short form.
pub(crate) const SHORT_LEN: usize = 12;

/// A new id: 64 lower-case hexadecimal digits, from the system's random numbers.
///
/// # Errors
/// When the system has no random numbers, which a running Linux always has.
pub fn random() -> io::Result<String> {
    let bytes: [u8; LEN / 2] = random_bytes()?;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect())
}

/// Random bytes, at most 256.
///
/// # Errors
/// As [`random`].
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "getrandom(2) may give fewer bytes than asked for beyond 256") };
    let mut bytes = [0; N];
    match getrandom(&mut bytes, GetRandomFlags::empty())? {
        given if given == N => Ok(bytes),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether a text has the form of an id.
pub fn is_id(text: &str) -> bool {
    text.len() == LEN && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first 12 digits of an id, for people; all of a shorter text.
pub fn short(id: &str) -> &str {
    id.get(..SHORT_LEN).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_are_ids_and_differ() {
        let (one, two) = (random().unwrap(), random().unwrap());
        assert!(is_id(&one) && is_id(&two), "{one} {two}");
        assert_ne!(one, two);
        assert_eq!(short(&one), &one[..12]);
    }

    #[test]
    fn other_texts_are_not_ids() {
        let good = "0123456789abcdef".repeat(4);
        assert!(is_id(&good));
        for bad in ["", &good[1..], &format!("{good}0"), &good.replace('f', "F"), &good.replace('f', "g")] {
            assert!(!is_id(bad), "{bad}");
        }
        assert!(!is_id(&"é".repeat(32)));
    }

    #[test]
    fn the_short_form_of_any_text_is_safe() {
        assert_eq!(short("abc"), "abc");
        assert_eq!(short("ééééééé"), "éééééé");
        assert_eq!(short("aéééééé"), "aéééééé");
    }
}
