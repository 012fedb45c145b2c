//! Image references, as `github.com/distribution/reference` defines them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::{DigestError, is_hex64};

#[cfg(test)]
mod tests;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository path, the domain not counted.
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;
/// Bound on what is looked at at all: domain, path, tag and digest, with room to spare.
const MAX_TEXT: usize = 1024;

/// A normalised image reference: domain, path, and a tag or a digest or both.
///
/// Parsing fills in what Docker fills in: `busybox` becomes `docker.io/library/busybox:latest`. `Display` writes
/// the full form, which parses back to the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("the image name is empty")]
    Empty,
    /// Longer than any reference can be.
    #[error("the image name is too long: {0} characters (the path may have {MAX_PATH})")]
    TooLong(usize),
    /// Upper case in the repository path.
    #[error("image name {0:?} has upper-case letters: repository names are lower case")]
    UpperCase(String),
    /// Looks like an image id.
    #[error("{0:?} is an image id, not a name: 64 hex digits cannot be a repository name")]
    LooksLikeId(String),
    /// The host part is wrong.
    #[error("image name {name:?} has an invalid registry host {domain:?} (expected HOST or HOST:PORT)")]
    Domain {
        /// The whole text.
        name: String,
        /// The part that is wrong.
        domain: String,
    },
    /// The path is wrong.
    #[error(
        "image name {name:?} has an invalid part {part:?}: allowed are lower-case letters and digits, separated by \
         '.', '_', '__' or '-'"
    )]
    Path {
        /// The whole text.
        name: String,
        /// The part that is wrong.
        part: String,
    },
    /// The tag is wrong.
    #[error(
        "image name {name:?} has an invalid tag {tag:?}: a tag has up to {MAX_TAG} letters, digits, '_', '.' and '-', \
         and does not begin with '.' or '-'"
    )]
    Tag {
        /// The whole text.
        name: String,
        /// The part that is wrong.
        tag: String,
    },
    /// The digest is wrong.
    #[error("image name {name:?} has an invalid digest")]
    Digest {
        /// The whole text.
        name: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

impl Reference {
    /// Registry host with its port, if any: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repository path within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short form that Docker shows: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        self.write(&self.familiar_name())
    }

    /// The short form of the name alone, without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match (self.path.strip_prefix(OFFICIAL_PREFIX), self.path.split_once('/')) {
            (Some(rest), _) if !rest.contains('/') => rest.to_owned(),
            // What would read as a registry host must not come first.
            (_, Some((first, _))) if first.contains('.') || first == "localhost" => {
                format!("{}/{}", self.domain, self.path)
            }
            _ => self.path.clone(),
        }
    }

    /// Whether both name the same repository.
    pub(crate) fn same_repository(&self, other: &Reference) -> bool {
        self.domain == other.domain && self.path == other.path
    }

    /// What the registry is asked for: the digest if there is one, otherwise the tag.
    pub(crate) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    fn write(&self, name: &str) -> String {
        let mut text = name.to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::TooLong(text.len()));
        }
        if is_hex64(text) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { name: text.to_owned(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (domain, rest) = split_domain(rest);
        if !is_domain(domain) {
            return Err(ReferenceError::Domain { name: text.to_owned(), domain: domain.to_owned() });
        }
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_path(text, path)?;
        let official = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() };
        if path.len() > MAX_PATH {
            return Err(ReferenceError::TooLong(path.len()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { name: text.to_owned(), tag: tag.to_owned() });
        }
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

/// Splits the host off. The first part is a host if it could not be a path part on Docker Hub: it has a dot, a colon
/// or an upper-case letter, or is `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    let (domain, rest) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    (if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain }, rest)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => return is_ipv6(address),
        Some((address, rest)) => match rest.strip_prefix(':') {
            Some(port) if is_ipv6(address) => return is_port(port),
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let component = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(component) && port.is_none_or(is_port)
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

/// The grammar allows any number of digits; a port that no TCP port can be is refused here already.
fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn check_path(name: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase(name.to_owned()));
    }
    match path.split('/').find(|part| !is_path_component(part)) {
        Some(part) => Err(ReferenceError::Path { name: name.to_owned(), part: part.to_owned() }),
        None => Ok(()),
    }
}

/// `[a-z0-9]+` parts separated by `.`, `_`, `__` or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(is_alphanumeric)
        || !bytes.last().copied().is_some_and(is_alphanumeric)
    {
        return false;
    }
    bytes
        .split(|&b| is_alphanumeric(b))
        .filter(|separator| !separator.is_empty())
        .all(|s| matches!(s, b"." | b"_" | b"__") || s.iter().all(|&b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= MAX_TAG
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(&format!("{}/{}", self.domain, self.path)))
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}
