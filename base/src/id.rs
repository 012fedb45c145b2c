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

/// The first 12 digits of an id; all of a shorter text.
pub(crate) fn short(id: &str) -> &str {
    id.get(..SHORT_LEN).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ids_have_their_form_and_differ() {
        let (one, two) = (random().unwrap(), random().unwrap());
        for id in [&one, &two] {
            assert!(
                id.len() == LEN && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                "{id}"
            );
        }
        assert_ne!(one, two);
        assert_eq!(short(&one), &one[..12]);
    }
}
