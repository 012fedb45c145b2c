//! Which of an image's builds to take.

use std::fmt;
use std::str::FromStr;

/// An operating system and a CPU, written `linux/amd64` or `linux/arm64/v8`, as Docker's `--platform`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// Operating system, in Go's names.
    pub os: String,
    /// CPU architecture, in Go's names.
    pub architecture: String,
    /// CPU variant, such as `v8`.
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a platform: {0:?} (expected OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64)")]
pub struct PlatformError(String);

impl Default for Platform {
    /// `linux/amd64`, the only one that husk can run for now.
    fn default() -> Self {
        Self { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None }
    }
}

impl Platform {
    /// How well an image built for `offered` suits this platform: `None` if it can't run, otherwise the higher the
    /// better. A CPU runs what was built for its own variant and for lower ones.
    pub(crate) fn suits(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let wanted = self.variant_number()?;
        let offered = offered.variant_number()?;
        (offered <= wanted).then_some(offered)
    }

    /// The variant as a number, the usual one filled in where none is given.
    fn variant_number(&self) -> Option<u32> {
        match &self.variant {
            Some(variant) => variant.strip_prefix('v').unwrap_or(variant).parse().ok(),
            None => Some(match self.architecture.as_str() {
                "arm64" => 8,
                "arm" => 7,
                _ => 1,
            }),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(100).collect());
        let ok = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let mut parts = text.split('/');
        let (os, architecture) = (parts.next().ok_or_else(error)?, parts.next().ok_or_else(error)?);
        let variant = parts.next();
        if parts.next().is_some() || !ok(os) || !ok(architecture) || !variant.is_none_or(ok) {
            return Err(error());
        }
        let architecture = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        Ok(Self { os: os.to_ascii_lowercase(), architecture, variant: variant.map(str::to_ascii_lowercase) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_parse_and_print() {
        assert_eq!(platform("linux/amd64"), Platform::default());
        assert_eq!(platform("linux/x86_64"), Platform::default());
        assert_eq!(platform("Linux/ARM64/v8").to_string(), "linux/arm64/v8");
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux/arm/"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cpu_runs_its_own_variant_and_lower_ones() {
        let suits = |wanted: &str, offered: &str| platform(wanted).suits(&platform(offered));
        assert!(suits("linux/amd64", "linux/amd64").is_some());
        assert!(suits("linux/amd64", "linux/amd64/v1").is_some());
        assert_eq!(suits("linux/amd64", "linux/amd64/v3"), None);
        assert!(suits("linux/amd64/v3", "linux/amd64/v2") > suits("linux/amd64/v3", "linux/amd64"));
        assert_eq!(suits("linux/amd64", "linux/arm64"), None);
        assert_eq!(suits("linux/amd64", "windows/amd64"), None);
        assert!(suits("linux/arm64", "linux/arm64/v8").is_some());
        assert!(suits("linux/arm64/v8", "linux/arm64").is_some());
        assert_eq!(suits("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(suits("linux/amd64", "linux/amd64/odd"), None);
    }
}
