//! Content digests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 digest, written `sha256:<64 hex digits>`. The only algorithm that registries use in practice; others are
/// refused when parsing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    hex: String,
}

/// Why a text is no digest husk can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Another algorithm.
    #[error("digest algorithm {0:?} is not supported: husk verifies sha256 only")]
    Algorithm(String),
    /// Not hex, or not 64 digits.
    #[error("not a digest: {0:?} (expected sha256: and 64 lower-case hex digits)")]
    Malformed(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hasher(Sha256::new_with_prefix(bytes))
    }

    /// The digest of what `hasher` has taken in.
    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        use std::fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in hasher.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self { hex }
    }

    /// The 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

/// Whether `text` is 64 lower-case hex digits.
pub(crate) fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", hex)) if is_hex64(hex) => Ok(Self { hex: hex.to_owned() }),
            Some((algorithm @ ("sha384" | "sha512" | "blake3"), _)) => {
                Err(DigestError::Algorithm(algorithm.to_owned()))
            }
            _ => Err(DigestError::Malformed(text.chars().take(200).collect())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex)
    }
}

/// What an unpacked stack of layers is called: made of the digests of their blobs, in order, which have been verified. What an image's
/// configuration says of their content (diff ids) is not: only whoever unpacks them sees whether it is true.
pub fn disk_key<'a>(blobs: impl IntoIterator<Item = &'a Digest>) -> Digest {
    let names: Vec<String> = blobs.into_iter().map(ToString::to_string).collect();
    Digest::of(names.join(" ").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_parse_and_print() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>().unwrap(), Digest::of(b""));
        for bad in
            ["", "sha256:", "sha256:00", &EMPTY.to_uppercase(), &EMPTY[7..], "md5:00", "sha256:../../x"]
        {
            assert!(matches!(bad.parse::<Digest>(), Err(DigestError::Malformed(_))), "{bad}");
        }
        assert!(matches!("sha512:00".parse::<Digest>(), Err(DigestError::Algorithm(_))));
    }

    #[test]
    fn a_disks_key_is_made_of_all_blobs_in_order() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(disk_key([&a, &b]), Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(disk_key([&a, &b]), disk_key([&b, &a]));
        assert_ne!(disk_key([&a]), disk_key([&a, &a]));
    }
}
