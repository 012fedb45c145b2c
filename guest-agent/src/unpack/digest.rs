//! SHA-256 of everything that passes by.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::error::Reason;

/// Digest of a layer's uncompressed contents (image-spec config.md, "Layer DiffID").
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiffId([u8; 32]);

impl DiffId {
    /// Reads `sha256:` and 64 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Result<Self, Reason> {
        let hex = text.strip_prefix("sha256:").ok_or(Reason::DiffId)?.as_bytes();
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return Err(Reason::DiffId);
        }
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, Reason> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(Reason::DiffId),
    }
}

/// The hexadecimal digits alone.
impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiffId({self})")
    }
}

/// Passes a stream through and digests it.
pub(super) struct DigestReader<R> {
    inner: R,
    sha: Sha256,
}

impl<R: Read> DigestReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, sha: Sha256::new() }
    }

    /// The digest of all that was read.
    pub(super) fn finish(self) -> DiffId {
        DiffId(self.sha.finalize().into())
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sha.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_what_is_read() {
        let mut reader = DigestReader::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(
            reader.finish().to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(DigestReader::new(io::empty()).finish(), DiffId::parse(EMPTY).unwrap());
    }

    #[test]
    fn only_sha256_in_lower_case_is_a_diff_id() {
        for bad in [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &EMPTY.replace('e', "E"),
            "sha512:00",
            &format!("{EMPTY}0"),
        ] {
            assert!(DiffId::parse(bad).is_err(), "{bad}");
        }
    }
}
