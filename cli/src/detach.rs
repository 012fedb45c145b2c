//! The keys that detach a terminal from a container, which goes on.

use std::str::FromStr;

/// Docker's: Ctrl-P, Ctrl-Q.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// A sequence of keys. Empty: none detaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys(Vec<u8>);

/// A key that is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown character: '{0}': use single characters or ctrl-X with X one of a-z, @, ^, [, comma, _")]
pub(crate) struct KeysError(String);

impl FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, KeysError> {
    let unknown = || KeysError(text.to_owned());
    if let [single] = text.as_bytes() {
        return Ok(*single);
    }
    match text.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some([letter @ b'A'..=b'Z']) => Ok(letter - b'A' + 1),
        Some([b'@']) => Ok(0),
        Some([b'[']) => Ok(27),
        Some([b'\\']) => Ok(28),
        Some([b']']) => Ok(29),
        Some([b'^']) => Ok(30),
        Some([b'_']) => Ok(31),
        _ => Err(unknown()),
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Scanner {
    keys: Keys,
    /// How many of them have been typed, and are held back.
    seen: usize,
}

/// What becomes of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// They are for the container.
    Pass(Vec<u8>),
    /// These are for the container, and then it is detached from.
    Detach(Vec<u8>),
}

impl Scanner {
    pub(crate) fn new(keys: Keys) -> Self {
        Self { keys, seen: 0 }
    }

    /// Takes typed bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Typed {
        let keys = &self.keys.0;
        let mut pass = Vec::with_capacity(bytes.len() + self.seen);
        for byte in bytes {
            if keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == keys.len() {
                    self.seen = 0;
                    return Typed::Detach(pass);
                }
                continue;
            }
            pass.extend_from_slice(&keys[..self.seen]);
            self.seen = usize::from(keys.first() == Some(byte));
            if self.seen == 0 {
                pass.push(*byte);
            }
        }
        Typed::Pass(pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(keys: &str) -> Scanner {
        Scanner::new(keys.parse().unwrap())
    }

    #[test]
    fn keys_have_dockers_form() {
        for (text, bytes) in [
            (DEFAULT, vec![16, 17]),
            ("a", vec![b'a']),
            ("ctrl-@,ctrl-[,ctrl-_", vec![0, 27, 31]),
            ("ctrl-a,x", vec![1, b'x']),
            ("", vec![]),
        ] {
            assert_eq!(text.parse(), Ok(Keys(bytes)), "{text}");
        }
        for wrong in ["ctrl-", "ctrl-1", "alt-x", "ctrl-p,", "ab"] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_keys_detach_also_when_they_come_one_by_one() {
        let mut one = scanner(DEFAULT);
        assert_eq!(one.take(b"ls\r\x10\x11more"), Typed::Detach(b"ls\r".to_vec()));
        let mut two = scanner(DEFAULT);
        assert_eq!(two.take(b"\x10"), Typed::Pass(vec![]));
        assert_eq!(two.take(b"\x11"), Typed::Detach(vec![]));
    }

    #[test]
    fn keys_that_are_not_followed_by_the_others_are_passed() {
        let mut scanner = scanner(DEFAULT);
        assert_eq!(scanner.take(b"\x10"), Typed::Pass(vec![]));
        assert_eq!(scanner.take(b"a"), Typed::Pass(b"\x10a".to_vec()));
        assert_eq!(scanner.take(b"\x10\x10"), Typed::Pass(b"\x10".to_vec()));
        assert_eq!(scanner.take(b"\x11"), Typed::Detach(vec![]));
    }

    #[test]
    fn without_keys_nothing_detaches() {
        assert_eq!(scanner("").take(b"\x10\x11"), Typed::Pass(b"\x10\x11".to_vec()));
    }
}
